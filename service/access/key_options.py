"""The properties of a key as the command line writes them.

    scopes      predict,feedback
    models      fraud-*,iris       names of models, with * for any characters and ? for one
    an expiry   90d                a period from now: a number, and s, m, h, d or w
                2027-01-01         a date, from whose first moment in UTC on the key is refused; ISO 8601 with a time
                never              no end

Each function raises ApiKeysError, with a message that does not repeat the text.
"""

import re
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final, NamedTuple

from service.access.scopes import Scope
from service.errors import ApiKeysError

NAME_SIZE_MAX: Final = 200
PATTERN: Final = re.compile(r"[a-z0-9*?][a-z0-9._*?-]{0,63}", re.ASCII)
NEVER: Final = "never"
PERIOD: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# A longer period is a mistake; "never" says that a key has no end.
PERIOD_MAX: Final = timedelta(days=36525)


class Expiry(NamedTuple):
    """The end of a key, or None for never."""

    end: datetime | None


def parse_name(text: str) -> str:
    """Return the name of a key, which lists show on one line."""
    if not 0 < len(text) <= NAME_SIZE_MAX or not text.isprintable():
        raise ApiKeysError(f"a name has 1 to {NAME_SIZE_MAX} printable characters")
    return text


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Return scopes in their usual order, each once."""
    names = {one.strip() for one in text.split(",")}
    if not names <= {*Scope}:
        raise ApiKeysError(f"scopes are {', '.join(Scope)}; separate several by commas")
    return tuple(scope for scope in Scope if scope in names)


def parse_models(text: str) -> tuple[str, ...]:
    """Return patterns of the names of models."""
    patterns = tuple(dict.fromkeys(one.strip() for one in text.split(",")))
    if not all(map(PATTERN.fullmatch, patterns)):
        raise ApiKeysError(
            "a pattern is a model's name (a-z, 0-9, dot, _ and -) with * for any characters; separate several by commas"
        )
    return patterns


def parse_amount(text: str) -> float:
    """Return a limit of a rate."""
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < inf:
        raise ApiKeysError("a limit is a number above 0")
    return amount


def parse_count(text: str) -> int:
    """Return a limit of a number."""
    if re.fullmatch("[1-9][0-9]{0,8}", text, re.ASCII) is None:
        raise ApiKeysError("this limit is a whole number from 1 to 999999999")
    return int(text)


def parse_period(text: str) -> timedelta:
    """Return a period."""
    match = PERIOD.fullmatch(text)
    if match is None:
        raise ApiKeysError("a period is a number and one of s, m, h, d and w, such as 24h")
    seconds = int(match[1]) * UNIT_SECONDS[match[2]]
    if seconds > PERIOD_MAX.total_seconds():
        raise ApiKeysError("a period has at most 100 years")
    return timedelta(seconds=seconds)


def parse_expiry(text: str) -> Expiry:
    """Return the end of a key that is made now."""
    now = datetime.now(UTC)
    if text == NEVER:
        return Expiry(None)
    end = now + parse_period(text) if PERIOD.fullmatch(text) else _parse_moment(text)
    if end <= now:
        raise ApiKeysError("a key must end later than now")
    return Expiry(end.replace(microsecond=0))


def _parse_moment(text: str) -> datetime:
    """Return a date, or a date with a time; without a time zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ApiKeysError("a key ends after a period such as 90d, at a date such as 2027-01-01, or never") from None
