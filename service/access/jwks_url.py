"""Read the key set of an issuer from its URL, within a time and a size."""

import socket
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Event, Timer
from typing import Final
from urllib.parse import urlsplit

from service.access.signing_keys import JWKS_BYTES_MAX
from service.errors import SigningKeysError

# Issuers answer within a second. Requests that need the keys are refused meanwhile.
FETCH_SECONDS: Final = 5.0
OK: Final = 200
HEADERS: Final = {"Accept": "application/json", "User-Agent": "softstep", "Connection": "close"}


def fetch_jwks(url: str) -> bytes:
    """Return the bytes of a key set; follow no redirect, and use no proxy.

    Raises:
        SigningKeysError: The server does not answer with 200 in time, or with too many bytes.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    began = time.monotonic()
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=FETCH_SECONDS)) as connection:
            return _ask(connection, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() - began >= FETCH_SECONDS:
            raise SigningKeysError(f"the server did not answer within {FETCH_SECONDS:.0f} s") from None
        reason = error.strerror if isinstance(error, OSError) else None
        raise SigningKeysError(f"the server cannot be asked: {reason or type(error).__name__}") from None


def _ask(connection: HTTPConnection, target: str) -> bytes:
    """Return the body of the answer to GET; shut the connection down when the time is over."""
    connection.connect()
    expired = Event()
    # The timeout of the socket is that of one read, and a server may send one byte after another.
    timer = Timer(FETCH_SECONDS, _shut_down, [connection.sock, expired])
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", target, headers=HEADERS)
        response = connection.getresponse()
        body = response.read(JWKS_BYTES_MAX + 1)
    finally:
        timer.cancel()
        timer.join()
    if expired.is_set():
        raise TimeoutError
    if response.status != OK:
        raise SigningKeysError(f"the server answers {response.status}; only 200 is accepted, and no redirect")
    return body


def _shut_down(sock: socket.socket, expired: Event) -> None:
    """End a connection while another thread reads from it."""
    expired.set()
    with suppress(OSError):  # the other end may have closed it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # an SSLSocket's own would also drop its TLS state
