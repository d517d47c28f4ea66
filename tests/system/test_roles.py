"""Real services with roles, which share a log in PostgreSQL: learners fold, and workers answer."""

import contextlib
import socket
from pathlib import Path

import grpc
import httpx
import pytest

from service import command_line as command
from service.serve.grpc.grpc_messages import message_class
from tests.support.grpc_service import grpc_calls, serving_grpc
from tests.support.http_requests import instances, request
from tests.support.learning_client import IRIS
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS

PROBE_PATHS = ("/", "/healthz", "/readyz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/metrics")


def replica(
    models: Path, scratch: Path, address: str, role: str, **more: object
) -> contextlib.AbstractContextManager[Service]:
    """Run a service of a role."""
    scratch.mkdir(exist_ok=True)
    shared = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1, "SOFTSTEP_ROLE": role}
    return serving(models, scratch, **shared, **more)


@pytest.mark.parametrize("role", ["learner"])
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
