"""nginx with the file of compose.replicas.yaml passes over replicas that stop, and repeats no POST that it has sent."""

import contextlib
import itertools
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import pytest

from service.serve.grpc.grpc_messages import message_class
from tests.support.grpc_service import GrpcService, grpc_calls, serving_grpc
from tests.support.learning_client import IRIS
from tests.support.paths import ROOT
from tests.support.postgres_servers import free_port
from tests.support.programs import program
from tests.support.waiting import SECONDS, wait_until

FILE = ROOT / "deploy" / "compose" / "nginx.conf"
PREDICT, FEEDBACK = "/v1/models/iris:predict", "/v1/models/iris:feedback"
CLIENTS = 4
# Requests of each client before the replica stops, and after it has.
REQUESTS = 10
DRAIN_SECONDS = 0.5
# How long nginx waits for an answer of replicas that give none.
STALL = "proxy_read_timeout 300ms;"
Upstreams = Sequence[tuple[int, int]]


class Nginx(NamedTuple):
    """The ports of a running nginx."""

    http: int
    grpc: int


def place(text: str, folder: Path, upstreams: Upstreams, nginx: Nginx) -> str:
    """Return the file with other ports, and with folders and addresses of this machine."""
    for number, ports in enumerate(upstreams, 1):
        for inside, port in zip((8000, 9000), ports, strict=True):
            text, found = re.subn(rf"server replica-{number}:{inside};", f"server 127.0.0.1:{port};", text)
            assert found == 1
    for inside, port in ((8080, nginx.http), (9090, nginx.grpc)):
        text, found = re.subn(rf"listen {inside}\b", f"listen 127.0.0.1:{port}", text)
        assert found == 1
    return re.sub(r" /tmp/", f" {folder}/", text)


@contextlib.contextmanager
def running_nginx(folder: Path, upstreams: Upstreams, more: str = "") -> Iterator[Nginx]:
    """Run nginx until the end of the block.

    Args:
        folder: Where it writes.
        upstreams: The ports of each replica, of HTTP and of gRPC.
        more: Further settings of all servers.
    """
    folder.mkdir(mode=0o755)  # nginx's worker may be another user
    nginx = Nginx(free_port(), free_port())
    conf = folder / "nginx.conf"
    text = place(FILE.read_text(), folder, upstreams, nginx)
    conf.write_text(re.sub(r"^http {", f"http {{ {more}", text, flags=re.MULTILINE))
    process = subprocess.Popen([program("nginx"), "-p", folder, "-c", conf, "-g", "daemon off;"])
    try:
        wait_until(lambda: _accepts(nginx.http), SECONDS)
        yield nginx
    finally:
        process.terminate()
        process.wait(SECONDS)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


class SilentReplica:
    """A replica that reads each request and gives no answer.

    Args:
        is_stalled: Whether it keeps the connection, as if it hung; else it closes it, as if it were killed.

    Attributes:
        port: Its port.
        heads: The first lines of the requests that were sent to it.
    """

    def __init__(self, *, is_stalled: bool) -> None:
        self._kept: list[socket.socket] | None = [] if is_stalled else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.heads: list[bytes] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (self._listener, *(self._kept or ())):
            connection.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.heads.append(connection.recv(1 << 16).partition(b"\r\n")[0])
                if self._kept is None:
                    connection.close()
                else:
                    self._kept.append(connection)


@pytest.mark.parametrize(("is_stalled", "status"), [(False, 502), (True, 504)])
def test_a_post_that_was_sent_is_not_repeated(tmp_path: Path, *, is_stalled: bool, status: int) -> None:
    """nginx sends it to one replica, and answers that none came from there; it sends a GET to all three."""
    for method, path, times in (("POST", PREDICT, 1), ("POST", FEEDBACK, 1), ("GET", "/readyz", 3)):
        with contextlib.ExitStack() as stack:
            replicas = [stack.enter_context(SilentReplica(is_stalled=is_stalled)) for _ in range(3)]
            ports = [(each.port, 1) for each in replicas]
            nginx = stack.enter_context(running_nginx(tmp_path / path.rpartition(":")[2].strip("/"), ports, STALL))
            answer = httpx.request(method, f"http://127.0.0.1:{nginx.http}{path}", content=b"{}", timeout=SECONDS)
            assert answer.status_code == status
            assert [head for each in replicas for head in each.heads] == [f"{method} {path} HTTP/1.1".encode()] * times


class Tally(NamedTuple):
    """What clients got: the status codes of predictions, and the seq of each event with whether it was a duplicate."""

    statuses: list[int]
    events: list[tuple[int, bool]]


def use(url: str, client: int, tally: Tally, stopped: threading.Event) -> None:
    """Send events over a connection that is kept, and read each back with a prediction, until told to stop."""
    with httpx.Client(base_url=url, timeout=SECONDS) as web:
        for number in itertools.count():
            if stopped.is_set():
                return
            event = {"id": f"{client}-{number}", "instances": [IRIS], "labels": [number % 3]}
            answer = web.post(FEEDBACK, json=event)
            assert answer.status_code == 202, answer.text
            seq = answer.json()["seq"]
            tally.events.append((seq, answer.json()["duplicate"]))
            tally.statuses.append(web.post(PREDICT, json={"instances": [IRIS], "min_seq": seq}).status_code)


def test_a_replica_that_stops_fails_no_request(iris_models: Path, tmp_path: Path, address: str) -> None:
    """Predictions and feedback go on while one of three replicas stops, and no event is sent twice; gRPC works too."""

    def replica(name: str) -> contextlib.AbstractContextManager[GrpcService]:
        (tmp_path / name).mkdir()
        shared = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1}
        return serving_grpc(iris_models, tmp_path / name, SOFTSTEP_DRAIN_SECONDS=DRAIN_SECONDS, **shared)

    tally, stopped = Tally([], []), threading.Event()
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as stops:
        replicas = [
            stack.enter_context(replica("a")),
            stops.enter_context(replica("b")),
            stack.enter_context(replica("c")),
        ]
        ports = [(each.service.address[1], each.address[1]) for each in replicas]
        nginx = stack.enter_context(running_nginx(tmp_path / "nginx", ports))
        url = f"http://127.0.0.1:{nginx.http}"
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(use, url, number, tally, stopped) for number in range(CLIENTS)]
            try:
                wait_until(lambda: len(tally.statuses) >= CLIENTS * REQUESTS, SECONDS)
                stops.close()
                after = len(tally.statuses) + CLIENTS * REQUESTS
                wait_until(lambda: len(tally.statuses) >= after, SECONDS)
            finally:
                stopped.set()
            for client in clients:
                client.result()
        assert set(tally.statuses) == {200}
        assert sorted(tally.events) == [(seq, False) for seq in range(1, len(tally.events) + 1)]
        with grpc_calls(f"127.0.0.1:{nginx.grpc}") as calls:
            answers = [
                calls.ask("ServerReady", message_class("inference.ServerReadyRequest")()) for _ in range(CLIENTS)
            ]
        assert [answer.status.name for answer in answers] == ["OK"] * CLIENTS
