"""The general encoder: rows of names and values become columns and values of a model.

It decides every doubtful case and words every refusal. A row is an object, or a list of values in the order of the
fields; crosses have none, and fields that read one value have one place, that of the first. Columns of values by name
give the same bits. Entries that are exactly 0 are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np

from service.errors import ArtifactError, InputError, UnacceptableError
from service.field_errors import TooManyEntriesError, UnknownFieldError
from service.fields.column_blocks import FieldLimits, lay_out_columns
from service.fields.cross_encoder import CrossEncoder
from service.fields.entries import ENTRIES_OF_A_CALL_MAX, FieldEncoder, FieldEntries, Values
from service.fields.field_encoders import Tensors, check_tensors, make_encoder, make_term_table
from service.fields.field_list import ValueRecord, group_by_value
from service.fields.field_records import CrossField, FieldRecord
from service.fields.kernels.entry_kernels import join_fields
from service.fields.refusals import quote, refuse_value
from service.softmax.arrays import Integers
from service.softmax.sparse_rows import SparseRows

# An error names so many fields at most.
NAMES_SHOWN_MAX: Final = 8


class EncodedRows(NamedTuple):
    """Rows as the encoder gives them.

    Attributes:
        rows: B rows with values in float64.
        missing: (F,) int64, how many values of each field were missing.
        unknown: (F,) int64, how many categories or names of each field were unknown.
    """

    rows: SparseRows
    missing: Integers
    unknown: Integers


class RowEncoder:
    """Encodes the rows of one model.

    Args:
        fields: The fields of its manifest.
        tensors: The tensors of its artifact by name.
        limits: The limits of the fields.
        others: "ignore" for names in a row that no field reads, or "refuse".

    Attributes:
        fields: The fields.
        names: The names of the values in a row, in the order of the first field that reads each.
        blocks: The columns of each field.
        n_columns: The columns of all fields, N.
        terms: The terms of each field that has any, by its name.
        entries_max: The most entries of a row.

    Raises:
        ArtifactError: The fields exceed a limit, or their tensors cannot be used.
    """

    def __init__(
        self,
        fields: Sequence[FieldRecord],
        tensors: Tensors,
        limits: FieldLimits,
        others: Literal["refuse", "ignore"] = "refuse",
    ) -> None:
        self.fields: Final = tuple(fields)
        sizes = {name: tensor.shape for name, tensor in tensors.items()}
        try:
            self.blocks: Final = lay_out_columns(self.fields, sizes, limits)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        check_tensors(self.fields, tensors)
        self.n_columns: Final = self.blocks[-1].end
        tables = {field.name: make_term_table(field, tensors) for field in self.fields}
        self.terms: Final = {name: table for name, table in tables.items() if table is not None}
        self.encoders: Final[dict[str, FieldEncoder]] = {}
        self.crosses: Final[dict[str, CrossEncoder]] = {}
        for field in self.fields:
            if isinstance(field, CrossField):
                self.crosses[field.name] = CrossEncoder(field, limits)
            else:
                n_values = field.count_values(sizes)
                self.encoders[field.name] = make_encoder(field, tables[field.name], n_values, tensors, limits)
        self.names: Final = tuple(group_by_value(self.fields))
        self._known: Final = frozenset(self.names)
        self._ignores_others: Final = others == "ignore"
        self._starts: Final = np.array([block.start for block in self.blocks], np.int64)
        self.entries_max: Final = limits.entries_max

    def encode_objects(self, rows: Sequence[object]) -> EncodedRows:
        """Encode rows that are objects, or lists of values in the order of the fields.

        Raises:
            UnacceptableError: A row is neither, or a field does not accept its value.
            TooLargeError: A row, or all rows together, have too many entries.
        """
        if set(map(type, rows)) == {dict}:
            objects = cast("Sequence[dict[str, Any]]", rows)
            self._check_names(objects)
            return self._encode(self._transpose(objects), len(rows))
        listed = [self.order_values(row, i) for i, row in enumerate(rows)]
        return self._encode(list(zip(*listed, strict=True)) or [()] * len(self.names), len(rows))

    def encode_columns(self, columns: Mapping[str, Values]) -> EncodedRows:
        """Encode columns of values by their name.

        Args:
            columns: Lists, or arrays (B,) and (B, size) of numbers or booleans. A value without a column is missing in
                all rows.

        Raises:
            UnacceptableError: A column is no list, or is shorter than another; or a field does not accept a value.
            TooLargeError: A row, or all rows together, have too many entries.
        """
        if not self._ignores_others and not self._known.issuperset(columns):
            raise UnknownFieldError(f"A column has {self._describe_unknown_name()}.")
        given = {name: column for name, column in columns.items() if name in self._known}
        for name, column in given.items():
            if not isinstance(column, list | np.ndarray):
                raise UnacceptableError(f"{quote(name)} must be a list of one value for each row.")
        sizes = set(map(len, given.values()))
        if len(sizes) != 1:
            raise UnacceptableError(
                "There must be at least one column, and all must have as many values as each other."
            )
        (n_rows,) = sizes
        return self._encode([given.get(name, [None] * n_rows) for name in self.names], n_rows)

    def order_values(self, row: object, i: int) -> list[Any]:
        """Return the values of a row in the order of `names`; None where a name is absent.

        Raises:
            UnacceptableError: Row `i` is neither an object nor a list of as many values.
        """
        if type(row) is dict:
            self._check_names([row], i)
            return [row.get(name) for name in self.names]
        if type(row) is not list:
            raise UnacceptableError(f"Row {i} must be an object of names and values, or a list of values.")
        if len(row) != len(self.names):
            raise UnacceptableError(f"Row {i} has {len(row)} values; this model takes {len(self.names)}.")
        return row

    def to_model_rows(self, rows: SparseRows, dtype: np.dtype[np.floating[Any]]) -> SparseRows:
        """Return rows with values in the dtype of a model.

        Raises:
            UnacceptableError: A value is too large for the dtype.
        """
        with np.errstate(over="ignore"):
            values = rows.values.astype(dtype)
        cast = rows._replace(values=values)
        self._check_finite(cast)
        return cast

    def count_values(self, field: FieldRecord) -> int:
        """Return the number of columns of one of the fields, without `other` and `missing`."""
        block = self.blocks[self.fields.index(field)]
        return block.end - block.start - field.has_other - field.has_missing

    def accepts_value(self, fields: Sequence[ValueRecord], value: object) -> bool:
        """Return whether all of some fields accept a value."""
        try:
            for field in fields:
                self.encoders[field.name].encode([value])
        except InputError:
            return False
        return True

    def find_field(self, column: int) -> int:
        """Return the number of the field that has a column."""
        return int(np.searchsorted(self._starts, column, "right")) - 1

    def encode_values(self, values: Sequence[Values]) -> tuple[list[FieldEntries], Integers, Integers]:
        """Return the entries of each field, crosses included, and how many values were missing and unknown.

        Args:
            values: B values of each name in `names`.
        """
        entries: dict[str, FieldEntries] = {}
        missing, unknown = np.zeros(len(self.fields), np.int64), np.zeros(len(self.fields), np.int64)
        given = dict(zip(self.names, values, strict=True))
        total = 0
        for f, field in enumerate(self.fields):
            if isinstance(field, CrossField):
                cross = self.crosses[field.name]
                entries[field.name] = cross.encode([entries[name] for name in cross.fields])
            else:
                encoded = self.encoders[field.name].encode(given[field.value_name])
                entries[field.name], missing[f], unknown[f] = encoded
            total += len(entries[field.name].columns)
            if total > ENTRIES_OF_A_CALL_MAX:
                raise TooManyEntriesError(
                    f"The rows have more than {ENTRIES_OF_A_CALL_MAX} entries; send several requests."
                )
        return list(entries.values()), missing, unknown

    def _encode(self, values: Sequence[Values], n_rows: int) -> EncodedRows:
        """Return the rows of B values of each name in `names`."""
        parts, missing, unknown = self.encode_values(values)
        sizes = [len(part.columns) for part in parts]
        firsts = np.cumsum([0, *sizes[:-1]])
        total = sum(sizes)
        ends, columns, numbers = np.empty(n_rows, np.int64), np.empty(total, np.int32), np.empty(total)
        counts = np.stack([part.counts for part in parts])
        joined = (np.concatenate([part.columns for part in parts]), np.concatenate([part.values for part in parts]))
        used = join_fields(counts, *joined, firsts, self._starts, ends, columns, numbers)
        rows = SparseRows(ends, columns[:used], numbers[:used])
        self._check_finite(rows)
        too_many = np.diff(ends, prepend=0) > self.entries_max
        if too_many.any():
            raise TooManyEntriesError(f"Row {int(np.argmax(too_many))} has more than {self.entries_max} entries.")
        return EncodedRows(rows, missing, unknown)

    def _transpose(self, rows: Sequence[dict[str, Any]]) -> list[Values]:
        """Return the B values of each name; rows whose names are all in the order of `names` are read in bulk."""
        if all(tuple(row) == self.names for row in rows):
            return list(zip(*map(dict.values, rows), strict=True))
        return [[row.get(name) for row in rows] for name in self.names]

    def _check_finite(self, rows: SparseRows) -> None:
        """Raise UnacceptableError if a value is not finite."""
        finite = np.isfinite(rows.values)
        if finite.all():
            return
        entry = int(np.argmin(finite))
        field = self.fields[self.find_field(int(rows.columns[entry]))]
        row = int(np.searchsorted(rows.ends, entry, "right"))
        name = field.name if isinstance(field, CrossField) else field.value_name
        raise refuse_value(row, name, "has a number that is too large for this model")

    def _check_names(self, rows: Sequence[dict[str, Any]], first: int = 0) -> None:
        """Raise UnacceptableError if a row has a name that no field reads; `first` is the number of the first row."""
        if self._ignores_others or all(map(self._known.issuperset, rows)):
            return
        row = first + next(i for i, row in enumerate(rows) if not self._known.issuperset(row))
        raise UnknownFieldError(f"Row {row} has {self._describe_unknown_name()}.")

    def _describe_unknown_name(self) -> str:
        """Return what is wrong with a name that no field reads, and the first names of a row."""
        shown = ", ".join(map(quote, self.names[:NAMES_SHOWN_MAX]))
        others = " and others" if len(self.names) > NAMES_SHOWN_MAX else ""
        if self._known.issuperset(self.encoders):
            return f"a name that is no field; the fields are {shown}{others}"
        return f"a name that no field reads; the names of a row are {shown}{others}"
