"""Liveness and readiness: the same answers by the fast path and by FastAPI, also while the server is busy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.http_requests import instances, request
from tests.support.server_pair import Pair

Paired = Callable[..., Pair]
PATHS = ("/", "/healthz", "/v2/health/live", "/readyz", "/ping", "/health", "/v2/health/ready", "/vertex")
ready = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def routed(models: Path) -> Iterator[Pair]:
    """Run both servers with an additional readiness path."""
    with Pair(models, health_route="/vertex") as pair:
        yield pair


@ready
def test_probes_have_the_answers_of_the_application(routed: Pair, path: str) -> None:
    """Status, headers and body are the same, with or without a query, a body, or the wish to close."""
    requests = [
        request("GET", path),
        request("GET", f"{path}?verbose"),
        request("GET", path, b"body"),
        request("GET", path, b""),
        request("HEAD", path),
        request("HEAD", f"{path}?verbose"),
        request("POST", path, b""),
        request("GET", path, version="1.0"),
        request("GET", path, headers=[("Expect", "100-continue")]),
    ]
    for asked in requests:
        assert routed.ask(asked) == routed.ask(asked, fast=False)
    closing = request("GET", path, headers=[("Connection", "close")])
    assert routed.ask(closing) == routed.ask(closing, fast=False)


@ready
def test_probes_need_no_turn_of_the_application(routed: Pair, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are answered without a task, and while no further request is accepted."""
    monkeypatch.setattr(routed.worker.shared, "busy", None)
    monkeypatch.setattr(type(routed.worker.shared), "is_full", lambda *_: True)
    monkeypatch.setattr("uvicorn.protocols.http.httptools_impl.HttpToolsProtocol._start_asgi_task", None)
    assert routed.ask(request("GET", path))[0].status == 200
    assert routed.ask(request("POST", "/v1/models/iris:predict", instances([[1, 2, 3, 4]])))[0].status == 503


def test_readiness_fails_while_the_service_drains(paired: Paired) -> None:
    """Liveness does not fail. Each answer is the last one on its connection."""
    pair = paired()
    pair.shared_memory.drain_until(1.0)
    answers = [pair.ask(request("GET", path))[0] for path in PATHS[:-1]]
    assert {answer.header("connection") for answer in answers} == {"close"}
    live, ready = answers[:3], answers[3:]
    assert [(answer.status, "ready" in answer.json) for answer in live] == [(200, False)] * 3
    assert [(answer.status, answer.json["ready"]) for answer in ready] == [(503, False)] * 4


def test_readiness_fails_without_a_model(paired: Paired, tmp_path: Path) -> None:
    """A server without a model takes no predictions."""
    (answer,) = paired(tmp_path).ask(request("GET", "/readyz"))
    assert (answer.status, answer.json["code"]) == (503, "not_ready")
