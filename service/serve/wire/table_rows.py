"""Convert tables to rows of a model: the columns have the names of its features, in any order.

    instances   [[5.1, 3.5, 1.4, 0.2], {"petal width (cm)": 0.2, ...}, {"features": [5.1, 3.5, 1.4, 0.2]}, {"b64": "…"}]
    columns     {"petal width (cm)": [0.2, 2.3], ...}; or {"features": [[5.1, 3.5, 1.4, 0.2], ...]}
    split       {"columns": ["petal width (cm)", ...], "data": [[0.2, ...], ...], "index": ignored}

The first two are those of TensorFlow Serving, which names its tensors; the last is that of pandas and MLflow. Rows in
base64 (base64_rows.py) are Softstep's own.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.errors import UnacceptableError
from service.serve.wire.base64_rows import decode_rows, find_texts
from service.serve.wire.csv_rows import parse_csv
from service.serve.wire.feature_columns import VECTOR, FeatureColumns
from service.serve.wire.json_grammar import NUMBER_TYPES, check_row_count, list_names
from service.serve.wire.large_matrix import parse_table
from service.serve.wire.rows import RowParser, explain_row
from service.serve.wire.table_grammar import check_rows, read_split
from service.softmax.arrays import Doubles, Floats


class TableParser:
    """Converts the tables of one model. Each method returns X (B, N) in the model's dtype.

    Args:
        rows: The parser of the model's rows.
        features: The names of the model's features.

    Attributes:
        rows: The parser of the model's rows.
        columns: The model's features by name.
        dtype: The model's dtype.
        n_features: The number N of features of a row.
        nan_is_missing: Whether NaN, which is not JSON, is a missing value: not for a model without fields.
        rows_max: The limit of rows of a request.
        container_rows_max: The limit of rows whose lists and objects a body may have.
        depth_max: The limit of nesting of a body.
        parse_usual: Parses a body with nothing but instances; returns None if unsure.
    """

    def __init__(self, rows: RowParser, features: Sequence[str]) -> None:
        self.rows: Final = rows
        self.columns: Final = FeatureColumns(features)
        self.dtype: Final = rows.dtype
        self.n_features: Final = rows.n_features
        self.nan_is_missing: Final = False
        self.rows_max: Final = rows.rows_max
        self.container_rows_max: Final = rows.rows_max
        self.depth_max: Final = rows.depth_max
        self.parse_usual: Final = rows.parse_usual

    def parse_document(self, body: bytes, rows_max: int) -> dict[str, Any]:
        """Parse a JSON object; a large matrix of rows in it may be an array, which the other methods take.

        Args:
            body: The bytes.
            rows_max: The limit of rows, which limits the number of lists and objects.

        Raises:
            MalformedError: The body cannot be parsed.
            TooLargeError: The body has too many lists and objects.
        """
        return parse_table(body, self.rows, rows_max)

    def count_values(self) -> None:
        """Do nothing: rows of numbers have no missing values."""

    def parse_csv(self, body: bytes, *, header: bool | None = None) -> Floats:
        """Parse a CSV text; see `csv_rows.parse_csv`."""
        return parse_csv(body, self.rows, self.columns, header=header)

    def convert_instances(self, instances: object, field: str = "instances") -> Floats:
        """Convert a parsed list of rows, each a list of numbers or an object.

        Args:
            instances: Any JSON value, or the array that `parse_table` made of it.
            field: The name of the field that has it.

        Raises:
            UnacceptableError: It is not a list of at least one row of this model.
            TooLargeError: There are more rows than the limit.
        """
        if isinstance(instances, np.ndarray):
            return instances
        rows = check_rows(instances, field, self.rows.rows_max)
        kinds = set(map(type, rows))
        if kinds == {dict}:
            values = self.columns.order_records(rows)
            X = self._decode_rows(rows) if values is None else self.rows.gather_rows(values)
            if X is not None:
                return X
        if dict in kinds:
            order = self.columns.order_record
            rows = [order(row, i) if type(row) is dict else row for i, row in enumerate(rows)]
        return self.rows.convert_rows(rows, self.columns.names)

    def convert_columns(self, columns: dict[str, Any]) -> Floats:
        """Convert an object of columns, each a list of one number for each row.

        Raises:
            UnacceptableError: The columns are not the features, or do not have as many numbers as each other.
            TooLargeError: There are more rows than the limit.
        """
        if columns.keys() == {VECTOR} and not self._is_column(columns[VECTOR]):
            return self.convert_instances(columns[VECTOR], VECTOR)
        values, names = list(columns.values()), self.columns.names
        lists = [values[place] for place in self.columns.find_order(columns)]
        sizes = [len(column) if type(column) is list else 0 for column in lists]
        if not all(sizes):
            raise UnacceptableError(f"Each column must be a list of at least one number{_first(names, sizes, 0)}.")
        check_row_count(max(sizes), self.rows.rows_max)
        # The matrix is no larger than the body only if each column has all its rows.
        if min(sizes) < max(sizes):
            raise UnacceptableError(
                f"Columns must have as many numbers as each other{_first(names, sizes, min(sizes))}."
            )
        X = np.empty((sizes[0], len(names)))
        for j, column in enumerate(lists):
            X[:, j] = _convert_column(column, names[j])
        return self.rows.cast_values(X)

    def convert_split(self, frame: object, field: str) -> Floats:
        """Convert an object with the names of the columns and the rows.

        Args:
            frame: Any JSON value; its rows may be the array that `parse_table` made of them.
            field: The name of the field that has it.

        Raises:
            UnacceptableError: It is not such an object, or the columns are not the features.
            TooLargeError: There are more rows than the limit.
        """
        fields = read_split(frame, field)
        columns, data = fields.get("columns", list(self.columns.names)), fields.get("data")
        if type(columns) is not list:
            raise UnacceptableError('"columns" must be a list of names.')
        order = self.columns.find_order(columns)
        if not isinstance(data, np.ndarray):
            rows = check_rows(data, "data", self.rows.rows_max)
            data = self.rows.convert_rows(rows, self.columns.names_in(order))
        return np.take(data, order, axis=1)

    def _decode_rows(self, records: list[dict[str, Any]]) -> Floats | None:
        """Return X (B, N) of objects with base64, or None if they are not rows of one type."""
        texts = find_texts(records)
        decoded = None if texts is None else decode_rows(texts, self.rows.n_features)
        return None if decoded is None else self.rows.cast_values(np.frombuffer(*decoded).reshape(len(records), -1))

    def _is_column(self, value: object) -> bool:
        """Return whether the value of "features" is the column of a feature with that name."""
        return VECTOR in self.columns.names and type(value) is list and list not in map(type, value)


def _first(names: Sequence[str], sizes: Sequence[int], size: int) -> str:
    """Return the name of the first column of a size, after a comma."""
    return list_names([names[sizes.index(size)]])


def _convert_column(column: list[Any], name: str) -> Doubles:
    """Return (B,) float64 of a list of numbers, or of rows of one number each.

    Raises:
        UnacceptableError: A value is not a number.
    """
    if list in set(map(type, column)):
        column = [row[0] if type(row) is list and len(row) == 1 else row for row in column]
    if not NUMBER_TYPES.issuperset(map(type, column)):
        place = next(i for i, value in enumerate(column) if type(value) not in NUMBER_TYPES)
        raise explain_row(place, [column[place]], [name])
    return np.array(column, np.float64)
