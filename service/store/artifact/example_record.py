"""The examples in a manifest: rows with the probabilities that their maker expects."""

import json
from typing import Annotated, Final

from pydantic import AfterValidator, Field, JsonValue, Tag

from service.fields.field_types import BY_JSON_TYPE
from service.record import Probabilities, Record

# Enough to show each kind of field; every load computes them again.
EXAMPLES_MAX: Final = 16

Row = dict[str, JsonValue] | tuple[JsonValue, ...]


def _finite(row: Row) -> Row:
    """Return a row that can be written as JSON again: a number such as 1e999 cannot."""
    try:
        json.dumps(row, allow_nan=False)
    except ValueError:
        raise ValueError("a number of the row is too large") from None
    return row


class ExampleRecord(Record):
    """A row, and the probabilities that its maker expects.

    Attributes:
        row: The row: an object of names and values, or a list of values in the order of the fields.
        probabilities: The probability of each class.
    """

    row: Annotated[
        Annotated[dict[str, JsonValue], Tag("object")] | Annotated[tuple[JsonValue, ...], Tag("list")],
        BY_JSON_TYPE,
        AfterValidator(_finite),
    ]
    probabilities: Probabilities


Examples = Annotated[tuple[ExampleRecord, ...], Field(min_length=1, max_length=EXAMPLES_MAX, fail_fast=True)]
