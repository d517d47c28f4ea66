"""Real services with roles, which share a log in PostgreSQL: learners fold, and workers answer."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service import command_line as command
from service.serve.grpc.grpc_messages import message_class
from service.store.directory.data_directory import DataDirectory
from service.store.states.snapshots import read_fields
from service.store.states.state_folder import list_seqs
from tests.support.grpc_service import grpc_calls, serving_grpc
from tests.support.http_requests import instances, request
from tests.support.learning_client import IRIS, metadata, post, samples
from tests.support.paths import ROOT
from tests.support.postgres_servers import PostgresCluster
from tests.support.processes import children
from tests.support.running_service import Service, serving, start
from tests.support.waiting import SECONDS, wait_until

PROBE_PATHS = ("/", "/healthz", "/readyz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/metrics")


def replica(
    models: Path, scratch: Path, address: str, role: str, **more: object
) -> contextlib.AbstractContextManager[Service]:
    """Run a service of a role."""
    scratch.mkdir(exist_ok=True)
    shared = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1, "SOFTSTEP_ROLE": role}
    return serving(models, scratch, **shared, **more)


@pytest.mark.parametrize("role", ["learner", "worker"])
def test_a_role_needs_a_shared_log(role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without one nobody else would answer, or learn."""
    assert command.main(["serve", "--role", role, "--data", str(tmp_path)]) == 2
    assert "SOFTSTEP_LOG" in capsys.readouterr().err


def test_a_learner_answers_health_and_metrics_alone(iris_models: Path, tmp_path: Path, address: str) -> None:
    """It refuses any other path and method, known or not, by one code."""
    calls = [("POST", "/v1/models/iris:predict"), ("GET", "/v1/models/iris/pulse"), ("POST", "/v2/models/iris/infer")]
    calls += [("POST", "/v1/models/iris:feedback"), ("POST", "/invocations"), ("GET", "/docs"), ("GET", "/unknown")]
    calls += [("GET", "/v2"), ("GET", "/v1/key"), ("POST", "/v2/repository/models/iris/unload"), ("OPTIONS", "/v1")]
    with replica(iris_models, tmp_path / "a", address, "learner") as service, httpx.Client() as client:
        for path in PROBE_PATHS:
            assert client.get(service.url + path).status_code == 200, path
            assert client.head(service.url + path).status_code == 200, path
        for method, path in calls:
            answer = client.request(method, service.url + path, content=instances([IRIS]))
            assert (answer.status_code, answer.json()["code"]) == (421, "not_in_role"), path
        info = client.get(f"{service.url}/metrics").text
    assert 'role="learner"' in info


def test_a_learner_refuses_before_it_has_the_body(iris_models: Path, tmp_path: Path, address: str) -> None:
    """The response comes after the head, while nothing of the body has been sent."""
    head = request("POST", "/v1/models/iris:predict", b"x" * 100_000).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    with (
        replica(iris_models, tmp_path / "a", address, "learner") as service,
        socket.create_connection(service.address, SECONDS) as end,
    ):
        end.sendall(head)
        assert end.recv(1 << 16).startswith(b"HTTP/1.1 421 ")


def test_a_learner_answers_the_health_of_grpc_alone(iris_models: Path, tmp_path: Path, address: str) -> None:
    """Both protocols of health; other methods are not implemented in this role."""
    shared = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1, "SOFTSTEP_ROLE": "learner"}
    with serving_grpc(iris_models, tmp_path, **shared) as service, grpc_calls(service.target) as calls:
        check = message_class("grpc.health.v1.HealthCheckRequest"), message_class("grpc.health.v1.HealthCheckResponse")
        health = calls.ask("/grpc.health.v1.Health/Check", check[0](), answer=check[1])
        assert health.message is not None
        assert health.message.status == 1
        for method in ("ServerLive", "ServerReady"):
            assert calls.ask(method, message_class(f"inference.{method}Request")()).status == grpc.StatusCode.OK
        for method in ("ModelInfer", "ServerMetadata", "ModelReady", "RepositoryIndex"):
            refused = calls.ask(method, message_class(f"inference.{method}Request")())
            assert (refused.status, refused.code) == (grpc.StatusCode.UNIMPLEMENTED, "not_in_role"), method


def teach(service: Service, *names: object, wait: bool = False) -> list[int]:
    """Send an event for each name; return their seqs."""
    seqs = []
    for name in names:
        row = [(byte % 70 + 1) / 10 for byte in str(name).encode()[-4:].ljust(4)]
        body = {"id": str(name), "instances": [row], "labels": [sum(str(name).encode()) % 3]}
        answer = post(service, "iris:feedback", body, wait=wait)
        assert answer.status_code == (200 if wait else 202), answer.text
        seqs.append(answer.json()["seq"])
    return seqs


def weights_at(service: Service, seq: int) -> str:
    """Wait until a service serves exactly the state after an event; return the hash of its weights."""
    wait_until(lambda: metadata(service, "iris")["seq"] >= seq, SECONDS)
    found = metadata(service, "iris")
    assert found["seq"] == seq
    return str(found["weights_sha256"])


def predict(service: Service, **members: object) -> Any:
    answer = post(service, "iris:predict", {"instances": [IRIS], **members})
    assert answer.status_code == 200, answer.text
    return answer.json()


@contextlib.contextmanager
def starting(models: Path, scratch: Path, address: str) -> Iterator[Service]:
    """Start a service of the role worker, and wait until it predicts, ready or not."""
    scratch.mkdir()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))},
        "SOFTSTEP_PORT": "0",
        "SOFTSTEP_DRAIN_SECONDS": "0",
        "SOFTSTEP_LOG": address,
        "SOFTSTEP_LOG_COPIES": "1",
    }
    log = scratch / "log"
    with log.open("w") as errors:
        arguments = ["serve", "--models", str(models), "--data", str(scratch / "data"), "--role", "worker"]
        process = start(arguments, variables, errors)
    assert process.stdout is not None
    with process.stdout:
        try:
            service = Service(process.stdout.readline().split()[2], process, log)
            wait_until(lambda: is_predicting(service), SECONDS)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def is_predicting(service: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return post(service, "iris:predict", {"instances": [IRIS]}).status_code == 200
    return False


def learned_weights(scratch: Path) -> Any:
    """Return the hash of the newest weights that a learner has published."""
    folder = DataDirectory(scratch / "data", create=False).stream_folder("iris", 1).snapshots
    seq = list_seqs(folder)[-1]
    return seq, read_fields(folder / str(seq))["weights_sha256"]


def test_workers_serve_what_a_learner_folds(
    iris_models: Path, tmp_path: Path, address: str, postgres_server: PostgresCluster
) -> None:
    """Feedback to one worker is served by both with the weights of the learner, also by requests that wait for it.

    One of the workers ends at once where it would fold. What the database loses in a crash, the learner sends again.
    """
    fail = {"PYTHONPATH": f"{Path(__file__).parents[1] / 'support' / 'no_fold'}:{ROOT}"}
    with (
        replica(iris_models, tmp_path / "l", address, "learner") as learner,
        replica(iris_models, tmp_path / "a", address, "worker", **fail) as a,
        replica(iris_models, tmp_path / "b", address, "worker") as b,
    ):
        for number in range(4):
            (seq,) = teach(a, f"a{number}")
            assert predict(b, min_seq=seq)["seq"] >= seq
            (seq,) = teach(b, f"b{number}", wait=True)
            assert predict(a, min_seq=seq)["seq"] >= seq
        assert teach(b, "a0", "a3") == [1, 7]
        weights = weights_at(a, 8)
        assert weights == weights_at(b, 8)
        assert learned_weights(tmp_path / "l") == (8, weights)
        refused = httpx.get(f"{a.url}/v1/models/iris/weights", params={"seq": 3})
        assert (refused.status_code, refused.json()["code"]) == (421, "not_in_role")

        name = address.rpartition("/")[2]
        postgres_server.execute("TRUNCATE snapshots", database=name)
        count = "SELECT count(*) FROM snapshots WHERE seq = 8"
        wait_until(lambda: "1" in str(postgres_server.execute(count, database=name)), SECONDS)

        assert post(b, "iris:forget", {"ids": ["a1"]}).status_code in {200, 202}
        assert weights_at(a, 9) == weights_at(b, 9) != weights
        for service in (a, b):
            wait_until(lambda service=service: metadata(service, "iris")["erased"], SECONDS)
            assert metadata(service, "iris")["learner"] == {"state": "receiving"}
        assert learned_weights(tmp_path / "l") == (9, weights_at(a, 9))
        for service in (learner, a, b):
            assert samples(service)["softstep_learners", ()] == 1
            restarts = [value for (metric, _), value in samples(service).items() if metric == "softstep_restarts_total"]
            assert sum(restarts) == 0


def test_workers_go_on_without_a_learner(
    iris_models: Path, tmp_path: Path, address: str, postgres_server: PostgresCluster
) -> None:
    """They predict and take feedback. One that starts then is not ready until a learner has folded what it saw."""
    with replica(iris_models, tmp_path / "a", address, "worker") as a:
        with replica(iris_models, tmp_path / "l", address, "learner") as learner:
            teach(a, *range(5))
            weights = weights_at(a, 5)
            for process in (learner.process.pid, *children(learner.process.pid)):
                os.kill(process, signal.SIGKILL)
        teach(a, *range(5, 9))
        assert (predict(a)["seq"], weights_at(a, 5)) == (5, weights)
        # As if it had been killed long ago.
        long_ago = "UPDATE replicas SET seen = seen - interval '1 minute' WHERE reached ->> 'role' = 'learner'"
        postgres_server.execute(long_ago, database=address.rpartition("/")[2])
        with starting(iris_models, tmp_path / "b", address) as b:
            assert weights_at(b, 5) == weights
            wait_until(lambda: metadata(b, "iris")["learner"]["state"] == "held", SECONDS)
            assert "learner" in metadata(b, "iris")["learner"]["reason"]
            assert httpx.get(f"{b.url}/readyz").status_code == 503
            teach(b, 9)
            with replica(iris_models, tmp_path / "m", address, "learner"):
                assert weights_at(b, 10) == weights_at(a, 10)
                wait_until(lambda: httpx.get(f"{b.url}/readyz").status_code == 200, SECONDS)
