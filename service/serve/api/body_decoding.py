"""Middleware that decodes bodies with a Content-Encoding, so that all calls read them like any other body."""

import asyncio
from concurrent.futures import Executor
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import EncodingError
from service.serve.responses import body_too_large, overloaded
from service.serve.wire.content_decoder import UNSUPPORTED, ContentDecoder
from service.settings import Settings

# Decoded at a time: some milliseconds of a thread's work, after which the limits are checked.
SLICE_BYTES: Final = 1 << 18
IDENTITY: Final = "identity"


class HeldBodies(Protocol):
    """Counts the bytes of bodies that a worker holds.

    Attributes:
        body_bytes: Those bytes.
    """

    body_bytes: int


class BodyDecoding:
    """Decodes the body of a request as far as the application reads it.

    Args:
        app: The application.
        executor: Its thread decodes one slice after another, of all requests in turn.
        held: Where the decoded bytes are counted until the response is complete.
        settings: The limits.
    """

    def __init__(self, app: ASGIApp, executor: Executor, held: HeldBodies, settings: Settings) -> None:
        self._app = app
        self._executor = executor
        self._held = held
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a decoded body if it has an encoded one."""
        codings = _codings(scope) if scope["type"] == "http" else []
        if not codings or codings == [IDENTITY]:
            await self._app(scope, receive, send)
            return
        body = EncodedBody(receive, codings, self._executor, self._held, self._settings)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.release()


class EncodedBody:
    """The body of one request: `receive` gives it to an application in decoded slices.

    Args:
        receive: Gives the encoded body.
        codings: The codings that the request names.
        executor: Decodes.
        held: Counts decoded bytes.
        settings: The limits.
    """

    def __init__(
        self, receive: Receive, codings: list[str], executor: Executor, held: HeldBodies, settings: Settings
    ) -> None:
        self._receive = receive
        self._codings = codings
        self._executor = executor
        self._held = held
        self._settings = settings
        self._decoder: ContentDecoder | None = None
        self._encoded_bytes = self._decoded_bytes = 0
        self._has_input = self._ended = False
        self._more_input = True

    def release(self) -> None:
        """Count the decoded bytes no longer."""
        self._held.body_bytes -= self._decoded_bytes
        self._decoded_bytes = 0

    async def receive(self) -> Message:
        """Return the next slice.

        Raises:
            EncodingError: The request names several codings, or one that is not supported.
            DecodingError: The body is not of the coding that the request names.
            BodyTooLargeError: The encoded body is larger than the limit of decoded ones.
            OverloadedError: The worker would hold too many bytes.
        """
        if self._decoder is None:
            if len(self._codings) > 1:
                raise EncodingError(UNSUPPORTED)
            self._decoder = ContentDecoder(self._codings[0])
        while not self._ended:
            if not self._has_input:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._feed(self._decoder, message)
            loop = asyncio.get_running_loop()
            decoded = await loop.run_in_executor(self._executor, self._decoder.read, SLICE_BYTES)
            if decoded:
                self._hold(len(decoded))
                return {"type": "http.request", "body": decoded, "more_body": True}
            self._has_input = False
            if not self._more_input:
                self._decoder.check_end()
                self._ended = True
                return {"type": "http.request", "body": b"", "more_body": False}
        return await self._receive()

    def _feed(self, decoder: ContentDecoder, message: Message) -> None:
        """Give a part of the encoded body to the decoder."""
        data = message.get("body", b"")
        self._encoded_bytes += len(data)
        if self._encoded_bytes > self._settings.body_bytes_max:
            raise body_too_large(self._settings.body_bytes_max)
        decoder.feed(data)
        self._has_input, self._more_input = True, message.get("more_body", False)

    def _hold(self, count: int) -> None:
        """Count decoded bytes, as the protocol counts the bytes that arrive."""
        self._decoded_bytes += count
        self._held.body_bytes += count
        if self._held.body_bytes > self._settings.body_bytes_in_flight_max:
            raise overloaded()


def _codings(scope: Scope) -> list[str]:
    """Return the codings that a request names, in lower case."""
    fields = [value for name, value in scope["headers"] if name == b"content-encoding"]
    names = b",".join(fields).decode("latin-1").lower().split(",") if fields else []
    return [name for name in map(str.strip, names) if name]
