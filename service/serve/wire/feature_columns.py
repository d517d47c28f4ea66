"""Find the columns of a table by the names of a model's features.

A table has each feature once, in any order. Columns without names, which pandas numbers from 0, are those of the
features in their order. A row may also be an object: a value for each feature by its name, or its whole vector in a
form of TensorFlow Serving or SageMaker, or in base64 (base64_rows.py):

    {"features": [5.1, 3.5, 1.4, 0.2]}
    {"data": {"features": {"values": [5.1, 3.5, 1.4, 0.2]}}}
    {"b64": "MzOjQAAAYEAzM7M/zcxMPg=="}
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import numpy as np

from service.errors import UnacceptableError
from service.serve.wire.base64_rows import KEY, decode_row
from service.serve.wire.json_grammar import NAMES_LOOKED_AT_MAX, list_names

# The whole input of a model by one name, which is also that of its tensor in both kinds of metadata.
VECTOR: Final = "features"


class FeatureColumns:
    """The features of one model, by name.

    Args:
        names: The names of the features, in the order of a row.

    Attributes:
        names: The same names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names: Final = tuple(names)
        self._known: Final = frozenset(names)
        first = self.names[0]
        # With one name, `itemgetter` returns the value itself in place of a tuple.
        self._pick: Final[Callable[[dict[str, Any]], tuple[Any, ...]]] = (
            itemgetter(*names) if len(names) > 1 else lambda record: (record[first],)
        )
        self._positions: Final = [str(i) for i in range(len(self.names))]

    def find_order(self, columns: Iterable[object], subject: str = "The body") -> list[int]:
        """Return the place of each feature among the columns of a table.

        Args:
            columns: The names or numbers of the columns.
            subject: What has these columns, for an error.

        Raises:
            UnacceptableError: A column is missing, unknown or repeated, or its name is not a string.
        """
        found = [str(name) if type(name) is int else name for name in columns]
        texts = [name for name in found if type(name) is str]
        if len(texts) < len(found):
            raise UnacceptableError(f"{subject} has a column whose name is not a string.")
        order = self.match(texts)
        if order is not None:
            return order
        raise UnacceptableError(f"{subject} {self._explain(texts)}; columns have the names of the model's features.")

    def match(self, columns: Sequence[str]) -> list[int] | None:
        """Return the place of each feature among the columns of a table, or None if they are not the features."""
        if len(columns) == len(self.names):
            places = {name: place for place, name in enumerate(columns)}
            if places.keys() == self._known:
                return [places[name] for name in self.names]
            if columns == self._positions:
                return list(range(len(columns)))
        return None

    def names_in(self, order: Sequence[int]) -> list[str]:
        """Return the feature of each column of a table; `find_order` made `order`."""
        return [self.names[feature] for feature in np.argsort(order)]

    def order_records(self, records: list[dict[str, Any]]) -> list[tuple[Any, ...]] | None:
        """Return the values of rows that are objects with each feature; None if a feature is missing or unknown."""
        if set(map(len, records)) != {len(self.names)}:
            return None
        try:
            return list(map(self._pick, records))
        except KeyError:
            return None

    def order_record(self, record: dict[str, Any], i: int) -> list[Any]:
        """Return the values of row `i`, an object, in the order of the features; or its vector.

        Raises:
            UnacceptableError: A feature is missing or unknown, or base64 is not a row.
        """
        text = record.get(KEY)
        if type(text) is str and len(record) == 1:
            return decode_row(text.encode(), i, len(self.names))
        vector = find_vector(record)
        if vector is not None and VECTOR not in self._known:
            return vector
        if record.keys() == self._known:
            values = [record[name] for name in self.names]
        else:
            items = list(record.values())
            values = [items[place] for place in self.find_order(record, f"Row {i}")]
        if list in map(type, values):  # clients of TensorFlow Serving send a number as a tensor of shape [1]
            values = [value[0] if type(value) is list and len(value) == 1 else value for value in values]
        return values

    def _explain(self, columns: Sequence[str]) -> str:
        """Return what is wrong with columns that are not the features."""
        repeated = [name for name, count in Counter(columns).items() if count > 1]
        if repeated:
            return f"has a column twice{_quote(repeated)}"
        given, parts = set(columns), []
        unknown = [name for name in columns if name not in self._known]
        missing = [name for name in self.names if name not in given]
        if unknown:
            several = "an unknown column" if len(unknown) == 1 else f"{len(unknown)} unknown columns"
            parts.append(f"has {several}{_quote(unknown)}")
        if missing:
            several = "a column" if len(missing) == 1 else f"{len(missing)} columns"
            parts.append(f"lacks {several}{list_names(missing)}")
        return ", and ".join(parts)


def _quote(names: Iterable[str]) -> str:
    """Return a client's names for an error; not those that are numbers, which may be values in a supposed header."""
    return list_names(name for name in islice(names, NAMES_LOOKED_AT_MAX) if not is_number(name))


def is_number(text: str) -> bool:
    """Return whether a text is a number, finite or not."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_vector(record: dict[str, Any]) -> list[Any] | None:
    """Return the vector of an object that has nothing else, or None."""
    inner = record.get("data", record)
    if len(record) > 1 or type(inner) is not dict or len(inner) != 1:
        return None
    vector = inner.get(VECTOR)
    if type(vector) is dict and len(vector) == 1:
        vector = vector.get("values")
    return vector if type(vector) is list else None
