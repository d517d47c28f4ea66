"""Uvicorn's httptools protocol with limits, deadlines and a fast path.

Requests to models and probes are answered by fast_path.py. All others, and unusual ones (a request after an unfinished
response, `Expect`, unknown paths), go on to FastAPI, which answers by the same handlers. connection.py has the state of
a connection, and how it is written to and ended.
"""

from typing import Any, Final, cast

import httptools

from service.log_events import logger
from service.serve.asgi import CERTIFICATE, IS_PUBLIC, KEEP_ALIVE_ASKED
from service.serve.host_header import is_host, is_loopback_host
from service.serve.http.fast_path import FastPath
from service.serve.http.shared_state import SharedState
from service.serve.http.timed_protocol import BODY, HEAD, IDLE, NEVER
from service.serve.responses import BROKEN, OVERLOADED, HttpResponse, error

# Answered also by a busy server, like its probes.
METRICS: Final = b"/metrics"

MALFORMED: Final = error(
    "malformed_http", "The request is not valid HTTP/1.1; check the request line, headers and chunk sizes."
)
WRONG_VERSION: Final = error("malformed_http", "The request must be HTTP/1.1 or HTTP/1.0; send it as one of them.")
WRONG_HOST: Final = error("malformed_http", "The request must have one valid Host header; send the host and the port.")
TWO_KEYS: Final = error(
    "malformed_http", "The request may have one Authorization and one X-API-Key header; send each of them once."
)
NOT_LOCAL: Final = error(
    "host_not_permitted",
    "Without keys this service answers requests for localhost only; use that name, or have its operator create a key.",
)
INVALID_TARGET: Final = error("invalid_target", "The request's target must be a path of ASCII characters.")
HEAD_TOO_LARGE: Final = error(
    "head_too_large", "The request line and headers are too large or too many; send fewer or shorter headers."
)
NOT_A_PROXY: Final = error(
    "method_not_allowed",
    "This server is not a proxy; send requests for its own paths.",
    ((b"allow", b"GET, HEAD, POST"),),
)

VERSIONS: Final = ("1.1", "1.0")
# Headers with which a proxy could check one key, and the service use another one.
KEY_FIELDS: Final = (b"authorization", b"x-api-key")


class SoftstepProtocol(FastPath):
    """Parse the bytes of one connection; choose between the fast path and FastAPI.

    `bound` makes the class for uvicorn.
    """

    @classmethod
    def bound(cls, shared: SharedState) -> type["SoftstepProtocol"]:
        """Return a class whose connections have this shared state."""
        return type("SoftstepProtocol", (cls,), {"shared": shared})

    def data_received(self, data: bytes) -> None:
        """Answer a request whose head is remembered; parse anything else."""
        if self.leaving:
            return
        self.chunk = None
        if self.phase == IDLE and (self.cycle is None or self.cycle.response_complete):
            cached = self.cached
            shared = self.shared
            if cached is None or not cached.table.is_current or not data.startswith(cached.head):
                end = data.find(b"\r\n\r\n") + 4  # 3 if the end is missing, and no head is that short
                self.cached = cached = self.kind.table.get(data[:end])
            if cached is not None and len(data) == cached.size:
                in_flight = shared.in_flight + len(self.tasks)
                if in_flight < shared.in_flight_max:
                    self._repeat(cached, data)
                    return
                if in_flight < shared.settings.requests_in_flight_max:
                    self._repeat_or_shed(cached, data)
                    return
            self.chunk = data
        self.message_ended = False
        rest = data
        while rest:
            rest = self._parse(rest)
        if self.phase == HEAD and not self.leaving:
            # The parser reports a header when it is complete, so the bytes of one that never ends are counted here.
            self.head_bytes += 0 if self.message_ended else len(data)
            if self.head_bytes > self.shared.settings.header_bytes_max:
                self._leave(HEAD_TOO_LARGE)

    def _parse(self, data: bytes) -> bytes:
        """Parse bytes; return what is to be parsed next, which is nothing unless a head asked for an upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            logger.exception("connection_failed")
            self._leave(BROKEN)
        except httptools.HttpParserError:
            self._leave(MALFORMED)
        return b""

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Read a request as if it had not asked for another protocol, which HTTP lets a server do.

        The parser stops after the headers of such a request, so it starts again without the one that asked.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._leave(NOT_A_PROXY)
        if self.leaving:
            return b""
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.phase = IDLE
        return head + b"".join(lines) + b"\r\n" + rest

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a request; what uvicorn builds for the application is built only if the request goes there."""
        self.phase = HEAD
        self.deadline = self.loop.time() + self.shared.settings.header_seconds
        self.head_bytes = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; after the body come trailers, which are ignored."""
        if self.phase == HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose between the fast path and FastAPI."""
        if self.leaving or self.transport.is_closing():  # a request behind one whose response closes the connection
            return
        self.fields = dict(self.headers)
        self.expect_100_continue = self.fields.get(b"expect", b"").lower() == b"100-continue"
        refusal = self._check_head()
        if refusal is not None:
            self._leave(refusal)
        elif self.parser.should_upgrade():
            return  # the parser calls the message complete and stops, and `_decline_upgrade` goes on
        else:
            self.deadline = self.loop.time() + self.shared.settings.body_seconds
            if not self._begin_fast() and not self._begin_read() and not self._begin_probe():
                self._begin_application()

    def _check_head(self) -> HttpResponse | None:
        """Return the refusal of a head that is too large, no HTTP/1 or for another host, or None."""
        settings, headers = self.shared.settings, self.headers
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in headers])
        if size > settings.header_bytes_max or len(headers) > settings.header_count_max:
            return HEAD_TOO_LARGE
        self.http_version = self.parser.get_http_version()
        if self.http_version not in VERSIONS:
            return WRONG_VERSION
        if len(self.fields) != len(headers):
            names = [name for name, _ in headers]
            if max(map(names.count, KEY_FIELDS)) > 1:
                return TWO_KEYS
            if names.count(b"host") > 1:
                return WRONG_HOST
        return self._check_fields()

    def _check_fields(self) -> HttpResponse | None:
        """Return the refusal of a framing or Host that HTTP/1 does not allow (RFC 9112, sections 3.2 and 6.1)."""
        if self.http_version == "1.0" and b"transfer-encoding" in self.fields:
            return MALFORMED  # its proxy may have taken the chunks for a body of another length
        host = self.fields.get(b"host")
        if host is None:
            return None if self.http_version == "1.0" else WRONG_HOST
        host = host.rstrip()
        if not is_host(host):
            return WRONG_HOST
        return NOT_LOCAL if self.shared.is_local and not is_loopback_host(host) else None

    def _begin_application(self) -> None:
        """Give a request to the application, by way of uvicorn."""
        if not _is_path(self.url):
            self._leave(INVALID_TARGET)
            return
        self.phase = BODY
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expects
        shared = self.shared
        declared = int(self.fields.get(b"content-length", 0))
        full = shared.is_full(declared, len(self.tasks))
        if declared <= shared.settings.body_bytes_max and full and url != METRICS and url not in shared.probes:
            self.app = cast("Any", shared.busy)
        else:
            self.app = cast("Any", self.config.loaded_app)
        super().on_headers_complete()
        keep_alive = self._keeps_alive()
        kind = self.kind
        if kind is not shared.usual_kind:
            cast("Any", self.cycle.scope)[CERTIFICATE] = kind.certificate
            cast("Any", self.cycle.scope)[IS_PUBLIC] = kind.is_public
        if keep_alive and not self.cycle.keep_alive:
            cast("Any", self.cycle.scope)[KEEP_ALIVE_ASKED] = self.cycle
        self.cycle.keep_alive = keep_alive

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body, as long as the limits allow."""
        if self.leaving or self.cycle.response_complete or (self.endpoint is None and self.app is self.shared.busy):
            return
        self.held += len(body)
        self.deadline += len(body) / self.shared.settings.body_rate_min
        self.shared.body_bytes += len(body)
        if self.endpoint is not None:
            self._keep_part(body)
            return
        super().on_body(body)
        if self.shared.body_bytes > self.shared.settings.body_bytes_in_flight_max:
            self._leave(OVERLOADED)

    def on_message_complete(self) -> None:
        """Answer a request to a model; report the end of any other to the application."""
        if self.leaving or self.phase == HEAD:
            return
        self.phase = IDLE
        self.message_ended = True
        self.deadline = NEVER
        if self.endpoint is not None:
            self._finish_fast(self.endpoint)
        elif self.cycle.response_complete:
            self._release()
            self._rest()
        else:
            super().on_message_complete()


def _is_path(url: bytes) -> bool:
    """Whether a request's target is one that the application can be given."""
    if not url.isascii():
        return False
    try:
        return httptools.parse_url(url).path is not None
    except httptools.HttpParserInvalidURLError:
        return False
