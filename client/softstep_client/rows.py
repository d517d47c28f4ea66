"""Rows in the forms that applications have, as members of a request.

A frame becomes the columns of `inputs`, all else the rows of `instances`. A large NumPy array keeps its numbers, to be
sent as binary data (tensors.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from softstep_client.errors import InputError
from softstep_client.frames import pandas_columns, pandas_rows, polars_columns
from softstep_client.libraries import has_class

if TYPE_CHECKING:
    import numpy as np

# Rows and values of one request to predict; more are sent as several. The service takes 65,536 rows and 64 MiB, and a
# request of this size holds a worker for milliseconds.
PREDICT_ROWS_MAX = 10_000
PREDICT_VALUES_MAX = 1_000_000
# The kinds of NumPy's dtypes that are numbers: booleans, integers, unsigned integers and floats.
NUMBER_KINDS = "biuf"
# Above it, as `longdouble` is, a float has no counterpart in the protocol, in bytes.
NUMBER_BYTES_MAX = 8

ONE_ROW = "Rows must be a list of rows, each a list, tuple or dict of values; put a single row into a list."
ARRAY = "An array must have two dimensions, [rows, features]; reshape(1, -1) makes one row of a vector."


class Frame(Protocol):
    """A DataFrame of pandas or polars."""

    @property
    def columns(self) -> Any:  # noqa: ANN401 - an index, or a list of names
        """The names of the columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""


Row = Mapping[str, Any] | Sequence[Any]
if TYPE_CHECKING:
    Rows = Iterable[Row] | Mapping[str, Any] | Frame | np.ndarray[Any, Any]


class RowTable(NamedTuple):
    """Rows that are ready to be encoded.

    Attributes:
        member: `inputs` with columns by name, or `instances` with rows.
        columns: The columns of `inputs`, all of one length.
        instances: The rows of `instances`.
        row_count: The number of rows.
        array: The rows as a NumPy array of numbers [rows, features], if they came as one.
        has_numpy: Whether the rows came in NumPy's or pandas' form, so that answers do too.
    """

    member: str
    columns: dict[str, list[Any]]
    instances: list[Any]
    row_count: int
    array: Any = None
    has_numpy: bool = False

    def request_rows(self) -> int:
        """Return how many of the rows are sent in one request to predict."""
        if self.array is not None:
            width = int(self.array.shape[1])
        elif self.member == "inputs":
            width = len(self.columns)
        else:
            width = len(self.instances[0]) if isinstance(self.instances[0], Sized) else 1
        return min(PREDICT_ROWS_MAX, max(1, PREDICT_VALUES_MAX // max(1, width)))

    def part(self, start: int, stop: int) -> RowTable:
        """Return some of the rows as a table."""
        stop = min(stop, self.row_count)
        return self._replace(
            columns={name: values[start:stop] for name, values in self.columns.items()},
            instances=self.instances[start:stop],
            array=None if self.array is None else self.array[start:stop],
            row_count=stop - start,
        )

    def members(self) -> dict[str, Any]:
        """Return the rows as the member of a request."""
        if self.member == "inputs":
            return {"inputs": self.columns}
        return {"instances": self.instances if self.array is None else self.array.tolist()}


def table_of(rows: Rows) -> RowTable:
    """Return rows in any form as a table.

    Raises:
        InputError: They are no rows, or there are none.
    """
    table = _table_of(rows)
    if not table.row_count:
        raise InputError("There are no rows.")
    return table


def _table_of(rows: Any) -> RowTable:  # noqa: ANN401 - any object that a caller passes
    if type(rows) is not list:
        if has_class(rows, ("numpy",), "ndarray"):
            return _array_table(rows)
        if has_class(rows, ("pandas",), "DataFrame"):
            columns = pandas_columns(rows)
            if columns is None:
                return RowTable("instances", {}, pandas_rows(rows), len(rows), has_numpy=True)
            return RowTable("inputs", columns, [], len(rows), has_numpy=True)
        if has_class(rows, ("polars",), "DataFrame"):
            return RowTable("inputs", polars_columns(rows), [], len(rows))
        if has_class(rows, ("polars",), "LazyFrame"):
            raise InputError("A LazyFrame has no rows yet; call its method collect().")
        if isinstance(rows, Mapping):
            return RowTable("instances", {}, [rows], 1)
        if (
            isinstance(rows, (str, bytes))
            or not isinstance(rows, Iterable)
            or has_class(rows, ("pandas", "polars"), "Series")
        ):
            raise InputError(ONE_ROW)
        rows = list(rows)
    if rows and (isinstance(rows[0], (str, bytes, int, float)) or rows[0] is None):
        raise InputError(ONE_ROW)
    return RowTable("instances", {}, rows, len(rows))


def _array_table(array: Any) -> RowTable:  # noqa: ANN401 - a NumPy array
    if array.ndim != 2:  # noqa: PLR2004 - the sentence says it
        raise InputError(ARRAY)
    is_numeric = array.dtype.kind in NUMBER_KINDS and array.dtype.itemsize <= NUMBER_BYTES_MAX
    if is_numeric:
        return RowTable("instances", {}, [], len(array), array, has_numpy=True)
    return RowTable("instances", {}, array.tolist(), len(array), has_numpy=True)


def list_of(values: Any) -> list[Any]:  # noqa: ANN401 - labels, ids or weights in any form
    """Return labels, weights, tokens or ids as a list; they may be an array or a series.

    Raises:
        InputError: They are no list.
    """
    if has_class(values, ("numpy",), "ndarray"):
        # Python's values are encoded faster than NumPy's; an array without dimensions is one value.
        values = values.tolist()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InputError("Labels, weights, tokens, ids and names of classes must be lists.")
    return list(values)
