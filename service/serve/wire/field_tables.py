"""Parse the rows of a model with fields: every form of a body becomes encoded rows.

    instances, dataframe_records   [{"age": 41, "country": "PT"}, [41, "PT"], ...]: a list is in the order of the fields
    inputs                         {"age": [41, 7], "country": ["PT", null]}; or the rows
    dataframe_split                {"columns": ["country", "age"], "data": [["PT", 41], ...], "index": ignored}

field_csv.py has CSV, and field_tensors.py the tensors of v2. The encoder (fields/row_encoder.py) decides what a value
means, and refuses it by row and name. A value is missing where it is null or its name is absent. Python's clients
write NaN for a missing number, which is not JSON: outside of texts it counts as null. Fields that read one value have
one name, one place in a list and one column.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import MalformedError, UnacceptableError
from service.fields.entries import Values
from service.fields.field_list import group_by_value
from service.fields.field_records import VectorField
from service.fields.object_plan import ObjectPlan
from service.fields.row_encoder import EncodedRows, RowEncoder
from service.fields.text_records import BagField
from service.serve.wire.field_csv import CsvFields
from service.serve.wire.json_grammar import check_row_count, parse_object
from service.serve.wire.nan_literals import replace_nan
from service.serve.wire.table_grammar import check_repeated, check_rows, read_split
from service.softmax.arrays import Integers
from service.softmax.sparse_rows import Rows

# Numbers of the matrix of a request: 64 MiB in float32. A row without values is short, and its matrix row is not.
MATRIX_CELLS_MAX: Final = 1 << 24
# A body may have the lists and objects of so many rows, however many each row has: about 100 MB as Python objects.
CONTAINER_ROWS_MAX: Final = 1 << 19

# What is around the list of rows in a body with nothing but instances.
SPACES: Final = rb"[ \t\n\r]*"
PREFIX: Final = re.compile(SPACES + rb"\{" + SPACES + rb'"instances"' + SPACES + b":" + SPACES)
SUFFIX: Final = re.compile(SPACES + rb"\}" + SPACES)

# Counts how many values of each field (F,) were missing and unknown.
CountValues = Callable[[Integers, Integers], None]


class CutObject(NamedTuple):
    """A row that was read in a text, and where the list that has it ends."""

    rows: Rows
    after: int


class CutEntries(NamedTuple):
    """The entries of such a row: their number, their columns as int32, their values; and where the list ends."""

    n_entries: int
    columns: bytes
    values: bytes
    after: int


class FieldTables:
    """Parses and converts the bodies of one model with fields.

    Args:
        encoder: The encoder of its rows.
        dtype: The model's dtype.
        rows_max: The limit of rows of a request.
        depth_max: The limit of nesting of a body.
        count_values: Counts missing and unknown values, or None.
        objects: Encodes the usual single row from the text of a body, or None.
        is_sparse: Whether the model takes sparse rows, not X (B, N).

    Attributes:
        encoder: As above.
        dtype: As above.
        n_features: The number of columns.
        rows_max: The limit of rows of a request.
        depth_max: As above.
        nan_is_missing: Whether NaN, which is not JSON, is a missing value.
        container_rows_max: The limit of rows whose lists and objects a body may have.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        dtype: np.dtype[np.floating[Any]],
        rows_max: int,
        depth_max: int,
        count_values: CountValues | None = None,
        *,
        objects: ObjectPlan | None = None,
        is_sparse: bool = False,
    ) -> None:
        self.encoder: Final = encoder
        self.dtype: Final = dtype
        self.n_features: Final = encoder.n_columns
        cells = 1 if is_sparse else encoder.n_columns
        self.rows_max: Final = min(rows_max, max(1, MATRIX_CELLS_MAX // cells))
        self._is_sparse: Final = is_sparse
        self.depth_max: Final = depth_max
        self.nan_is_missing: Final = True
        nested = sum(isinstance(group[0], BagField | VectorField) for group in group_by_value(encoder.fields).values())
        self.container_rows_max: Final = max(rows_max, min(rows_max * (1 + nested), CONTAINER_ROWS_MAX))
        self._add_counts: Final = count_values
        self._counts: tuple[Integers, Integers] | None = None  # of the rows that were converted last
        self._objects: Final = objects
        self._csv: Final = CsvFields(encoder.fields)
        self._positions: Final = [str(i) for i in range(len(encoder.names))]

    def parse_usual(self, body: bytes) -> Rows | None:
        """Return the row of a body with nothing but instances, one object; or None if unsure."""
        prefix = PREFIX.match(body)
        cut = None if prefix is None else self.cut_object(body, prefix.end())
        return cut.rows if cut is not None and SUFFIX.fullmatch(body, cut.after) else None

    def cut_object(self, text: bytes, start: int) -> CutObject | None:
        """Return the row in a list of one object in a JSON text, which begins at `start`; None if unsure."""
        encoded = None if self._objects is None else self._objects.encode(text, start)
        if encoded is None or self._objects is None:
            return None
        try:
            return CutObject(self._finish(encoded), self._objects.after)
        except UnacceptableError:
            return None

    def cut_entries(self, text: bytes, start: int) -> CutEntries | None:
        """Return the same row as the bytes of its entries in float32; None if unsure, or if rows are not sparse."""
        objects = self._objects
        if objects is None or not self._is_sparse or self.dtype != np.float32:
            return None
        entries = objects.encode_bytes(text, start)
        if entries is None:
            return None
        self._counts = (objects.missing.copy(), objects.unknown.copy()) if objects.has_counts else None
        return CutEntries(*entries, objects.after)

    def parse_document(self, body: bytes, rows_max: int) -> dict[str, Any]:
        """Parse a JSON object.

        Args:
            body: The bytes.
            rows_max: The limit of rows, which limits the number of lists and objects.

        Raises:
            MalformedError: The body cannot be parsed.
            TooLargeError: The body has too many lists and objects.
        """
        rows_max = max(rows_max, self.container_rows_max)
        try:
            return parse_object(body, self.depth_max, rows_max)
        except MalformedError:
            text = replace_nan(body)
            if text is None:
                raise
        return parse_object(text, self.depth_max, rows_max)

    def convert_instances(self, instances: object, field: str = "instances") -> Rows:
        """Convert a list of rows, each an object, or a list of values in the order of the fields.

        Args:
            instances: Any JSON value.
            field: The name of the member that has it.

        Raises:
            UnacceptableError: It is not a list of at least one row, or a field does not accept a value.
            TooLargeError: There are more rows or entries than the limit.
        """
        return self._finish(self.encoder.encode_objects(check_rows(instances, field, self.rows_max)))

    def convert_columns(self, columns: Mapping[str, Values]) -> Rows:
        """Convert columns of values by their name; a value without a column is missing in all rows.

        Raises:
            UnacceptableError: A column is no list of at least one value, they differ in length, or a field does not
                accept a value.
            TooLargeError: There are more rows or entries than the limit.
        """
        sizes = [len(column) if isinstance(column, list | np.ndarray) else 1 for column in columns.values()]
        if not all(sizes):
            raise UnacceptableError("Each column must be a list of at least one value.")
        check_row_count(max(sizes, default=0), self.rows_max)
        return self._finish(self.encoder.encode_columns(columns))

    def convert_split(self, frame: object, field: str) -> Rows:
        """Convert an object with the names of the columns and the rows; `field` is the name of the member that has it.

        Raises:
            UnacceptableError: It is not such an object, or a field does not accept a value.
            TooLargeError: There are more rows or entries than the limit.
        """
        members = read_split(frame, field)
        names = self.name_columns(members.get("columns", list(self.encoder.names)))
        rows = check_rows(members.get("data"), "data", self.rows_max)
        if set(map(type, rows)) != {list} or set(map(len, rows)) != {len(names)}:
            wrong = next(i for i, row in enumerate(rows) if type(row) is not list or len(row) != len(names))
            raise UnacceptableError(f"Row {wrong} must be a list of as many values as there are columns.")
        return self.convert_columns(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))

    def parse_csv(self, body: bytes, *, header: bool | None = None) -> Rows:
        """Parse a CSV text, which has a header unless the request says that it has none.

        Raises:
            MalformedError: The body is not CSV in UTF-8.
            UnacceptableError: A line has too few or too many cells, or a field does not accept a value.
            TooLargeError: There are more rows or entries than the limit.
        """
        return self.convert_columns(self._csv.parse_columns(body, self.rows_max, header=header is not False))

    def count_values(self) -> None:
        """Count the missing and unknown values of the rows that were converted last, unless they were counted."""
        if self._counts is not None and self._add_counts is not None:
            self._add_counts(*self._counts)
        self._counts = None

    def name_columns(self, columns: object) -> Sequence[str]:
        """Return the names of the columns of a table; those that pandas numbers are the fields in their order.

        Raises:
            UnacceptableError: The columns are no list of texts and numbers, or a name occurs twice.
        """
        if type(columns) is not list or not columns:
            raise UnacceptableError('"columns" must be a list of names.')
        names = [str(name) if type(name) is int else name for name in columns]
        if not {str}.issuperset(map(type, names)):
            raise UnacceptableError("The body has a column whose name is not a string.")
        if names == self._positions and not set(names) <= set(self.encoder.names):
            return self.encoder.names
        check_repeated(names)
        return names

    def _finish(self, encoded: EncodedRows) -> Rows:
        """Return the rows in the model's dtype, and keep the numbers of their missing and unknown values."""
        rows = self.encoder.to_model_rows(encoded.rows, self.dtype)
        self._counts = encoded.missing, encoded.unknown
        return rows if self._is_sparse else rows.to_matrix(self.n_features)
