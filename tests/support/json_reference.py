"""Parts of strict JSON parsers of the standard library, to which the service's parsers are compared."""

from typing import Any

from service.errors import InputError
from tests.support.json_numbers import CANARY


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its pairs; a repeated key raises ValueError."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def reject_constant(_text: str) -> None:
    """Raise ValueError for NaN and Infinity, which are not JSON."""
    raise ValueError


def checked_message(error: InputError) -> str:
    """The message of an error, which must be one short sentence without the input."""
    message = str(error)
    assert len(message) <= 300
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message
    assert CANARY not in message
    return message
