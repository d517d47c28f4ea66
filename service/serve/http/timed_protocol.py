"""The times of one connection: until when a client must have sent, read, or closed.

    phase       IDLE -> HEAD (first byte) -> BODY (headers complete) -> IDLE (message complete)
    deadline    when the connection is closed if nothing happens: idle, headers and body
    paused_at   since when the client does not read; its deadline waits meanwhile
    closing_at  since when the connection is closing, as it was seen; the rest of a response is still sent

The server looks at all connections ten times a second.
"""

from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.serve.http.shared_state import ConnectionFlow, SharedState

IDLE, HEAD, BODY = range(3)
NEVER: Final = float("inf")


class TimedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with the times of its connection."""

    shared: ClassVar[SharedState]
    flow: ConnectionFlow

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own arguments
        super().__init__(*args, **kwargs)
        self.phase = IDLE
        self.deadline = NEVER
        self.paused_at = NEVER
        self.closing_at = NEVER
        self.leaving = False  # a response announced the end of the connection; what still arrives is discarded

    def pause_writing(self) -> None:
        """Give a client that does not read its response a limited time; read nothing from it meanwhile."""
        self.flow.pause_writing()
        self.paused_at = self.loop.time()

    def resume_writing(self) -> None:
        """Go on with a client that reads again; the pause does not count toward its deadline."""
        self.flow.resume_writing()
        self.deadline += self.loop.time() - self.paused_at

    def is_late(self, now: float) -> bool:
        """Whether the client's time is over; called a few times a second."""
        if self.leaving:
            return self.deadline < now
        if self.transport.is_closing():  # what was written before is still sent
            self.closing_at = min(self.closing_at, now)
            return self.closing_at + self.shared.settings.write_seconds < now
        if self.flow.write_paused:
            return self.paused_at + self.shared.settings.write_seconds < now
        return self.deadline < now

    def is_quiet(self, since: float) -> bool:
        """Whether the connection has waited for a request since a time."""
        if self.leaving or self.transport.is_closing():
            return False
        waits = self.phase == IDLE and (self.cycle is None or self.cycle.response_complete)
        return waits and self.deadline - self.shared.keep_alive_seconds <= since
