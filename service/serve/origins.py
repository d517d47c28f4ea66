"""The origins of web pages that may call the service (CORS), and the headers that tell browsers so.

A browser sends some requests to any site without asking that site first, and the page need not be able to read the
answer. Otherwise any page that is open somewhere could teach a model, or unload it.
"""

from collections.abc import Iterable
from typing import Final

from service.errors import CrossSiteError

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
# Values of Sec-Fetch-Site: a page of the service itself sends the request, or the user does without a page.
SAME_ORIGIN: Final = b"same-origin"
NO_SITE: Final = b"none"
# Browsers leave these ports out of both headers, and proxies may add them to Host.
DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}
CROSS_SITE: Final = "A web page of another site may not send this; SOFTSTEP_CORS_ORIGINS names the origins that may."


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

    def check_site(self, origin: bytes | None, site: bytes | None, host: bytes | None) -> None:
        """Raise CrossSiteError if a page of another site sends a request, and its origin is not allowed.

        Programs send neither `Origin` nor `Sec-Fetch-Site`. Browsers send the first with each POST, and the second over
        HTTPS and to localhost only; without it the host of the origin has to be the service's.

        Args:
            origin: The value of Origin.
            site: The value of Sec-Fetch-Site.
            host: The value of Host.
        """
        if (origin is None and site is None) or site == SAME_ORIGIN or self._any or origin in self._named:
            return
        if site not in {None, NO_SITE} or (origin is not None and not _is_own(origin, host)):
            raise CrossSiteError(CROSS_SITE)

    def headers(self, origin: bytes | None) -> Headers:
        """Return the CORS headers of the answer to a request from an origin, or from no page at all."""
        if not self._on:
            return ()
        if self._any:
            return (VARY, *_allowed(b"*"))
        return (VARY, *_allowed(origin)) if origin in self._named else (VARY,)


def _is_own(origin: bytes, host: bytes | None) -> bool:
    """Whether an origin has the host and the port by which a request names the service."""
    scheme, _, own = origin.lower().partition(b"://")
    return bool(own) and host is not None and host.strip().lower() in {own, own + DEFAULT_PORTS.get(scheme, b"")}


def _allowed(origin: bytes) -> Headers:
    return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)
