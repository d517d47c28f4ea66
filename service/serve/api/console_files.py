"""The files of the console, as responses: read and compressed once, and identified by their hashes.

The page and its files load from this service alone: the Content-Security-Policy allows no other source, no script and
no style in the page itself, and trusted types forbid markup from text.
"""

import gzip
from hashlib import sha256
from importlib.resources import files
from typing import Final, NamedTuple

from service.serve.responses import Header, HttpResponse

FOLDER: Final = "console"
PAGE_NAME: Final = "index.html"
# The types of the files.
CONTENT_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS: Final[tuple[Header, ...]] = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
    (b"vary", b"Accept, Accept-Encoding"),
)
GZIP: Final = b"gzip"
UNCHANGED: Final = 304


class ConsoleFile(NamedTuple):
    """One file in both encodings; `etag` is that of the plain one."""

    content_type: bytes
    plain: bytes
    compressed: bytes
    etag: bytes

    def respond(self, accept_encoding: bytes, if_none_match: bytes) -> HttpResponse:
        """Return the file, compressed if the client accepts that, or 304 if the client has it already.

        Args:
            accept_encoding: The header Accept-Encoding, or b"".
            if_none_match: The header If-None-Match, or b"".
        """
        zipped = _accepts_gzip(accept_encoding)
        etag = b'"%b%b"' % (self.etag, b"-gzip" if zipped else b"")
        headers = (*HEADERS, (b"etag", etag))
        if etag in if_none_match:
            return HttpResponse(UNCHANGED, b"", self.content_type, headers)
        if zipped:
            return HttpResponse(200, self.compressed, self.content_type, (*headers, (b"content-encoding", GZIP)))
        return HttpResponse(200, self.plain, self.content_type, headers)


def read_console_files() -> dict[str, ConsoleFile]:
    """Return the files of the console by name."""
    found = {}
    for file in files("service.serve").joinpath(FOLDER).iterdir():
        content_type = CONTENT_TYPES.get(file.name[file.name.rfind(".") :])
        if content_type is not None:
            plain = file.read_bytes()
            etag = sha256(plain).hexdigest()[:32].encode()
            found[file.name] = ConsoleFile(content_type, plain, gzip.compress(plain, mtime=0), etag)
    return found


def _accepts_gzip(accept_encoding: bytes) -> bool:
    """Return whether a client accepts gzip; `gzip;q=0` says that it does not."""
    for part in accept_encoding.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == GZIP:
            return weight.replace(b" ", b"").rstrip(b"0") not in {b"q=", b"q=0."}
    return False
