"""The names of the entries of a row, for explanations.

A column that is listed has its name (column_names.py). A hashed one is named by what fell into it in this row:

    subject: refund            an n-gram of a text, or a name of a bag
    subject: refund, money     two that fell into one column
    country=PT                 a category
    country=PT * age           a cross

A name is cut at VALUE_CHARACTERS_MAX characters after the name of its field, and then ends with "…".
"""

from collections.abc import Sequence
from typing import Any, Final

from service.fields.column_names import list_column_names, name_column
from service.fields.cross_encoder import drop_zeros
from service.fields.entries import FieldEntries, find_missing
from service.fields.field_records import CategoryField, CrossField, FieldRecord
from service.fields.row_encoder import RowEncoder

# More names of one column are not shown.
NAMES_OF_A_COLUMN_MAX: Final = 3
# A word may have a million characters, and each of its n-grams and products would repeat them.
VALUE_CHARACTERS_MAX: Final = 100


class EntryNames:
    """Names the entries of rows of one model. Immutable and thread-safe.

    Args:
        encoder: The encoder of the model's rows.

    Attributes:
        characters_max: The most characters that the name of an entry may have.
    """

    def __init__(self, encoder: RowEncoder) -> None:
        self._encoder: Final = encoder
        self.characters_max: Final = max(len(field.name) for field in encoder.fields) + VALUE_CHARACTERS_MAX + 1
        self._n_values: Final = [
            block.end - block.start - field.has_other - field.has_missing
            for field, block in zip(encoder.fields, encoder.blocks, strict=True)
        ]

    def list_columns(self) -> tuple[str, ...]:
        """Return the names of all columns of a model whose rows become dense; no name occurs twice."""
        return list_column_names(self._encoder.fields, self._encoder.terms)

    def name_column(self, column: int) -> str:
        """Return the name of a column without a row; a hashed one is numbered."""
        f = self._encoder.find_field(column)
        return self._name_listed(f, column - self._encoder.blocks[f].start)

    def name_entries(self, row: object) -> list[str]:
        """Return the name of each entry of a row, in the order of its columns.

        Args:
            row: A row that the encoder accepts.
        """
        encoder = self._encoder
        values = dict(zip(encoder.names, encoder.order_values(row, 0), strict=True))
        parts, _, _ = encoder.encode_values([[value] for value in values.values()])
        kept = {field.name: drop_zeros(part) for field, part in zip(encoder.fields, parts, strict=True)}
        names: dict[str, list[str]] = {}
        for f, field in enumerate(encoder.fields):
            found = self._find_hashed(field, values, kept, names)
            longest = len(field.name) + VALUE_CHARACTERS_MAX
            names[field.name] = [
                _cut(_join_names(field, found[column]) if column in found else self._name_listed(f, column), longest)
                for column in kept[field.name].columns.tolist()
            ]
        return [name for listed in names.values() for name in listed]

    def _find_hashed(
        self,
        field: FieldRecord,
        values: dict[str, Any],
        kept: dict[str, FieldEntries],
        names: dict[str, list[str]],
    ) -> dict[int, list[str]]:
        """Return what fell into each hashed column of a field; names has those of the fields above it."""
        if not field.is_hashed:
            return {}
        if isinstance(field, CrossField):
            cross = self._encoder.crosses[field.name]
            return cross.name_entries([kept[name] for name in cross.fields], [names[name] for name in cross.fields])
        encoder = self._encoder.encoders[field.name]
        value = encoder.stand_in if find_missing([values[field.value_name]])[0] else values[field.value_name]
        return {} if value is None else encoder.name_value(value)

    def _name_listed(self, f: int, column: int) -> str:
        """Return the name of a column of field `f` by its number within the field."""
        field = self._encoder.fields[f]
        return name_column(field, column, self._n_values[f], self._encoder.terms.get(field.name, ()))


def _join_names(field: FieldRecord, found: Sequence[str]) -> str:
    """Return the name of a column from what fell into it."""
    shown = ", ".join(found[:NAMES_OF_A_COLUMN_MAX]) + (", …" if len(found) > NAMES_OF_A_COLUMN_MAX else "")
    if isinstance(field, CrossField):
        return shown
    return f"{field.name}{'=' if isinstance(field, CategoryField) else ': '}{shown}"


def _cut(name: str, longest: int) -> str:
    """Return a name of at most so many characters, and "…" if there are more."""
    return name if len(name) <= longest else name[:longest] + "…"
