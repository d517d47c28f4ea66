"""Attempts as requests of httpx2, and its responses as replies; the same for both clients."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httpx2

from softstep_client.errors import InputError
from softstep_client.options import BAD_URL
from softstep_client.steps import Failure, Reply
from softstep_client.version import __version__

if TYPE_CHECKING:
    from softstep_client.steps import Attempt

# Shorter than the 60 s after which load balancers close an idle connection, and the 75 s of the service.
KEEP_ALIVE_SECONDS = 30.0
# Connections of one client; further calls of its threads or tasks wait for one. httpx2's own default.
CONNECTIONS_MAX = 100
# URLs that are kept in parsed form; one client calls a few models in a few ways.
URLS_MAX = 256


def default_limits() -> httpx2.Limits:
    """Return the limits of a client's connections."""
    return httpx2.Limits(
        max_connections=CONNECTIONS_MAX,
        max_keepalive_connections=CONNECTIONS_MAX,
        keepalive_expiry=KEEP_ALIVE_SECONDS,
    )


class RequestBuilder:
    """Makes requests with the URL and the headers of one client, which are parsed once.

    Args:
        base_url: The URL of the service, without a slash at its end.
        key_headers: The header with the key, or none.
        headers: The headers of the client of httpx2.

    Raises:
        InputError: The URL is not valid.
    """

    def __init__(self, base_url: str, key_headers: list[tuple[bytes, bytes]], headers: httpx2.Headers) -> None:
        try:
            httpx2.URL(base_url)
        except httpx2.InvalidURL:
            raise InputError(BAD_URL) from None
        self.base_url = base_url
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        agent = f"softstep-client/{__version__} python/{python} httpx2/{httpx2.__version__}"
        merged = httpx2.Headers(headers)
        merged.update([(b"Accept", b"application/json"), (b"User-Agent", agent.encode()), *key_headers])
        self._headers = merged.raw
        self._urls: dict[str, httpx2.URL] = {}

    def build(self, attempt: Attempt) -> httpx2.Request:
        """Return the request of an attempt."""
        request, seconds = attempt
        url = self._urls.get(request.path)
        if url is None:
            if len(self._urls) >= URLS_MAX:
                self._urls.clear()
            url = self._urls[request.path] = httpx2.URL(self.base_url + request.path)
        timeout = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}
        headers = [*self._headers, *request.headers]
        return httpx2.Request(
            request.method, url, headers=headers, content=request.content, extensions={"timeout": timeout}
        )


def reply_of(response: httpx2.Response) -> Reply:
    """Return a response that was read as a reply."""
    headers: Any = response.headers
    return Reply(
        response.status_code,
        response.content,
        headers.get("retry-after"),
        headers.get("inference-header-content-length"),
        headers.get("x-request-id"),
    )


def failure_of(error: httpx2.RequestError) -> Failure:
    """Return an error of httpx2 as a failure."""
    return Failure(error, isinstance(error, httpx2.TimeoutException))
