"""The ASGI ceiling: an application without a framework that reads the body and answers `{}`."""

from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from weights import arguments

Message = dict[str, Any]
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def app(
    _scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Read the whole body, as every server has to, and answer `{}`."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    uvicorn.run(
        app, port=arguments().port, loop="uvloop", http="httptools", log_level="error", access_log=False, lifespan="off"
    )
