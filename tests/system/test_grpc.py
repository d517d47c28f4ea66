"""gRPC in a service as operators run it: keys, limits, TLS, two ports, feedback, the access log, and the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access.key_file import LimitsRecord
from service.access.scopes import Scope
from service.serve.grpc.grpc_messages import InferRequest, message_class
from service.serve.grpc.message_framing import frame_message
from tests.support.api_keys import add_key
from tests.support.certificates import Authority
from tests.support.grpc_service import GrpcCalls, GrpcService, grpc_calls, serving_grpc
from tests.support.http2_client import Http2Client, call_headers
from tests.support.paths import ROOT, SHIPPED
from tests.support.running_service import NO_TLS
from tests.support.waiting import SECONDS, wait_until

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], "<f4")
# So low that calls are refused on the slowest machine.
RATE = 1.0
Status = grpc.StatusCode


def infer_request(model: str = "iris") -> Any:
    """Return a request of one row."""
    request = InferRequest(model_name=model)
    request.inputs.add(name="features", datatype="FP32", shape=ROW.shape)
    request.raw_input_contents.append(ROW.tobytes())
    return request


def repository_call(name: str, model: str) -> Any:
    """Return the request of a load or unload."""
    return message_class(f"inference.RepositoryModel{name}Request")(model_name=model)


class Keys(NamedTuple):
    """A service with keys, calls to it, and the metadata of each key."""

    running: GrpcService
    calls: GrpcCalls
    iris: list[tuple[str, str]]
    admin: list[tuple[str, str]]
    limited: list[tuple[str, str]]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Run a service that knows three keys, and writes an access log."""
    scratch = tmp_path_factory.mktemp("keys")
    path = scratch / "data" / "keys.json"
    iris = add_key(path, Scope.PREDICT, models=("iris",))
    admin = add_key(path, Scope.ADMIN, Scope.PREDICT)
    limited = add_key(path, Scope.PREDICT, limits=LimitsRecord(requests_per_second=RATE, rows_per_second=10 * RATE))
    with (
        serving_grpc(SHIPPED, scratch, SOFTSTEP_ACCESS_LOG="true", SOFTSTEP_OPENAPI_ACCESS="key") as running,
        grpc_calls(running.target) as calls,
    ):
        yield Keys(
            running,
            calls,
            [("authorization", f"Bearer {iris}")],
            [("x-api-key", admin)],
            [("authorization", f"bearer {limited}")],
        )


def test_a_call_needs_a_key_with_its_scope(keys: Keys) -> None:
    """It is the same key as over HTTP, as metadata; a remembered request needs it too."""
    ask, request = keys.calls.ask, infer_request()
    for _ in range(3):
        answer = ask("ModelInfer", request)
        assert (answer.status, answer.code) == (Status.UNAUTHENTICATED, "key_missing")
        assert ask("ModelInfer", request, keys.iris).status == Status.OK
        answer = ask("ModelInfer", request, [("authorization", "Bearer unknown")])
        assert (answer.status, answer.code) == (Status.UNAUTHENTICATED, "key_invalid")
        answer = ask("ModelInfer", infer_request("digits"), keys.iris)
        assert (answer.status, answer.code) == (Status.PERMISSION_DENIED, "model_not_permitted")
        answer = ask("ModelInfer", infer_request("unknown"), keys.iris)
        assert (answer.status, answer.code) == (Status.PERMISSION_DENIED, "model_not_permitted")
    metadata = message_class("inference.ModelMetadataRequest")
    assert ask("ModelMetadata", metadata(name="iris"), keys.iris).status == Status.OK
    assert ask("ModelMetadata", metadata(name="digits"), keys.iris).code == "model_not_permitted"
    assert ask("ModelMetadata", metadata(name="stats")).code == "key_missing"
    index = message_class("inference.RepositoryIndexRequest")()
    assert {one.name for one in ask("RepositoryIndex", index, keys.iris).message.models} == {"iris"}
    assert ask("RepositoryModelUnload", repository_call("Unload", "iris"), keys.iris).code == "scope_missing"


def test_probes_need_no_key(keys: Keys) -> None:
    """Reflection needs one here, where the OpenAPI document does."""
    assert keys.calls.ask("ServerLive", b"").message.live
    assert keys.calls.ask("ServerReady", b"").message.ready
    assert keys.calls.ask("ServerMetadata", b"").message.name == "softstep"
    answer = message_class("grpc.health.v1.HealthCheckResponse")
    assert keys.calls.ask("/grpc.health.v1.Health/Check", b"", answer=answer).message.status == 1
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    asked = frame_message(
        message_class("grpc.reflection.v1.ServerReflectionRequest")(list_services="").SerializeToString()
    )
    with Http2Client(keys.running.address) as client:
        assert client.ask(call_headers(path), asked) == (16, "key_missing")
        assert client.ask(call_headers(path, *keys.iris), asked) == (0, "")


def test_limits_of_a_key_hold(keys: Keys) -> None:
    """Refused calls say when to try again."""
    answers = [keys.calls.ask("ModelInfer", infer_request(), keys.limited) for _ in range(40)]
    refused = [answer for answer in answers if answer.status != Status.OK]
    assert 0 < len(refused) < 40
    assert {(answer.status, answer.code) for answer in refused} == {(Status.RESOURCE_EXHAUSTED, "too_many_requests")}
    assert {answer.trailers["grpc-retry-pushback-ms"] for answer in refused} == {"1000"}


def test_an_administrator_is_audited(keys: Keys) -> None:
    """As over HTTP: the actor, the action, and the id of the request."""
    metadata = [*keys.admin, ("x-request-id", "seven")]
    for name in ("Unload", "Load"):
        answer = keys.calls.ask(f"RepositoryModel{name}", repository_call(name, "digits"), metadata)
        assert (answer.status, answer.trailers["x-request-id"]) == (Status.OK, "seven")
    lines = (keys.running.service.log.parent / "data" / "audit.jsonl").read_text().splitlines()
    found = [(line["action"], line["object"], line["request_id"]) for line in map(json.loads, lines)]
    assert found[-2:] == [("unload", "digits", "seven"), ("load", "digits", "seven")]


def access_lines(service: GrpcService) -> list[dict[str, Any]]:
    """Return the lines of the access log."""
    lines = (json.loads(line) for line in service.service.log.read_text().splitlines())
    return [line for line in lines if line["event"] == "access"]


def test_each_call_has_a_line_of_the_access_log(keys: Keys) -> None:
    """With the model that answered, its status as of HTTP, and the id that errors have."""
    before = len(access_lines(keys.running))
    assert keys.calls.ask("ModelInfer", infer_request(), keys.admin).status == Status.OK
    keys.calls.ask("ModelInfer", infer_request(), [*keys.admin, ("x-request-id", "mine")])
    refused = keys.calls.ask("ModelInfer", infer_request("unknown"), keys.admin)
    keys.calls.ask("ModelReady", message_class("inference.ModelReadyRequest")(name="iris"), keys.admin)
    keys.calls.ask("/x/y", b"", answer=InferRequest)
    wait_until(lambda: len(access_lines(keys.running)) == before + 5)
    first, named, unknown, ready, other = access_lines(keys.running)[before:]
    route = "/inference.GRPCInferenceService/ModelInfer"
    assert (first["route"], first["method"], first["status"], first["model"], first["seq"]) == (
        route,
        "POST",
        200,
        "iris",
        0,
    )
    assert first["bytes_in"] == len(infer_request().SerializeToString()) + 5
    assert named["request_id"] == "mine"
    assert (unknown["status"], unknown["model"]) == (404, None)
    assert unknown["request_id"] == refused.trailers["x-request-id"]
    assert (ready["route"], ready["method"], ready["status"]) == ("/v2/models/{name}/ready", "GET", 200)
    assert (other["route"], other["status"]) == (None, 404)


def test_responses_are_counted_once(keys: Keys) -> None:
    """The fast way, the handlers and FastAPI count a response under the status that it has over HTTP."""

    def count(status: int) -> int:
        text = httpx.get(f"{keys.running.service.url}/metrics", verify=NO_TLS).text
        name = f'softstep_http_responses_total{{status="{status}"}} '
        return int(float(next((line.split()[1] for line in text.splitlines() if line.startswith(name)), "0")))

    before = count(200), count(404), count(401)
    keys.calls.ask("ModelInfer", infer_request(), keys.admin)
    keys.calls.ask("ModelReady", message_class("inference.ModelReadyRequest")(name="iris"), keys.admin)
    keys.calls.ask("ModelInfer", infer_request("unknown"), keys.admin)
    keys.calls.ask("ModelInfer", infer_request())
    # The metrics themselves were answered in between.
    assert (count(200) - before[0], count(404) - before[1], count(401) - before[2]) == (2 + 3, 1, 1)


def test_a_revoked_key_is_refused_though_its_requests_are_remembered(keys: Keys) -> None:
    """Within a second or two, on a connection that used it before."""
    path = keys.running.service.log.parent / "data" / "keys.json"
    key = add_key(path, Scope.PREDICT)
    metadata = [("authorization", f"Bearer {key}")]
    wait_until(lambda: keys.calls.ask("ModelInfer", infer_request(), metadata).status == Status.OK)
    text = path.read_text()
    document = json.loads(text)
    document["keys"] = [one for one in document["keys"] if one["id"] != key[9:17]]
    assert len(document["keys"]) == 3
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document))
    temporary.chmod(0o600)
    temporary.rename(path)
    wait_until(lambda: keys.calls.ask("ModelInfer", infer_request(), metadata).code == "key_invalid")


def test_a_public_port_has_no_administration(tmp_path: Path) -> None:
    """With SOFTSTEP_ADMIN_PORT, gRPC permits what the public port does."""
    with (
        serving_grpc(SHIPPED, tmp_path, SOFTSTEP_ADMIN_PORT=0) as running,
        grpc_calls(running.target) as calls,
    ):
        assert calls.ask("RepositoryModelUnload", repository_call("Unload", "iris")).status == Status.UNIMPLEMENTED
        assert calls.ask("ModelInfer", infer_request()).status == Status.OK


def test_answers_follow_what_is_learned(tmp_path: Path) -> None:
    """A remembered request gets the newest state, with its seq, as over HTTP."""
    with serving_grpc(SHIPPED, tmp_path) as running, grpc_calls(running.target) as calls:
        first = calls.ask("ModelInfer", infer_request()).message
        for seq in range(1, 4):
            feedback = {"instances": ROW.tolist(), "labels": ["virginica"]}
            url = f"{running.service.url}/v1/models/iris:feedback?wait=true"
            assert httpx.post(url, json=feedback, timeout=SECONDS, verify=NO_TLS).status_code == 200
            answer = calls.ask("ModelInfer", infer_request()).message
            assert answer.parameters["seq"].int64_param == seq
            body = {"instances": ROW.tolist()}
            response = httpx.post(f"{running.service.url}/v1/models/iris:predict", json=body, verify=NO_TLS).json()
            found = np.frombuffer(answer.raw_output_contents[0], "<f4")
            assert found.tolist() == np.array(response["predictions"][0], "<f4").tolist()
            assert answer.raw_output_contents[0] != first.raw_output_contents[0]


def test_clients_with_tls_negotiate_http2(tmp_path: Path) -> None:
    """With the certificate of the service; a client's own certificate permits what it does over HTTP."""
    ours, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    subjects = {
        "format": 1,
        "subjects": [{"certificate": {"CN": "scoring"}, "scopes": ["predict"], "models": ["iris"]}],
    }
    (tmp_path / "subjects.json").write_text(json.dumps(subjects))
    settings = {
        "SOFTSTEP_TLS_CERTIFICATE": ours.sign("service.pem"),
        "SOFTSTEP_TLS_CLIENT_CA": clients.path,
        "SOFTSTEP_TLS_CLIENT_CERTIFICATE": "optional",
        "SOFTSTEP_TLS_SUBJECTS": tmp_path / "subjects.json",
    }
    pair = clients.sign("scoring").read_bytes()
    chain, key = pair[: pair.index(b"-----BEGIN PRIVATE")], pair[pair.index(b"-----BEGIN PRIVATE") :]
    with serving_grpc(SHIPPED, tmp_path, client=ours.client(), **settings) as running:
        for model, status in (("iris", Status.OK), ("digits", Status.PERMISSION_DENIED)):
            credentials = grpc.ssl_channel_credentials(ours.path.read_bytes(), key, chain)
            with grpc.secure_channel(running.target, credentials) as channel:
                answers = [GrpcCalls(channel).ask("ModelInfer", infer_request(model)) for _ in range(3)]
                assert {answer.status for answer in answers} == {status}
        credentials = grpc.ssl_channel_credentials(ours.path.read_bytes())
        with grpc.secure_channel(running.target, credentials) as channel:
            assert GrpcCalls(channel).ask("ModelInfer", infer_request()).code == "key_missing"
        context = ours.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with Http2Client(running.address, context) as client:
            assert client.end.selected_alpn_protocol() == "h2"  # type: ignore[attr-defined]  # of ssl.SSLSocket
            assert client.ask(call_headers(), frame_message(infer_request().SerializeToString()))[0] == 16


class Caller(threading.Thread):
    """A client that makes calls one after another until the service is gone.

    Attributes:
        answered: How many calls were answered.
        failures: The details of those that were not.
    """

    def __init__(self, target: str) -> None:
        super().__init__(daemon=True)
        self._target = target
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        with grpc_calls(self._target) as calls:
            while not self.failures:
                answer = calls.ask("ModelInfer", infer_request())
                if answer.status == Status.OK:
                    self.answered += 1
                else:
                    self.failures.append(f"{answer.status} {answer.sentence}")


def test_no_call_is_lost_when_the_service_stops(tmp_path: Path) -> None:
    """Clients make calls on until nothing listens; one that watches gets NOT_SERVING, and then the end."""
    with serving_grpc(SHIPPED, tmp_path, workers=2, SOFTSTEP_DRAIN_SECONDS=1) as running:
        callers = [Caller(running.target) for _ in range(6)]
        for caller in callers:
            caller.start()
        wait_until(lambda: all(caller.answered > 10 for caller in callers), 4 * SECONDS)
        with grpc.insecure_channel(running.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=4 * SECONDS)
            assert next(watch).status == 1
            began = time.monotonic()
            os.kill(running.service.process.pid, signal.SIGTERM)
            assert next(watch).status == 2
            with pytest.raises(grpc.RpcError) as ended:
                next(watch)
            assert ended.value.code() == Status.UNAVAILABLE
            assert "stops" in ended.value.details()
        assert running.service.process.wait(4 * SECONDS) == 0
        assert time.monotonic() - began < 4 * SECONDS
        for caller in callers:
            caller.join(4 * SECONDS)
        failures = [caller.failures for caller in callers]
        assert all("connect" in text.lower() for texts in failures for text in texts), failures


def test_a_call_in_progress_is_answered_when_the_service_stops(tmp_path: Path) -> None:
    """The last GOAWAY names it; further calls on its connection are left to another one."""
    request = frame_message(infer_request().SerializeToString())
    with serving_grpc(SHIPPED, tmp_path) as running, Http2Client(running.address) as client:
        assert client.ask(call_headers(), request) == (0, "")
        stream = client.begin(call_headers(), request[:20], ended=False)
        os.kill(running.service.process.pid, signal.SIGTERM)
        client.end.settimeout(SECONDS)
        while len(client.goaways) < 2:
            client.read_some()
        assert client.goaways == [(2**31 - 1, 0), (stream, 0)]
        client.connection.send_data(stream, request[20:], end_stream=True)
        client.flush()
        client.read(stream)
        assert client.status(stream) == (0, "")
        client.read_to_end()
        assert running.service.process.wait(SECONDS) == 0


def test_a_service_without_the_packages_says_what_to_install(tmp_path: Path) -> None:
    """And exits before it listens; without the setting it needs none of them."""
    code = "import sys; sys.modules['ngh2'] = None; from service.__main__ import main; sys.exit(main())"
    variables = {**os.environ, "SOFTSTEP_GRPC_PORT": "0", "PYTHONPATH": str(ROOT)}
    arguments = ["serve", "--models", str(SHIPPED), "--data", str(tmp_path / "data"), "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert 'pip install "softstep[grpc]"' in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_fails_the_start(tmp_path: Path, keys: Keys) -> None:
    """The exit code is 1, and the log names the port."""
    port = keys.running.address[1]
    with (
        pytest.raises(AssertionError, match=rf"(?s)exit code 1.*port {port}"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(serving_grpc(SHIPPED, tmp_path, SOFTSTEP_GRPC_PORT=port))
