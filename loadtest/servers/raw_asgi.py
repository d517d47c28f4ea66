"""The ceiling of ASGI: an application without a framework that reads the body and answers `{}`."""

from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn_server import run
from weights import arguments

Message = dict[str, Any]
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def app(
    _scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Read the whole body, as every server must, and answer `{}`."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    run(app, arguments().port, lifespan="off")
