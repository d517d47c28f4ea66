"""The options of a client, from arguments and the environment."""

from __future__ import annotations

import math
import os
from typing import NamedTuple
from urllib.parse import urlsplit

from softstep_client.errors import InputError

URL_VARIABLE = "SOFTSTEP_URL"
KEY_VARIABLE = "SOFTSTEP_API_KEY"
# The address of `softstep serve` without options.
DEFAULT_URL = "http://localhost:8000"
# The service answers a row within a millisecond, and large requests within a second.
DEFAULT_TIMEOUT = 10.0
DEFAULT_RETRIES = 2

BAD_URL = (
    "The URL of the service must begin with http:// or https://, name a host, and have no user, password, query or "
    "fragment; give a key as api_key."
)


class Options(NamedTuple):
    """Options of calls, which `with_options` changes.

    Attributes:
        timeout: The longest time without progress of one try, in seconds.
        max_retries: How often a call is tried again.
    """

    timeout: float
    max_retries: int


def make_options(timeout: float, max_retries: int) -> Options:
    """Return checked options.

    Raises:
        InputError: A number is out of range.
    """
    if not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise InputError("timeout must be a number of seconds above 0.")
    if not isinstance(max_retries, int) or max_retries < 0:
        raise InputError("max_retries must be a whole number, 0 or more.")
    return Options(float(timeout), max_retries)


def base_url_of(url: str | None) -> str:
    """Return the URL of the service without a slash at its end: the argument, else SOFTSTEP_URL, else the default.

    Raises:
        InputError: It is no URL of a service.
    """
    text = (url or os.environ.get(URL_VARIABLE, "").strip() or DEFAULT_URL).rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InputError(BAD_URL) from None
    has_more = "@" in parts.netloc or any(sign in text for sign in "?# ") or not text.isprintable() or port == 0
    if parts.scheme not in {"http", "https"} or not parts.hostname or has_more:
        raise InputError(BAD_URL)
    return text


def key_headers(api_key: str | None) -> list[tuple[bytes, bytes]]:
    """Return the header that carries the key: the argument, else SOFTSTEP_API_KEY; or none without a key.

    Raises:
        InputError: The key has other characters than visible ASCII.
    """
    key = api_key or os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return []
    if not all("!" <= letter <= "~" for letter in key):
        raise InputError("The API key must have visible ASCII characters only.")
    return [(b"Authorization", f"Bearer {key}".encode())]
