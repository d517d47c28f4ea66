"""The parser of a model's bodies, as handlers see it: every form becomes X (B, N) or sparse rows, in the model's dtype.

`TableParser` (table_rows.py) is that of models whose rows are numbers, and `FieldTables` (field_tables.py) that of
models with fields.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from service.fields.object_plan import ObjectPlan
from service.fields.row_encoder import RowEncoder
from service.serve.wire.field_tables import CountValues, FieldTables
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from service.softmax.sparse_rows import Rows, SparseRows, count_rows


class ModelTables(Protocol):
    """Parses and converts the bodies of one model. Use it on the event loop's thread only.

    Each method that returns rows raises UnacceptableError if there is not at least one row of this model, and
    TooLargeError if there are more rows than the limit. A single row may be in a buffer that the next call overwrites.
    """

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The model's dtype."""

    @property
    def n_features(self) -> int:
        """The number N of features of a row, or of its columns."""

    @property
    def nan_is_missing(self) -> bool:
        """Whether NaN, which is not JSON, is a missing value."""

    @property
    def container_rows_max(self) -> int:
        """The limit of rows whose lists and objects a body may have."""

    @property
    def rows_max(self) -> int:
        """The limit of rows of a request."""

    @property
    def depth_max(self) -> int:
        """The limit of nesting of a body."""

    def parse_usual(self, body: bytes) -> Rows | None:
        """Return the rows of a body with nothing but instances, or None if unsure."""

    def parse_document(self, body: bytes, rows_max: int) -> dict[str, Any]:
        """Parse a JSON object, whose members the other methods convert.

        Args:
            body: The bytes.
            rows_max: The limit of rows, which limits the number of lists and objects.

        Raises:
            MalformedError: The body cannot be parsed.
            TooLargeError: The body has too many lists and objects.
        """

    def convert_instances(self, instances: object, field: str = "instances") -> Rows:
        """Convert a list of rows; `field` is the name of the member that has it."""

    def convert_columns(self, columns: dict[str, Any]) -> Rows:
        """Convert an object of columns by name."""

    def convert_split(self, frame: object, field: str) -> Rows:
        """Convert an object with the names of the columns and the rows; `field` is as above."""

    def parse_csv(self, body: bytes, *, header: bool | None = None) -> Rows:
        """Parse a CSV text; `header` is whether its first line is a header, or None if the request does not say.

        Raises:
            MalformedError: The body is not CSV in UTF-8.
        """

    def count_values(self) -> None:
        """Count the missing and unknown values of the rows that were converted last.

        Call it once a request is accepted: one that waits for a state, or asks one of the past, is converted twice.
        """


class RowLimits(NamedTuple):
    """The limits of the rows of a body: their number, and how deep the body nests."""

    rows_max: int
    depth_max: int


def detach_rows(rows: Rows) -> Rows:
    """Return rows that the next call does not overwrite: a single row is copied."""
    if count_rows(rows) != 1:
        return rows
    if isinstance(rows, SparseRows):
        return SparseRows(rows.ends.copy(), rows.columns.copy(), rows.values.copy())
    return rows.copy()


def make_tables(
    row: RowEncoder | Sequence[str],
    dtype: np.dtype[np.floating[Any]],
    limits: RowLimits,
    count_values: CountValues | None = None,
    *,
    objects: ObjectPlan | None = None,
    is_sparse: bool = False,
) -> ModelTables:
    """Return the parser of a model's bodies.

    Args:
        row: The encoder of a model with fields, or the names of the features of another.
        dtype: The model's dtype.
        limits: The limits of the rows of a body.
        count_values: Counts the missing and unknown values of fields, or None.
        objects: Encodes the usual single row of a model with fields, or None.
        is_sparse: Whether the model takes sparse rows.
    """
    if isinstance(row, RowEncoder):
        return FieldTables(row, dtype, *limits, count_values, objects=objects, is_sparse=is_sparse)
    return TableParser(RowParser(len(row), dtype, *limits), row)
