"""The bytes that many responses share: status line and headers, joined once a second.

HTTP/1.1 200 OK
date, server                                     of uvicorn, new every second
vary, access-control-…, connection: keep-alive   of the form
content-type, content-length
further headers of the response, x-request-id, connection: close
"""

from collections.abc import Iterable
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.serve.request_id import REQUEST_IDS
from service.serve.responses import JSON, KEEP_ALIVE, Header

# The body of the response to a single row begins with this.
PREDICTIONS: Final = b'{"predictions":'


class ResponseForm:
    """The responses to requests that have the same further headers.

    Args:
        headers: Those headers.

    Attributes:
        last: The form of a response after which the connection is closed.
        numbers: The numbers of requests without an id.
    """

    def __init__(self, headers: tuple[Header, ...]) -> None:
        self.last: ResponseForm = self
        if KEEP_ALIVE in headers:
            self.last = ResponseForm(tuple(header for header in headers if header != KEEP_ALIVE))
        self.numbers: Final = REQUEST_IDS.numbers
        self._headers: Final = headers
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._heads: dict[tuple[int, bytes], bytes] = {}
        self._single_row = b""

    def head(self, status: int, content_type: bytes, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return a response's head up to the value of Content-Length."""
        if default_headers is not self._default_headers:
            self._renew(default_headers)
        head = self._heads.get((status, content_type))
        if head is None:
            fields = join_headers([*default_headers, *self._headers, (b"content-type", content_type)])
            head = STATUS_LINE[status] + fields + b"content-length: "
            self._heads[status, content_type] = head
        return head

    def single_row(self, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return a format for the response to a single row: length, request number, and the body's two parts."""
        if default_headers is not self._default_headers:
            self._renew(default_headers)
        return self._single_row

    def _renew(self, default_headers: list[tuple[bytes, bytes]]) -> None:
        self._default_headers = default_headers
        self._heads.clear()
        head = self.head(200, JSON, default_headers).replace(b"%", b"%%")
        self._single_row = head + b"%d\r\nx-request-id: " + REQUEST_IDS.series + b"-%x\r\n\r\n" + PREDICTIONS + b"%b%b"


def join_headers(headers: Iterable[Header]) -> bytes:
    """Return headers as they are written."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
