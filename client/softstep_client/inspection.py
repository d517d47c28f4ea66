"""Calls that ask what a service has, as flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softstep_client.answers import ModelState
from softstep_client.client_state import MALFORMED, ClientState, model_path, read_json
from softstep_client.errors import APIConnectionError, APIStatusError, APITimeoutError, SoftstepError
from softstep_client.exchange import exchange, other_service, parse_json
from softstep_client.options import Options
from softstep_client.steps import ApiRequest, Flow, Pause, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

# Pauses between questions whether the service is ready, in seconds: short for a service that starts on this machine.
FIRST_POLL_SECONDS = 0.05
POLL_SECONDS_MAX = 1.0
# A service or model that is not ready yet: not found before it is loaded, and unavailable.
NOT_READY = frozenset((404, 502, 503, 504))


def models(state: ClientState) -> Flow[list[ModelState]]:
    """List the models."""
    reply: Reply = yield from exchange(ApiRequest("GET", "/v1/models"), state.options)
    try:
        entries = parse_json(reply.content)["models"]
        return [ModelState(entry["name"], str(entry["version"]), entry["state"]) for entry in entries]
    except MALFORMED:
        raise other_service(reply) from None


def schema(state: ClientState, model: str, version: int | str | None) -> Flow[dict[str, Any]]:
    """Read the JSON Schema of a row."""
    return (yield from read_json(state, ApiRequest("GET", model_path(model, version, "/schema"))))


def wait_ready(state: ClientState, model: str | None, timeout: float, clock: Callable[[], float]) -> Flow[None]:
    """Ask until the service, or a model, is ready.

    Args:
        state: The state of the client.
        model: The name of a model, or None for the service.
        timeout: The longest time, in seconds.
        clock: Returns a time in seconds.

    Raises:
        APITimeoutError: It is not ready in time; the error before is its cause.
        APIStatusError: The service refuses to say.
    """
    path = "/readyz" if model is None else model_path(model, None, "/ready", protocol="v2")
    until, pause = clock() + timeout, FIRST_POLL_SECONDS
    while True:
        left = max(until - clock(), FIRST_POLL_SECONDS)
        try:
            yield from exchange(ApiRequest("GET", path), Options(min(state.options.timeout, left), 0))
        except (APIConnectionError, APIStatusError) as error:
            if isinstance(error, APIStatusError) and error.status not in NOT_READY:
                raise
            reason: SoftstepError = error
        else:
            return
        if clock() + pause > until:
            what = "The service" if model is None else "The model"
            raise APITimeoutError(f"{what} is not ready after {timeout:g} s.") from reason
        yield Pause(pause)
        pause = min(2 * pause, POLL_SECONDS_MAX)
