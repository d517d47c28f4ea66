"""The origins of web pages that may call the service (CORS), and the headers that tell browsers so."""

from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[bytes, bytes], ...]

# In the setting: pages of every origin may call.
ANY: Final = "*"
# Headers of answers that a page's script may read, beside those that every page may. The last three tell it where
# binary tensors begin, when to try again, and why a key is refused.
EXPOSED: Final = (
    b"X-Request-Id, X-Softstep-Seq, X-Softstep-Weights-Sha256, Inference-Header-Content-Length, Retry-After, "
    b"WWW-Authenticate"
)
VARY: Final = (b"vary", b"Origin")


class Origins:
    """The origins that are allowed, and the CORS headers of every answer.

    Args:
        allowed: Origins as browsers send them, such as https://a.example, or ANY. Empty: CORS is off.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        origins = frozenset(allowed)
        self._on: Final = bool(origins)
        self._any: Final = ANY in origins
        self._named: Final = frozenset(origin.encode() for origin in origins)

    def allow(self, origin: bytes) -> bool:
        """Return whether pages of an origin may call."""
        return self._any or origin in self._named

    def headers(self, origin: bytes | None) -> Headers:
        """Return the CORS headers of the answer to a request from an origin, or from no page at all."""
        if not self._on:
            return ()
        if self._any:
            return (VARY, *_allowed(b"*"))
        return (VARY, *_allowed(origin)) if origin in self._named else (VARY,)


def _allowed(origin: bytes) -> Headers:
    return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)
