"""Encoders of numbers, booleans, listed categories and vectors, whose entries are found without a hash."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np

from service.field_errors import UnknownValueError
from service.fields.entries import (
    EncodedField,
    FieldEncoder,
    FieldEntries,
    Values,
    add_column,
    list_values,
    make_single_entries,
)
from service.fields.field_records import (
    BooleanField,
    CategoryField,
    MissingBoolean,
    MissingCategory,
    MissingNumber,
    NumberField,
    VectorField,
)
from service.fields.refusals import refuse_value
from service.softmax.arrays import Doubles, Integers

NONE: Final = type(None)
NUMBERS: Final[frozenset[type]] = frozenset((int, float))
NUMBERS_OR_NONE: Final[frozenset[type]] = frozenset((int, float, NONE))
# What a table of categories returns for a missing value, and for one that is not in it.
MISSING, UNKNOWN = -2, -1
CATEGORY_KINDS: Final = {str: ["a text"], int: ["a whole number"], bool: ["true", "false"]}


def scale_numbers(x: Doubles, mean: Doubles | float, scale: Doubles | float, clip: float | None) -> Doubles:
    """Return (x - mean) / scale, cut to [-clip, clip] unless clip is None; what is too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (x - mean) / scale
    return scaled if clip is None else np.clip(scaled, -clip, clip)


class NumberEncoder(FieldEncoder):
    """Encodes a number: its scaled value, and whether it is missing."""

    def __init__(self, field: NumberField) -> None:
        stand_in = field.missing.value if isinstance(field.missing, MissingNumber) else None
        super().__init__(field.value_name, ["a number"], field.missing, stand_in, 1 if field.has_missing else -1)
        self._field: Final = field
        self._value: Final = field.mean if stand_in is None else stand_in

    def encode(self, values: Values) -> EncodedField:
        """Encode B values, which may be an array (B,) of numbers."""
        x = self._to_array(values)
        missing = np.isnan(x)
        count = int(np.count_nonzero(missing))
        if np.isinf(x).any():
            raise refuse_value(int(np.argmax(np.isinf(x))), self.name, "must be a finite number")
        if count:
            self.check_missing(missing)
            x[missing] = self._value
        z = scale_numbers(x, self._field.mean, self._field.scale, self._field.clip)
        entries = make_single_entries(np.zeros(len(z), np.int64), z)
        if count and self.missing_column >= 0:
            entries = add_column(entries, missing, self.missing_column)
        return EncodedField(entries, count, 0)

    def _to_array(self, values: Values) -> Doubles:
        """Return (B,) float64, NaN where a value is missing."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            return values.astype(np.float64)
        listed: Sequence[Any] = list_values(values)
        self.check_types(listed, NUMBERS_OR_NONE)
        try:
            return np.array(listed, np.float64)
        except OverflowError:
            return np.array([np.nan if value is None else to_float(value) for value in listed])

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of numbers."""
        return self.encode(values).entries, 0


def to_float(value: float) -> float:
    """Return a number as float64, or infinity if an integer is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


class BooleanEncoder(FieldEncoder):
    """Encodes a boolean: 1 for true."""

    def __init__(self, field: BooleanField) -> None:
        stand_in = field.missing.value if isinstance(field.missing, MissingBoolean) else None
        super().__init__(field.value_name, ["true", "false"], field.missing, stand_in, 1 if field.has_missing else -1)

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of booleans."""
        self.check_types(values, frozenset((bool, NONE)))
        z = np.fromiter((value is True for value in values), np.float64, len(values))
        return make_single_entries(np.zeros(len(z), np.int64), z), 0


class CategoryEncoder(FieldEncoder):
    """Encodes a category that is listed: 1 in its column."""

    def __init__(self, field: CategoryField) -> None:
        values = field.values or ()
        kinds = [kind for kind in CATEGORY_KINDS if kind in set(map(type, values))]
        stand_in = field.missing.value if isinstance(field.missing, MissingCategory) else None
        accepted = [name for kind in kinds for name in CATEGORY_KINDS[kind]]
        last = len(values) + field.has_other
        super().__init__(field.value_name, accepted, field.missing, stand_in, last if field.has_missing else -1)
        # 1, 1.0 and true are one key of a dictionary, so each type has a dictionary of its own.
        tables: dict[type, dict[Any, int]] = {kind: {} for kind in kinds}
        for column, value in enumerate(values):
            tables[type(value)][value] = column
        if int in tables:
            tables[float] = tables[int]
        self._types: Final = frozenset((*tables, NONE))
        self._tables: Final = {**tables, NONE: {None: MISSING}}
        self._other: Final = len(values) if field.has_other else -1
        self._refuses_unknown: Final = field.unknown == "refuse"

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of categories, and how many are unknown."""
        self.check_types(values, self._types)
        check_whole(self, values)
        tables = self._tables
        columns = np.array([tables[type(value)].get(value, UNKNOWN) for value in values], np.int64)
        unknown = columns == UNKNOWN
        count = int(np.count_nonzero(unknown))
        if count and self._refuses_unknown:
            row = int(np.argmax(unknown))
            raise refuse_value(row, self.name, "must be one of the values that the model knows", UnknownValueError)
        columns[unknown] = self._other
        return make_single_entries(np.maximum(columns, 0), (columns >= 0).astype(np.float64)), count


def check_whole(encoder: FieldEncoder, values: Sequence[object]) -> None:
    """Raise UnacceptableError if one of the categories is a number that is not whole."""
    if float in set(map(type, values)):
        for row, value in enumerate(values):
            if type(value) is float and not value.is_integer():
                raise encoder.refuse(row)


class VectorEncoder(FieldEncoder):
    """Encodes a list of numbers: each of them scaled.

    Args:
        field: The field.
        mean: (size,) float64, or 0.
        scale: (size,) float64, or 1.

    Attributes:
        mean: As above.
        scale: As above.
    """

    def __init__(self, field: VectorField, mean: Doubles | float, scale: Doubles | float) -> None:
        accepted = [f"a list of {field.size} numbers"]
        super().__init__(field.value_name, accepted, field.missing, None, field.size if field.has_missing else -1)
        self._size: Final = field.size
        self.mean: Final = mean
        self.scale: Final = scale
        self._clip: Final = field.clip

    def encode(self, values: Values) -> EncodedField:
        """Encode B values, which may be an array (B, size) of numbers."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.shape[1:] == (self._size,):
            return EncodedField(self._scale_rows(values.astype(np.float64), np.full(len(values), self._size)), 0, 0)
        return super().encode(values)

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of lists of numbers."""
        for row, value in enumerate(values):
            if value is not None and not self._is_vector(value):
                raise self.refuse(row)
        counts = np.array([0 if value is None else self._size for value in values], np.int64)
        flat = chain.from_iterable(value for value in values if value is not None)
        x = np.fromiter(map(to_float, flat), np.float64, int(counts.sum()))
        return self._scale_rows(x.reshape(-1, self._size), counts), 0

    def _is_vector(self, value: object) -> bool:
        """Return whether a value is a list of `size` numbers."""
        return type(value) is list and len(value) == self._size and NUMBERS.issuperset(map(type, value))

    def _scale_rows(self, x: Doubles, counts: Integers) -> FieldEntries:
        """Return the entries of vectors x (P, size), those of the rows that have one."""
        wrong = ~np.isfinite(x).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(counts)[np.argmax(wrong)])
            raise refuse_value(row, self.name, "must have finite numbers")
        z = scale_numbers(x, self.mean, self.scale, self._clip)
        return FieldEntries(counts, np.tile(np.arange(self._size), len(x)), z.reshape(-1))
