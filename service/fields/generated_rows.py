"""Rows that are made from the fields of a model alone: the proof of an import compares them, and a manifest shows some.

Each row follows from the seed and its number, whatever the system is:

    rows 0 to 7    usual values; in every third row one value is missing or unknown
    later rows     usual values among gaps, unknown values and extremes: numbers far from the mean or at the limit of
                   the cut, texts that are empty or long, accents, emoji and white space, large bags

A field that refuses missing or unknown values gets none, and fields that read one value get one that suits them all. A
row that the encoder refuses, such as one with too many entries, is made again without extremes, and then without all
values that may be missing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from service.errors import InputError
from service.fields.column_blocks import FieldLimits
from service.fields.field_list import ValueRecord, group_by_value
from service.fields.field_records import NumberField
from service.fields.generated_values import Chance, ValueMaker
from service.fields.row_encoder import RowEncoder

Row = dict[str, Any]

# The examples of a manifest.
USUAL_ROWS: Final = 8
# Parts of the values of a later row.
GAPS, UNKNOWN, EXTREME = 0.12, 0.08, 0.1
# The smallest dtype of a model, which must hold the values of a row.
SINGLE: Final = np.dtype(np.float32)
# Numbers of a seed that is used for one row each.
ROWS_OF_A_SEED: Final = 1 << 32


class RowGenerator:
    """Makes rows that the encoder of a model accepts.

    Args:
        encoder: The encoder.
        seed: The seed.
        words: By a field's name, words of a text or names of a bag that a hashed model knows.
    """

    def __init__(self, encoder: RowEncoder, seed: int = 0, words: Mapping[str, Sequence[str]] | None = None) -> None:
        self._encoder: Final = encoder
        self._seed: Final = seed
        self._values: Final = ValueMaker(encoder, words or {})
        self._groups: Final = group_by_value(encoder.fields)

    def make_rows(self, first: int, stop: int) -> list[Row]:
        """Return the rows from number `first` to before `stop`, without those that the limits of the encoder forbid."""
        made = (self._make_accepted(i, Chance(self._seed * ROWS_OF_A_SEED + i)) for i in range(first, stop))
        return [row for row in made if row is not None]

    def _make_accepted(self, i: int, chance: Chance) -> Row | None:
        """Return row `i`, or None if the encoder refuses even a row of few values."""
        makers = [self._make_usual, self._make_short]
        if i >= USUAL_ROWS:
            makers.insert(0, self._make_odd)
        for make in makers:
            row = make(i, chance)
            try:
                self._encoder.to_model_rows(self._encoder.encode_objects([row]).rows, SINGLE)
            except InputError:
                continue
            return row
        return None

    def _make_odd(self, _: int, chance: Chance) -> Row:
        """Return a row whose values are usual, missing, unknown or extreme."""
        row: Row = {}
        for name, fields in self._groups.items():
            if may_be_missing(fields) and chance.happens(GAPS):
                if chance.happens(0.5):
                    row[name] = None
            elif chance.happens(UNKNOWN):
                row[name] = self._make_unknown(fields, chance)
            else:
                row[name] = self._make_value(fields, chance, extreme=chance.happens(EXTREME))
        return row

    def _make_usual(self, i: int, chance: Chance) -> Row:
        """Return a row of usual values; in every third row one of them is missing or unknown."""
        row = {name: self._make_value(fields, chance, extreme=False) for name, fields in self._groups.items()}
        if i % 3 == 2:  # noqa: PLR2004  # the third one
            name = chance.pick(list(self._groups))
            unknown = self._make_unknown(self._groups[name], chance)
            row[name] = None if may_be_missing(self._groups[name]) else unknown
        return row

    def _make_short(self, _: int, chance: Chance) -> Row:
        """Return a row of usual values without those that may be missing."""
        needed = {name: fields for name, fields in self._groups.items() if not may_be_missing(fields)}
        return {name: self._make_value(fields, chance, extreme=False) for name, fields in needed.items()}

    def _make_value(self, fields: Sequence[ValueRecord], chance: Chance, *, extreme: bool) -> Any:  # noqa: ANN401
        """Return a usual or an extreme value of the fields that read it."""
        return self._find_value(fields, chance, lambda field: self._values.make(field, chance, extreme=extreme))

    def _make_unknown(self, fields: Sequence[ValueRecord], chance: Chance) -> Any:  # noqa: ANN401  # any kind
        """Return a value that one of the fields that read it does not know."""
        return self._find_value(fields, chance, lambda field: self._values.make_unknown(field, chance))

    def _find_value(self, fields: Sequence[ValueRecord], chance: Chance, make: Callable[[ValueRecord], Any]) -> Any:  # noqa: ANN401  # any kind
        """Return a value that is made for one of the fields and suits all, or None if no such value is found."""
        if len(fields) == 1:
            return make(fields[0])
        first = chance.below(len(fields))
        for field in (*fields[first:], *fields[:first]):
            value = make(field)
            # A category accepts whole numbers alone.
            for candidate in (value, round(value)) if type(value) is float else (value,):
                if self._encoder.accepts_value(fields, candidate):
                    return candidate
        return None


def may_be_missing(fields: Sequence[ValueRecord]) -> bool:
    """Return whether all of the fields that read a value accept a missing one."""
    return all(field.missing != "refuse" for field in fields)


def number_encoder(names: Sequence[str], mean: Sequence[float], scale: Sequence[float]) -> RowEncoder:
    """Return an encoder of rows of numbers, none of which may be missing, for a model without fields.

    Args:
        names: The names of N numbers.
        mean: (N,) their means.
        scale: (N,) their positive scales.
    """
    fields = [
        NumberField(kind="number", name=name, mean=m, scale=s, missing="refuse")
        for name, m, s in zip(names, mean, scale, strict=True)
    ]
    return RowEncoder(fields, {}, FieldLimits(len(fields), len(fields), len(fields)))
