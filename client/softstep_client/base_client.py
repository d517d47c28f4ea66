"""The part that both clients share: options, what is known about models, and the requests of one service."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from softstep_client.client_state import ClientState
from softstep_client.options import base_url_of, key_headers, make_options
from softstep_client.transport import RequestBuilder

if TYPE_CHECKING:
    import httpx2

C = TypeVar("C", bound="BaseClient")


class BaseClient:
    """Options of a client and its copies.

    Args:
        base_url: The URL of the service, or None.
        api_key: The key, or None.
        timeout: The longest time without progress of one try, in seconds.
        max_retries: How often a call is tried again.
        headers: The headers of the client of httpx2.
        owns_http: Whether that client is closed with this one.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        max_retries: int,
        headers: httpx2.Headers,
        *,
        owns_http: bool,
    ) -> None:
        self._state = ClientState(make_options(timeout, max_retries), {}, set())
        self._requests = RequestBuilder(base_url_of(base_url), key_headers(api_key), headers)
        self._owns_http = owns_http

    def with_options(self: C, *, timeout: float | None = None, max_retries: int | None = None) -> C:
        """Return a client with other options, for one call or several; it shares the connections of this one.

        Args:
            timeout: As for the client; None leaves it as it is.
            max_retries: As for the client; None leaves it as it is.
        """
        old = self._state.options
        options = make_options(
            old.timeout if timeout is None else timeout, old.max_retries if max_retries is None else max_retries
        )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _state=self._state._replace(options=options), _owns_http=False)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._requests.base_url!r})"
