"""One call that has to wait: for the rest of its request, for its answer, or for further messages."""

from typing import TYPE_CHECKING, Final

from service.serve.grpc.call_head import CallHead
from service.serve.grpc.message_framing import FRAME_BYTES, read_frame
from service.serve.responses import V2, HttpResponse, body_too_large, error, refusal

if TYPE_CHECKING:
    import asyncio

COMPRESSED: Final = error(
    "unsupported_encoding", "Compressed messages are not accepted; have the client send them without compression."
)
INVALID_FRAME: Final = error("malformed_body", "The frame of a message is not valid: its first byte must be 0 or 1.")
NO_MESSAGE: Final = error("malformed_body", "The call has no whole message; send one request and then end the stream.")
TWO_MESSAGES: Final = error("malformed_body", "The call has more than one message; its method takes one request.")


class GrpcCall:
    """One call that has to wait.

    Args:
        stream_id: Its stream.
        head: Its head.
        deadline: When its request must be complete, in seconds of the event loop's clock.

    Attributes:
        stream_id: As above.
        head: As above.
        deadline: As above; NEVER once it is complete.
        held: The bytes of its request that are in memory.
        pending: The response that is being made, or None.
        timer: Ends the call at the client's deadline, or None.
        is_streaming: Whether its answers are a stream, whose headers were sent.
        messages: How many messages of a stream of requests were answered.
    """

    __slots__ = ("_parts", "deadline", "head", "held", "is_streaming", "messages", "pending", "stream_id", "timer")

    def __init__(self, stream_id: int, head: CallHead, deadline: float) -> None:
        self.stream_id: Final = stream_id
        self.head: Final = head
        self.deadline = deadline
        self.held = 0
        self.pending: asyncio.Future[HttpResponse] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.is_streaming = False
        self.messages = 0
        self._parts: list[bytes] = []

    def add(self, data: bytes, bytes_max: int) -> HttpResponse | None:
        """Keep a part of the request; return the refusal of a message that is not accepted, or None."""
        self._parts.append(data)
        self.held += len(data)
        if len(self._parts) > 1 and self.held - len(data) < FRAME_BYTES:
            self._parts = [b"".join(self._parts)]
        first = self._parts[0]
        if len(first) < FRAME_BYTES:
            return None
        return check_frame(first, self.held, bytes_max, is_streaming=self.is_streaming)

    def take_request(self) -> bytes:
        """Return the whole framed request."""
        data = b"".join(self._parts)
        self._parts = []
        return data

    def take_messages(self) -> list[bytes]:
        """Return the messages that are complete; keep the rest."""
        data, messages, start = self.take_request(), [], 0
        while len(data) - start >= FRAME_BYTES:
            stop = start + FRAME_BYTES + read_frame(data[start : start + FRAME_BYTES])[1]
            if stop > len(data):
                break
            messages.append(data[start + FRAME_BYTES : stop])
            start = stop
        if start < len(data):
            self._parts = [data[start:]]
        self.held = len(data) - start
        return messages


def check_frame(data: bytes, size: int, bytes_max: int, *, is_streaming: bool = False) -> HttpResponse | None:
    """Return the refusal of a message that is not accepted, or None.

    Args:
        data: The first bytes of its frame, at least FRAME_BYTES.
        size: The bytes of the request that have arrived.
        bytes_max: The most bytes of a message.
        is_streaming: Whether another message may follow.
    """
    flag, length = read_frame(data)
    if flag:
        return COMPRESSED if flag == 1 else INVALID_FRAME
    if length > bytes_max:
        return refusal(body_too_large(bytes_max), V2)
    return TWO_MESSAGES if size > FRAME_BYTES + length and not is_streaming else None


def check_message(data: bytes, bytes_max: int) -> HttpResponse | None:
    """Return the refusal of a request that is not one whole message, or None.

    Args:
        data: The whole request.
        bytes_max: The most bytes of a message.
    """
    if len(data) < FRAME_BYTES:
        return NO_MESSAGE
    refusal = check_frame(data, len(data), bytes_max)
    return NO_MESSAGE if refusal is None and read_frame(data)[1] != len(data) - FRAME_BYTES else refusal
