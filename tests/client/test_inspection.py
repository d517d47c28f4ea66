"""Waiting for a service that starts, without a network; and for a real one."""

import json
from typing import Any

import httpx2
import pytest
from softstep_client import APIStatusError, APITimeoutError, inspection
from softstep_client.steps import Attempt, Failure, Outcome, Pause, Reply

from tests.support.client_calls import make_client, new_state, run_flow

REFUSED = Failure(httpx2.ConnectError("refused"), is_timeout=False)
NOT_READY = Reply(503, json.dumps({"error": "Not ready.", "code": "not_ready"}).encode())
READY = Reply(200, b'{"ready": true}')


class Clock:
    """A clock that is ahead by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def wait(*outcomes: Outcome, model: str | None = None, timeout: float = 60.0) -> tuple[list[Any], Any]:
    """Return the steps of `wait_ready`, and its result or error."""
    return run_flow(inspection.wait_ready(new_state(), model, timeout, Clock()), list(outcomes))


def test_it_asks_until_the_service_is_ready() -> None:
    """Without a connection, before models are loaded, and with a proxy that finds no service."""
    steps, result = wait(REFUSED, NOT_READY, Reply(502, b""), READY)
    assert result is None
    assert [step.request.path for step in steps if isinstance(step, Attempt)] == ["/readyz"] * 4
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert pauses == sorted(pauses)
    assert max(pauses) <= inspection.POLL_SECONDS_MAX


def test_a_model_may_not_be_found_yet() -> None:
    """Then it is asked for until it is there."""
    steps, result = wait(Reply(404, b""), Reply(200, b""), model="iris")
    assert result is None
    assert steps[0].request.path == "/v2/models/iris/ready"


def test_it_gives_up_after_the_timeout() -> None:
    """The error names what is not ready, and has the last reason as its cause."""
    steps, error = wait(*[NOT_READY] * 100, model="iris", timeout=9.0)
    assert type(error) is APITimeoutError
    assert str(error) == "The model is not ready after 9 s."
    assert error.__cause__.code == "not_ready"
    assert len(steps) < 20
    assert all(step.timeout <= 9 for step in steps if isinstance(step, Attempt))


@pytest.mark.parametrize("status", [401, 403, 421, 500])
def test_a_refusal_ends_the_wait(status: int) -> None:
    """No time makes a wrong key right."""
    _, error = wait(Reply(status, b""))
    assert type(error) is APIStatusError
    assert error.status == status


def test_a_running_service_is_ready(client: Any, kind: str) -> None:
    """It returns at once; an unknown model is never ready, and no service answers at a closed port."""
    client.wait_ready()
    client.wait_ready("iris")
    with pytest.raises(APITimeoutError, match="model"):
        client.wait_ready("unknown", timeout=0.01)
    other = make_client(kind, "http://127.0.0.1:1")
    with pytest.raises(APITimeoutError, match="service"):
        other.wait_ready(timeout=0.01)
    other.close()
