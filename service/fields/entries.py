"""The entries of rows in the columns of one field, and the part that all encoders of fields share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.field_errors import MissingValueError, TooManyEntriesError
from service.fields.column_blocks import FieldLimits
from service.fields.refusals import join_kinds, quote, refuse_value
from service.softmax.arrays import Doubles, Integers

# Entries of one call, for all rows of a field: 256 MiB. A request that needs more is split by its sender.
ENTRIES_OF_A_CALL_MAX: Final = 1 << 24

Values = Sequence[object] | NDArray[Any]
"""B values of one field; an array if they are numbers or booleans of a tensor."""
Booleans = NDArray[np.bool_]


class FieldEntries(NamedTuple):
    """The entries of B rows in the columns of one field; those that are 0 do not count.

    Attributes:
        counts: (B,) int64, how many entries each row has.
        columns: (E,) int64, their columns within the field, ascending within a row.
        values: (E,) float64, their values.
    """

    counts: Integers
    columns: Integers
    values: Doubles


class EncodedField(NamedTuple):
    """Entries of one field, and how often its values were missing or unknown."""

    entries: FieldEntries
    missing: int
    unknown: int


def make_single_entries(columns: Integers, values: Doubles) -> FieldEntries:
    """Return one entry for each row, which may be 0."""
    return FieldEntries(np.ones(len(columns), np.int64), columns, values)


def add_column(entries: FieldEntries, marked: Booleans, column: int) -> FieldEntries:
    """Return entries with 1 in a column after all others, in the rows that are marked."""
    places = np.cumsum(entries.counts)[marked]
    return FieldEntries(
        entries.counts + marked,
        np.insert(entries.columns, places, column),
        np.insert(entries.values, places, 1.0),
    )


def check_counts(name: str, counts: Integers, limits: FieldLimits, noun: str = "entries") -> int:
    """Return the number of entries of all rows.

    Raises:
        TooManyEntriesError: A row has more than the limit, or all rows together have.
    """
    if len(counts) and counts.max() > limits.entries_max:
        row = int(np.argmax(counts > limits.entries_max))
        raise TooManyEntriesError(f"Row {row}: {quote(name)} has more than {limits.entries_max} {noun}.")
    total = int(counts.sum())
    if total > ENTRIES_OF_A_CALL_MAX:
        raise TooManyEntriesError(f"{quote(name)} has more than {ENTRIES_OF_A_CALL_MAX} {noun}; send several requests.")
    return total


def list_values(values: Values) -> Sequence[object]:
    """Return values as Python objects."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def find_missing(values: Sequence[object]) -> Booleans:
    """Return (B,) which values are null or NaN."""
    kinds = set(map(type, values))
    if kinds.isdisjoint({type(None), float}):
        return np.zeros(len(values), np.bool_)
    return np.fromiter((value is None or is_nan(value) for value in values), np.bool_, len(values))


def is_nan(value: object) -> bool:
    """Return whether a value is a float that is not a number."""
    return type(value) is float and value != value  # noqa: PLR0124  # what NaN is


class FieldEncoder(ABC):
    """Encodes the values of one field.

    Args:
        name: The name of the value in a row, for refusals.
        accepted: The kinds of values that it accepts, for refusals.
        missing: "refuse", or anything else.
        stand_in: The value that stands for a missing one, or None.
        missing_column: The number of the column `missing`, or -1.
    """

    def __init__(
        self, name: str, accepted: Sequence[str], missing: object, stand_in: object = None, missing_column: int = -1
    ) -> None:
        self.name: Final = name
        self._accepted: Final = accepted
        self.refuses_missing: Final = missing == "refuse"
        self.stand_in: Final = stand_in
        self.missing_column: Final = missing_column

    def encode(self, values: Values) -> EncodedField:
        """Encode B values, which are an array only if they are numbers or booleans.

        Raises:
            UnacceptableError: The field does not accept a value.
            TooLargeError: A value, or all values together, have too many entries.
        """
        listed = list_values(values)
        missing = find_missing(listed)
        count = int(np.count_nonzero(missing))
        if count:
            self.check_missing(missing)
            listed = [self.stand_in if absent else value for value, absent in zip(listed, missing, strict=True)]
        entries, unknown = self.encode_present(listed)
        if count and self.missing_column >= 0:
            entries = add_column(entries, missing, self.missing_column)
        return EncodedField(entries, count, unknown)

    @abstractmethod
    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of values, and how many are unknown; None stands for a missing value without entries."""

    def name_value(self, value: Any) -> dict[int, list[str]]:  # noqa: ANN401, ARG002  # any value that the field accepts
        """Return what a value that is not missing has in each hashed column; nothing if no column is hashed."""
        return {}

    def check_missing(self, missing: Booleans) -> None:
        """Raise UnacceptableError if a value is missing and the field refuses that."""
        if self.refuses_missing:
            row = int(np.argmax(missing))
            problem = f"is missing, and must be {join_kinds(self._accepted)}"
            raise refuse_value(row, self.name, problem, MissingValueError)

    def refuse(self, row: int) -> UnacceptableError:
        """Return the error of a value that the field does not accept."""
        return refuse_value(row, self.name, f"must be {self.describe_values()}")

    def describe_values(self) -> str:
        """Return in words which values the field accepts: "a text or null"."""
        return join_kinds(self._accepted if self.refuses_missing else [*self._accepted, "null"])

    def check_types(self, values: Sequence[object], accepted: frozenset[type]) -> None:
        """Raise UnacceptableError if a value has another type."""
        if not accepted.issuperset(map(type, values)):
            raise self.refuse(next(i for i, value in enumerate(values) if type(value) not in accepted))
