"""A service with TLS: versions, renewed certificates, client certificates, deadlines and the end."""

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from service import command_line
from service.access.scopes import Scope
from tests.support.api_keys import add_key, bearer
from tests.support.certificates import Authority
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.processes import seconds_until_exit
from tests.support.programs import program
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS, wait_until

ROW = [5.1, 3.5, 1.4, 0.2]
PREDICT = request("POST", "/v1/models/iris:predict", instances([ROW])).replace(b"X-Request-Id: test\r\n", b"")
TEACH = request("POST", "/v1/models/iris:feedback", json.dumps({"instances": [ROW], "labels": [0]}).encode()).replace(
    b"X-Request-Id: test\r\n", b""
)
SUBJECTS = [
    {"certificate": {"CN": "scoring-*", "O": "Example"}, "scopes": ["predict"]},
    {"certificate": {"CN": "teacher"}, "scopes": ["predict", "feedback"]},
    {"certificate": {"URI": "spiffe://example/*"}, "scopes": ["predict"], "models": ["digits"]},
]
HEADER_SECONDS = 1.0


class Scene(NamedTuple):
    """A running service with TLS, and who signs its certificates and those of its clients."""

    service: Service
    ours: Authority
    clients: Authority
    key: str

    @property
    def folder(self) -> Path:
        """The folder of the files of TLS."""
        return self.ours.folder

    def client(self, cn: str | None = None, **certificate: Any) -> ssl.SSLContext:
        """Return a client's context, with a certificate of this name or without."""
        if cn is None and not certificate:
            return self.ours.client()
        name = [(NameOID.COMMON_NAME, cn)] if cn else [(NameOID.ORGANIZATION_NAME, "Example")]
        if cn and cn.startswith("scoring"):
            name.append((NameOID.ORGANIZATION_NAME, "Example"))
        return self.ours.client(self.clients.sign("client.pem", name=name, **certificate))

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Connect, and do the handshake."""
        host, port = self.service.address
        return context.wrap_socket(socket.create_connection((host, port), SECONDS), server_hostname=host)

    def post(self, data: bytes, *contexts: ssl.SSLContext) -> list[tuple[int, str]]:
        """Send a request twice over a new connection for each context; return status and code of the answers."""
        answers = []
        for context in contexts:
            with self.connect(context) as end:
                answers += [read_answer(end, data) for _ in range(2)]
        return answers

    def log(self) -> str:
        """Return the log of the service."""
        return self.service.log.read_text()


def read_answer(end: socket.socket, data: bytes) -> tuple[int, str]:
    """Send a request, and return the status of its answer and the code of an error."""
    end.sendall(data)
    text = b""
    while b"\r\n\r\n" not in text:
        part = end.recv(65536)
        assert part, "the connection ended"
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < size:
        body += end.recv(65536)
    return int(head.split()[1]), json.loads(body).get("code", "")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run a service that knows keys and client certificates."""
    folder = tmp_path_factory.mktemp("tls")
    ours, clients = Authority(folder), Authority(folder, "clients")
    models = folder / "models"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    (folder / "subjects.json").write_text(json.dumps({"format": 1, "subjects": SUBJECTS}))
    key = add_key(folder / "keys.json", Scope.PREDICT)
    with serving(
        models,
        folder,
        client=ours.client(),
        SOFTSTEP_TLS_CERTIFICATE=ours.sign("service.pem"),
        SOFTSTEP_TLS_CLIENT_CA=clients.path,
        SOFTSTEP_TLS_CLIENT_CERTIFICATE="optional",
        SOFTSTEP_TLS_SUBJECTS=folder / "subjects.json",
        SOFTSTEP_KEYS_FILE=folder / "keys.json",
        SOFTSTEP_HEADER_SECONDS=HEADER_SECONDS,
        SOFTSTEP_WRITE_SECONDS=1,
    ) as service:
        yield Scene(service, ours, clients, key)


def test_current_versions_and_http_1_1_are_negotiated(scene: Scene) -> None:
    """TLS 1.3 is preferred, 1.2 is taken, and of the protocols only HTTP/1.1."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = scene.client()
        context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with scene.connect(context) as end:
            assert end.version() == version.name.replace("_", ".")
            assert end.selected_alpn_protocol() == "http/1.1"
            assert read_answer(end, PREDICT)[0] == 401


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("ciphers", ["ALL:@SECLEVEL=0", "AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"])
def test_old_versions_and_weak_ciphers_are_refused(scene: Scene, ciphers: str) -> None:
    """Neither TLS 1.1 nor a cipher without forward secrecy or authenticated encryption connects."""
    context = scene.client()
    context.set_ciphers(ciphers)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1 if "SECLEVEL" in ciphers else ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), scene.connect(context):
        pass


def test_openssl_verifies_the_service(scene: Scene) -> None:
    """The command-line client of OpenSSL connects and verifies the certificate."""
    host, port = scene.service.address
    command = [program("openssl"), "s_client", "-brief", "-verify_return_error", "-CAfile", str(scene.ours.path)]
    done = subprocess.run(
        [*command, "-connect", f"{host}:{port}"], input=b"", capture_output=True, timeout=SECONDS, check=True
    )
    assert b"Verification: OK" in done.stdout + done.stderr


def test_plain_http_gets_no_answer(scene: Scene) -> None:
    """A request without TLS ends its connection."""
    with socket.create_connection(scene.service.address, SECONDS) as end:
        end.sendall(PREDICT)
        assert not any(byte in end.recv(65536) for byte in (b"HTTP", b"{"))


# Clients with certificates


def test_a_certificate_permits_what_its_subject_may_do(scene: Scene) -> None:
    """The first entry whose names match gives the scopes and models; another certificate permits nothing."""
    scoring, teacher, unknown = scene.client("scoring-1"), scene.client("teacher"), scene.client("unknown")
    assert scene.post(PREDICT, scoring, teacher) == [(200, "")] * 4
    assert scene.post(TEACH, scoring) == [(403, "scope_missing")] * 2
    assert scene.post(TEACH, teacher) == [(202, "")] * 2
    assert scene.post(PREDICT, unknown) == [(403, "scope_missing")] * 2
    mesh = scene.client(None, alternatives=[x509.UniformResourceIdentifier("spiffe://example/scoring")])
    assert scene.post(PREDICT, mesh) == [(403, "model_not_permitted")] * 2


def test_a_comma_in_a_name_is_no_further_name(scene: Scene) -> None:
    """A client cannot claim an organization inside of its common name."""
    context = scene.ours.client(scene.clients.sign("client.pem", name=[(NameOID.COMMON_NAME, "scoring-1,O=Example")]))
    assert scene.post(PREDICT, context) == [(403, "scope_missing")] * 2


def test_a_request_without_key_and_certificate_is_refused(scene: Scene) -> None:
    """The client may connect, but only probes are answered."""
    assert scene.post(PREDICT, scene.client()) == [(401, "key_missing")] * 2
    with httpx.Client(base_url=scene.service.url, verify=scene.client()) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/models/iris").status_code == 401


def test_a_key_counts_before_the_certificate(scene: Scene) -> None:
    """A request with a key may do what the key permits, and nothing if the key is not valid."""
    with httpx.Client(base_url=scene.service.url, verify=scene.client("teacher")) as client:
        body = {"instances": [ROW], "labels": [0]}
        for headers, code in ((bearer(scene.key), 403), (("X-API-Key", "softstep_x"), 401)):
            answer = client.post("/v1/models/iris:feedback", json=body, headers=[headers])
            assert answer.status_code == code
        assert client.get("/v1/models/iris").status_code == 200


def test_a_certificate_of_another_authority_is_refused(scene: Scene) -> None:
    """The handshake fails, though a certificate is optional."""
    name = [(NameOID.COMMON_NAME, "teacher")]
    context = scene.ours.client(Authority(scene.folder, "strangers").sign("stranger.pem", name=name))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        scene.post(PREDICT, context)


def test_a_remembered_head_is_not_shared_by_other_clients(scene: Scene) -> None:
    """The same bytes are refused on a connection with another certificate or none, also after many repetitions."""
    teacher, scoring, nobody = scene.client("teacher"), scene.client("scoring-1"), scene.client()
    for data, refused in ((TEACH, scoring), (PREDICT, nobody)):
        with scene.connect(teacher) as first, scene.connect(refused) as second:
            for _ in range(3):
                assert read_answer(first, data)[0] in {200, 202}
                assert read_answer(second, data)[0] in {401, 403}


def test_an_expired_certificate_ends_on_an_open_connection(scene: Scene) -> None:
    """A request that was answered before gets 401 once the certificate has expired."""
    with scene.connect(scene.client("teacher", seconds=1.5)) as end:
        assert read_answer(end, PREDICT) == (200, "")
        wait_until(lambda: read_answer(end, PREDICT) == (401, "key_invalid"))


def test_changed_subjects_count_on_open_connections(scene: Scene) -> None:
    """Within a second of a new file, it decides about requests; a damaged file changes nothing."""
    path = scene.folder / "subjects.json"
    before = path.read_text()
    with scene.connect(scene.client("scoring-2")) as end:
        assert read_answer(end, PREDICT) == (200, "")
        try:
            path.write_text('{"format": 1, "subjects": [{"certificate": {}}]}')
            wait_until(lambda: "subjects.0" in scene.log())
            assert read_answer(end, PREDICT) == (200, "")
            path.write_text('{"format": 1, "subjects": []}')
            wait_until(lambda: read_answer(end, PREDICT) == (403, "scope_missing"))
        finally:
            path.write_text(before)
        wait_until(lambda: read_answer(end, PREDICT) == (200, ""))


# The certificate of the service


def serial(scene: Scene) -> int:
    """Return the serial number of the certificate that a new handshake shows."""
    with scene.connect(scene.client()) as end:
        der = end.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


def test_new_handshakes_show_a_renewed_certificate(scene: Scene) -> None:
    """A replaced file is used within a second, a damaged one is not, and open connections go on."""
    path, before = scene.folder / "service.pem", serial(scene)
    with scene.connect(scene.client("teacher")) as end:
        assert read_answer(end, PREDICT) == (200, "")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        wait_until(lambda: "not valid PEM" in scene.log())
        assert serial(scene) == before
        scene.ours.sign("service.pem")
        wait_until(lambda: serial(scene) != before)
        assert read_answer(end, PREDICT) == (200, "")


def test_a_key_of_another_certificate_is_not_used(scene: Scene) -> None:
    """The old pair stays, and the log has the reason."""
    path, before = scene.folder / "service.pem", serial(scene)
    whole = path.read_text()
    other = scene.ours.sign("other.pem").read_text()
    end = "-----END CERTIFICATE-----\n"
    path.write_text(whole.partition(end)[0] + end + other.partition(end)[2])
    wait_until(lambda: "do not belong together" in scene.log())
    assert serial(scene) == before
    path.write_text(whole)


def test_sighup_reads_the_files_again(scene: Scene) -> None:
    """Files that seem unchanged are read, and the service goes on."""
    count = scene.log().count("files_reread")
    scene.service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: scene.log().count("files_reread") == count + 2)
    assert scene.post(PREDICT, scene.client("teacher")) == [(200, "")] * 2


def resume(scene: Scene, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
    """Send a request in a session of an earlier connection."""
    host, port = scene.service.address
    end = socket.create_connection((host, port), SECONDS)
    with context.wrap_socket(end, server_hostname=host, session=session) as again:
        read_answer(again, PREDICT)


def test_a_removed_authority_verifies_no_more(scene: Scene) -> None:
    """A client whose authority was replaced cannot connect again, also not with its session."""
    context = scene.client("teacher")
    with scene.connect(context) as end:
        assert read_answer(end, PREDICT) == (200, "")
        session = end.session
    before = scene.clients.path.read_bytes()
    count = scene.log().count("files_reread")
    scene.clients.path.write_bytes(Authority(scene.folder, "successors").path.read_bytes())
    try:
        wait_until(lambda: scene.log().count("files_reread") > count)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            resume(scene, context, session)
    finally:
        count = scene.log().count("files_reread")
        scene.clients.path.write_bytes(before)
        wait_until(lambda: scene.log().count("files_reread") > count)


# Deadlines


def ends_in_time(end: socket.socket) -> bool:
    """Whether a connection is closed soon after the time for a head."""
    began = time.monotonic()
    end.settimeout(HEADER_SECONDS + SECONDS)
    with contextlib.suppress(ConnectionError):  # a reset is an end too
        while end.recv(65536):
            pass
    return time.monotonic() - began < HEADER_SECONDS + SECONDS


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_slow_handshake_is_ended(scene: Scene, size: int) -> None:
    """A client that says nothing, or sends a part of its first message, is disconnected."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = scene.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(scene.service.address, SECONDS) as end:
        end.sendall(outgoing.read()[:size])
        assert ends_in_time(end)


def test_a_slow_head_is_refused(scene: Scene) -> None:
    """A client that does not end its headers gets 408, and then the end of TLS."""
    with scene.connect(scene.client("teacher")) as end:
        assert read_answer(end, PREDICT[:50]) == (408, "request_timeout")
        assert end.recv(1) == b""


def read_answers(end: socket.socket, count: int) -> None:
    """Read answers to requests that were sent before."""
    for _ in range(count):
        read_answer(end, b"\r\n")


def test_a_client_that_does_not_read_is_ended(scene: Scene) -> None:
    """Responses that nobody reads do not keep a connection beyond the time for writing."""
    large = request("POST", "/v1/models/iris:predict", instances([[1, 1, 1, 1]] * 20_000))
    with scene.connect(scene.client("teacher")) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        end.sendall(large * 6)
        time.sleep(2.5)
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
            read_answers(end, 7)


# The end


def test_health_asks_over_tls(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads the same settings as the service, and shows the service's own certificate."""
    monkeypatch.setenv("SOFTSTEP_PORT", str(scene.service.address[1]))
    assert command_line.main(["health"]) == 1
    monkeypatch.setenv("SOFTSTEP_TLS_CERTIFICATE", str(scene.folder / "service.pem"))
    assert command_line.main(["health"]) == 0


def test_a_required_certificate_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iris_models: Path) -> None:
    """Without a certificate nothing is answered; idle clients and silent ones do not delay the end."""
    ours = Authority(tmp_path)
    pem = ours.sign("service.pem")
    settings = {"SOFTSTEP_TLS_CERTIFICATE": pem, "SOFTSTEP_TLS_CLIENT_CA": ours.path}
    with serving(iris_models, tmp_path, client=ours.client(pem), workers=2, **settings) as service:
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("SOFTSTEP_PORT", str(service.address[1]))
        assert command_line.main(["health"]) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{service.url}/healthz", verify=ours.client())
        scene = Scene(service, ours, ours, "")
        with scene.connect(ours.client(pem)) as idle, socket.create_connection(service.address, SECONDS):
            assert read_answer(idle, PREDICT) == (200, "")
            service.process.send_signal(signal.SIGTERM)
            assert seconds_until_exit(service.process) < SECONDS
            assert idle.recv(1) == b""
        assert service.process.returncode == 0


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_start_without_a_usable_certificate_fails(tmp_path: Path, content: str | None) -> None:
    """The exit code is 1, and the log has the reason."""
    path = tmp_path / "service.pem"
    if content is not None:
        path.write_text(content)
    with (
        pytest.raises(AssertionError, match=r"(?s)exit code 1.*(cannot be read|not valid PEM)"),
        serving(SHIPPED, tmp_path, SOFTSTEP_TLS_CERTIFICATE=path),
    ):
        pass
