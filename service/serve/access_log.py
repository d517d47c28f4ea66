"""The access log: an entry is filled while a request is answered, and written as a line with the response.

`http/logged_protocol.py` has the entries of the fast path, and `LoggedApplication` those of FastAPI.
"""

import time
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import AccessLog
from service.serve.client_address import Proxies

# In the scope of a request of FastAPI, if there is an access log: the entry.
ACCESS_ENTRY: Final = "softstep.access_entry"


# In the scope of a request that the protocol has answered while its body came.
ANSWERED_EARLY: Final = "softstep.answered_early"


class AnsweringState(Protocol):
    """The state of a model that answers a request."""

    @property
    def key(self) -> tuple[str, int]:
        """The model's name and the number of its version."""

    @property
    def seq(self) -> int:
        """The last event that the state holds."""


class AccessEntry:
    """The entry of one request.

    Attributes:
        method: The request's method, or "" until it is known.
        route: The template of its path, or None if the service has no such path.
        served: The state of the model that answers it, or None.
        bytes_in: The bytes of its body that were read so far.
        client: The address of the client, or None if it is not known.
    """

    __slots__ = ("_began", "bytes_in", "client", "method", "route", "served")

    def __init__(self, method: str = "", route: str | None = None, served: AnsweringState | None = None) -> None:
        self._began = time.perf_counter_ns()
        self.method = method
        self.route = route
        self.served = served
        self.bytes_in = 0
        self.client: str | None = None

    def write(self, log: AccessLog, request_id: bytes, status: int, bytes_out: int) -> None:
        """Write the line of the response."""
        served = self.served
        name, version = (None, None) if served is None else served.key
        log.write(
            {
                "request_id": request_id.decode(),
                "client": self.client,
                "method": self.method,
                "route": self.route,
                "status": status,
                "model": name,
                "version": version,
                "seq": None if served is None else served.seq,
                "duration_ms": (time.perf_counter_ns() - self._began) // 1000 / 1000,
                "bytes_in": self.bytes_in,
                "bytes_out": bytes_out,
            }
        )


class LoggedApplication:
    """Write a line for each response of an application.

    Args:
        app: The application, whose responses have an X-Request-Id.
        log: The access log.
        proxies: The proxies whose headers are trusted.
    """

    def __init__(self, app: ASGIApp, log: AccessLog, proxies: Proxies) -> None:
        self._app = app
        self._log = log
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count the bytes of both bodies."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = scope[ACCESS_ENTRY] = AccessEntry(scope["method"])
        if scope["client"] is not None:
            entry.client = self._proxies.client_of(scope["client"][0], scope["headers"])
        status, identity, bytes_out = 0, b"", 0

        async def receive_counted() -> Message:
            message = await receive()
            entry.bytes_in += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, identity, bytes_out
            await send(message)
            if message["type"] == "http.response.start":
                status, identity = message["status"], dict(message["headers"])[b"x-request-id"]
                return
            bytes_out += len(message.get("body", b""))
            if not message.get("more_body") and ANSWERED_EARLY not in scope:
                entry.write(self._log, identity, status, bytes_out)

        await self._app(scope, receive_counted, send_counted)
