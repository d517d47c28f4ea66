"""Read the inputs and attributes of a node as an operator needs them."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.convert.columns.raw_inputs import ColumnError
from service.convert.graphs.graph_parser import GraphNode
from service.convert.graphs.graph_values import Columns, Value

MISSING: Final[Any] = object()


class Call(NamedTuple):
    """A node with the values of its inputs."""

    node: GraphNode
    values: tuple[Value, ...]

    def columns(self, place: int = 0) -> Columns:
        """Return an input that is columns.

        Raises:
            ColumnError: It is something else.
        """
        value = self.values[place] if place < len(self.values) else None
        if not isinstance(value, Columns):
            raise ColumnError("its input is not a matrix of columns")
        return value

    def constant(self, place: int, name: str = "") -> NDArray[Any] | None:
        """Return an input that is a constant, or the attribute that earlier opsets have for it; None if it is left out.

        Raises:
            ColumnError: It depends on the row.
        """
        value = self.values[place] if place < len(self.values) else None
        if value is None and name in self.node.attributes:
            value = np.asarray(self.node.attributes[name])
        if value is not None and not isinstance(value, np.ndarray):
            raise ColumnError("an input that must be a constant depends on the row")
        if value is not None and value.dtype == np.object_:
            raise ColumnError("a text is used as a number")
        return value

    def need_constant(self, place: int, name: str = "") -> NDArray[Any]:
        """Return an input that is a constant.

        Raises:
            ColumnError: It is missing, or depends on the row.
        """
        constant = self.constant(place, name)
        if constant is None:
            raise ColumnError("a constant is missing")
        return constant

    def whole(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise ColumnError(f"its attribute {name} is no whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, float | int):
            raise ColumnError(f"its attribute {name} is no number")
        return float(value)

    def numbers(self, name: str) -> NDArray[Any] | None:
        """Return an attribute that is a list of numbers, or None."""
        value = self.node.attributes.get(name)
        if value is not None and not (isinstance(value, np.ndarray) and value.dtype != np.object_):
            raise ColumnError(f"its attribute {name} is no list of numbers")
        return value

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a text."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, str):
            raise ColumnError(f"its attribute {name} is no text")
        return value

    def texts(self, name: str) -> list[str] | None:
        """Return an attribute that is a list of texts, or None."""
        value = self.node.attributes.get(name)
        if value is not None and not isinstance(value, list):
            raise ColumnError(f"its attribute {name} is no list of texts")
        return value

    def axis(self, rank: int, default: int, name: str = "axis") -> int:
        """Return the axis, counted from the front; `rank` counts the rows too."""
        axis = self.whole(name, default)
        return axis + rank if axis < 0 else axis
