"""The command line's words for the properties of a key are read strictly, and never repeated in errors."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access import key_options
from service.access.scopes import Scope
from service.errors import ApiKeysError

PARSERS: list[Callable[[str], Any]] = [
    key_options.parse_name,
    key_options.parse_scopes,
    key_options.parse_models,
    key_options.parse_amount,
    key_options.parse_count,
    key_options.parse_period,
    key_options.parse_expiry,
]


@given(st.sampled_from(PARSERS), st.text() | st.text("0123456789smhdw.-+:TZ*,", max_size=30))
def test_any_text_is_read_or_refused(parse: Callable[[str], Any], text: str) -> None:
    """A text has a value, or is refused without being repeated."""
    message = ""
    try:
        parse(text)
    except ApiKeysError as error:
        message = str(error)
    assert len(text) < 10 or text not in message


def test_names_fit_on_a_line() -> None:
    """A name has printable characters only, in any language."""
    assert key_options.parse_name("Équipe fraude 7") == "Équipe fraude 7"
    for text in ("", "a\nb", "\x1b[31m", "x" * 201):
        with pytest.raises(ApiKeysError):
            key_options.parse_name(text)


def test_scopes_have_one_order() -> None:
    """Scopes may stand in any order, with spaces and twice."""
    assert key_options.parse_scopes("predict") == (Scope.PREDICT,)
    assert key_options.parse_scopes(" admin,predict, admin") == (Scope.PREDICT, Scope.ADMIN)
    for text in ("", "predict,", "Predict", "predict feedback", "*"):
        with pytest.raises(ApiKeysError):
            key_options.parse_scopes(text)


def test_patterns_can_match_a_name() -> None:
    """A pattern has the characters of names, `*` and `?`; one that could match no name is refused."""
    assert key_options.parse_models("iris, fraud-*,iris") == ("iris", "fraud-*")
    assert key_options.parse_models("*") == ("*",)
    for text in ("", "iris,", "Iris", "fraud/1", "-iris", "'iris'", "[a-z]", "iris\nx"):
        with pytest.raises(ApiKeysError):
            key_options.parse_models(text)


def test_limits_are_above_zero() -> None:
    """A limit is a finite number above 0; the number of requests in flight is whole."""
    assert [key_options.parse_amount(text) for text in ("0.5", "1e3")] == [0.5, 1000]
    assert key_options.parse_count("16") == 16
    for text in ("0", "-1", "nan", "inf", "1e999", "ten", ""):
        with pytest.raises(ApiKeysError):
            key_options.parse_amount(text)
        with pytest.raises(ApiKeysError):
            key_options.parse_count(text)
    with pytest.raises(ApiKeysError):
        key_options.parse_count("1.5")


def test_periods_have_units() -> None:
    """A period is a whole number of seconds, minutes, hours, days or weeks, up to 100 years."""
    periods = [key_options.parse_period(text).total_seconds() for text in ("0s", "90s", "5m", "24h", "90d", "2w")]
    assert periods == [0, 90, 300, 86_400, 7_776_000, 1_209_600]
    for text in ("", "24", "h", "1.5h", "-1h", "1 h", "1H", "36526d", "999999999w", "٣d"):
        with pytest.raises(ApiKeysError):
            key_options.parse_period(text)


def test_ends_lie_in_the_future() -> None:
    """An end is a period from now, a date in UTC, a time with a zone, or never."""
    now = datetime.now(UTC)
    day = key_options.parse_expiry("1d").end
    assert day is not None
    assert timedelta(hours=23) < day - now < timedelta(hours=25)
    assert key_options.parse_expiry("never").end is None
    assert key_options.parse_expiry("9000-01-01").end == datetime(9000, 1, 1, tzinfo=UTC)
    assert key_options.parse_expiry("9000-01-01T12:00+02:00").end == datetime(9000, 1, 1, 10, tzinfo=UTC)
    for text in ("", "2020-01-01", "0s", "tomorrow", "9000-13-01", "9999-12-31T23:59-23:59", "Never"):
        with pytest.raises(ApiKeysError):
            key_options.parse_expiry(text)
