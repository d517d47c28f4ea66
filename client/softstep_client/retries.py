"""Which failures are retried, and after which time.

A lost connection, a timeout, 408, 429, 502, 503 and 504 are retried, and so is 409 with the code `not_reached_yet`. All
other answers are final. Each call can be sent again: reading changes nothing, and a call that writes has an id, with
which it counts once.
"""

from __future__ import annotations

import email.utils
from typing import Final

RETRIED_STATUSES: Final = frozenset((408, 429, 502, 503, 504))
NOT_REACHED_YET: Final = "not_reached_yet"
# 503 from a service that never learns.
FINAL_CODES: Final = frozenset(("learning_off",))

# The delay before the first retry, in seconds; it doubles with each further one.
FIRST_DELAY_SECONDS: Final = 0.5
# As long as a restart of the service takes, about.
DELAY_SECONDS_MAX: Final = 8.0
# The least part of a delay that chance may leave, so that clients that failed together do not return together.
DELAY_PART_MIN: Final = 0.5
# By so much of itself a `Retry-After` may be exceeded, for the same reason.
RETRY_AFTER_EXCESS: Final = 0.25
# A call fails at once if the service asks it to wait longer, in seconds.
RETRY_AFTER_SECONDS_MAX: Final = 60.0


def is_retried(status: int, code: str | None) -> bool:
    """Return whether the same request may succeed later.

    Args:
        status: The HTTP status of the answer.
        code: The code of the error; of `some_refused` the code in `reason`.
    """
    return (status in RETRIED_STATUSES and code not in FINAL_CODES) or code == NOT_REACHED_YET


def retry_delay(retry: int, retry_after: float | None, chance: float) -> float | None:
    """Return the seconds until a retry, or None if the service asks for more than RETRY_AFTER_SECONDS_MAX.

    Args:
        retry: The number of the retry, from 0.
        retry_after: The seconds of `Retry-After`, or None.
        chance: A random number from 0 to 1.
    """
    if retry_after is None:
        # A power beyond the largest delay would be a number without end.
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(retry, 16), DELAY_SECONDS_MAX)
        return delay * (DELAY_PART_MIN + (1 - DELAY_PART_MIN) * chance)
    if retry_after > RETRY_AFTER_SECONDS_MAX:
        return None
    return retry_after * (1 + RETRY_AFTER_EXCESS * chance)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, section 10.2.3), or None without a valid one.

    Args:
        value: The value of the header: seconds, or a date.
        now: Seconds since 1970.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # A number of many digits is as good as the first one beyond the limit.
        return float(text[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
