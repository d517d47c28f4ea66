"""Both clients behind one interface, so that one suite tests them; and the steps of a flow without a network."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from softstep_client import AsyncSoftstep, Softstep
from softstep_client.client_state import ClientState
from softstep_client.options import Options
from softstep_client.steps import Flow, Outcome, Step

KINDS = ("sync", "async")


class BlockingClient:
    """An AsyncSoftstep whose calls block: each runs on an event loop of this client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.loop, self.owns_loop = asyncio.new_event_loop(), True
        self.client = AsyncSoftstep(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.client, name)
        if not asyncio.iscoroutinefunction(call):
            return call  # type: ignore[no-any-return]
        return lambda *arguments, **options: self.loop.run_until_complete(call(*arguments, **options))

    def with_options(self, **options: Any) -> "BlockingClient":
        """Return a client with other options on the same loop."""
        other = object.__new__(BlockingClient)
        other.loop, other.owns_loop, other.client = self.loop, False, self.client.with_options(**options)
        return other

    def __repr__(self) -> str:
        return repr(self.client)

    def close(self) -> None:
        """Close the client, and its loop if it is no copy."""
        self.loop.run_until_complete(self.client.close())
        if self.owns_loop:
            self.loop.close()


def make_client(kind: str, url: str, **options: Any) -> Any:
    """Return a client of a kind."""
    return Softstep(url, **options) if kind == "sync" else BlockingClient(url, **options)


def new_state(timeout: float = 10.0, max_retries: int = 2) -> ClientState:
    """Return the state of a new client."""
    return ClientState(Options(timeout, max_retries), {}, set())


def run_flow(flow: Flow[Any], outcomes: list[Outcome]) -> tuple[list[Step], Any]:
    """Carry out a flow with given outcomes; return its steps, and its result or the error that it raises."""
    left: Iterator[Outcome] = iter(outcomes)
    steps: list[Step] = []
    outcome: Outcome = None
    try:
        while True:
            steps.append(flow.send(outcome))
            outcome = next(left, None) if hasattr(steps[-1], "request") else None
    except StopIteration as end:
        return steps, end.value
    except Exception as error:  # noqa: BLE001 - the result of the flow
        return steps, error
