"""HTTP/2 on one connection, by libnghttp2: what is read and written, within limits and times, until its end.

    deadline     when a connection without calls is closed
    paused_at    since when the client does not read
    closing_at   since when the connection is closing, as it was seen; what was written before is still sent
    stalled_at   since when the client has given no window to answers that wait

The server looks at all connections ten times a second, as at those of HTTP/1.1 (http/timed_protocol.py).

At the end of the service clients get a first GOAWAY, which asks them to make further calls on another connection. Once
they have answered a PING behind it, a second GOAWAY names the last call, and the connection ends with that call.

Source: RFC 9113, sections 5.1.2, 6.8 and 10.5.
"""

import asyncio
import contextlib
import struct
from typing import Final, cast

from ngh2 import Configuration, Connection, NGH2Error, Role, Setting
from ngh2.events import Event

from service.settings import Settings

NEVER: Final = float("inf")
# Bytes that are taken from libnghttp2 at one time, so that a client with a large window does not get all at once.
WRITE_BYTES: Final = 1 << 18
DRAIN_PING: Final = b"softstep"
# A client that does not answer the PING in this time gets the second GOAWAY all the same.
NOTICE_SECONDS: Final = 0.5
# The rate of cancelled calls in each second is this part of what may come at once.
RESETS_PART: Final = 30
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11
# A GOAWAY for a client whose bytes libnghttp2 refuses to process; after that it writes none itself.
CALM_GOAWAY: Final = struct.pack(">HBBBIII", 0, 8, 7, 0, 0, 0, ENHANCE_YOUR_CALM)


def make_configuration(settings: Settings) -> Configuration:
    """Return the limits of a connection."""
    return Configuration(
        stream_reset_rate_limit=(settings.grpc_resets_max, -(-settings.grpc_resets_max // RESETS_PART)),
        max_inbound_header_list_size=settings.header_bytes_max,
        max_inbound_header_count=settings.header_count_max,
    )


class Http2Session(asyncio.Protocol):
    """One connection; a subclass handles its events.

    Args:
        settings: The limits.
        configuration: Those of libnghttp2.
    """

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self.settings: Final = settings
        self.session: Final = Connection(Role.SERVER, configuration)
        self.loop: Final = asyncio.get_running_loop()
        self.deadline = NEVER
        self.paused_at = NEVER
        self.closing_at = NEVER
        self.stalled_at = NEVER
        self.queued_bytes = 0  # body bytes that were ever given to libnghttp2
        self._sent_seen = 0
        self._resets: list[int] = []  # streams to reset once their responses are written
        self._notice_at = NEVER  # when the first GOAWAY was written
        self._is_leaving = False  # the second GOAWAY was written

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the settings of this side."""
        self.transport = cast("asyncio.Transport", transport)
        settings = self.settings
        self.session.initiate_connection(
            {
                Setting.MAX_CONCURRENT_STREAMS: settings.grpc_streams_max,
                Setting.INITIAL_WINDOW_SIZE: settings.grpc_window_bytes,
                Setting.MAX_HEADER_LIST_SIZE: settings.header_bytes_max,
            }
        )
        self.session.set_local_window_size(settings.grpc_window_bytes)
        self.rest()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Process bytes and write what follows from them."""
        try:
            self.session.receive_data(data)
        except NGH2Error:  # no HTTP/2, or more headers, resets or other frames than the limits allow
            if not self.transport.is_closing():
                self.transport.write(CALM_GOAWAY)
                self.transport.close()
            return
        self.handle_events(self.session.events())
        self.flush()

    def handle_events(self, events: list[Event]) -> None:
        """Handle the events of bytes that the client has sent."""
        raise NotImplementedError

    def is_busy(self) -> bool:
        """Whether a call is in progress."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Give a client that does not read a limited time; read nothing from it meanwhile."""
        self.paused_at = self.loop.time()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        self.paused_at = NEVER
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.flush()

    # Writing

    def flush(self) -> None:
        """Write what libnghttp2 has to send, as long as the client reads."""
        session, transport = self.session, self.transport
        try:
            while self.paused_at == NEVER and not transport.is_closing():
                data = session.data_to_send(WRITE_BYTES)
                if data:
                    transport.write(data)
                if len(data) < WRITE_BYTES:
                    if not self._resets:
                        break
                    self._reset_streams()
            if not session.want_read and not session.want_write:
                transport.close()
        except NGH2Error:
            transport.close()

    def reset_later(self, stream_id: int) -> None:
        """Have the client stop to send a request once its response is written."""
        self._resets.append(stream_id)

    def _reset_streams(self) -> None:
        for stream_id in self._resets:
            with contextlib.suppress(NGH2Error):  # the client has ended it
                self.session.reset_stream(stream_id, NO_ERROR)
        self._resets.clear()

    # Times

    def rest(self) -> None:
        """Set the deadline of a connection without calls."""
        self.deadline = self.loop.time() + self.settings.keep_alive_seconds

    def is_late(self, now: float) -> bool:
        """Whether the client's time is over; called a few times a second."""
        seconds = self.settings.write_seconds
        if self.transport.is_closing():
            self.closing_at = min(self.closing_at, now)
            return self.closing_at + seconds < now
        if self._notice_at + NOTICE_SECONDS < now:
            self._leave()
        self._look_for_stall(now)
        if min(self.paused_at, self.stalled_at) + seconds < now:
            return True
        return self.deadline < now and not self.is_busy()

    def _look_for_stall(self, now: float) -> None:
        """Note since when answers wait for a window, and none of their bytes has been sent."""
        try:
            unsent = self.session.queued_body_size()
        except NGH2Error:
            return
        sent = self.queued_bytes - unsent
        if not unsent or sent != self._sent_seen:
            self.stalled_at = NEVER
        elif self.stalled_at == NEVER:
            self.stalled_at = now
        self._sent_seen = sent

    def expire(self) -> None:
        """Close a connection whose time is over."""
        if self.transport.is_closing() or self.paused_at != NEVER or self.stalled_at != NEVER:
            self.transport.abort()
        else:
            self.close_quiet()

    # The end of the service

    def begin_drain(self) -> None:
        """Ask the client to make further calls on another connection."""
        if self._notice_at != NEVER or self._is_leaving:
            return
        with contextlib.suppress(NGH2Error):
            self.session.send_shutdown_notice()
            self.session.ping(DRAIN_PING)
            self._notice_at = self.loop.time()
        self.flush()

    def end_notice(self, opaque_data: bytes) -> None:
        """Go on after a PING was answered: further calls can no longer be under way if it is that of the drain."""
        if opaque_data == DRAIN_PING and self._notice_at != NEVER:
            self._leave()

    def _leave(self) -> None:
        """Name the last call that is answered."""
        self._notice_at, self._is_leaving = NEVER, True
        with contextlib.suppress(NGH2Error):
            self.session.send_goaway()
        self.flush()

    def is_quiet(self, since: float) -> bool:
        """Whether the connection has waited for a call since a time."""
        if self.transport.is_closing() or self.is_busy():
            return False
        return self.deadline - self.settings.keep_alive_seconds <= since

    def close_quiet(self) -> None:
        """Close a connection that waits for a call."""
        with contextlib.suppress(NGH2Error):
            self.session.terminate_connection()
        self.flush()
        self.transport.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return int(self.transport.get_extra_info("socket").fileno())
