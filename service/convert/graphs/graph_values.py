"""The values of a graph, as functions of a row.

Constant         an array of the file, or what operators made of such arrays
Columns          columns of a symbolic matrix
Reduction        one number of a row, made of all columns: their sum, or the logarithm of the sum of their powers
Probabilities    what a head makes of logits
ClassNames           the classes, as a label chooses one of them
Named            probabilities whose columns a node has named
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.graphs.graph_parser import ROW_VALUES_MAX
from service.softmax.arrays import Doubles

Constant = NDArray[Any]
FLOATS: Final = frozenset((onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE))
INTEGERS: Final = frozenset((onnx.TensorProto.INT32, onnx.TensorProto.INT64))
# The numbers of a constant that operators make.
NUMBERS_MAX: Final = 1 << 24


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a symbolic matrix.

    Attributes:
        matrix: The matrix.
        tail: The shape after the rows, whose product is the width: (), (W,) or (1, W).
        datatype: The type, as ONNX numbers it.
        gaps_of: The matrix whose missing values these columns mark, or None.
        sum_of: The matrix of which this column is the sum of all columns, or of their sizes; or None.
        is_cut: Whether numbers were cut to whole ones, so that they may only be categories.
    """

    matrix: SymbolicMatrix
    tail: tuple[int, ...]
    datatype: int
    gaps_of: SymbolicMatrix | None = None
    sum_of: SymbolicMatrix | None = None
    is_cut: bool = False

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.matrix.width

    def take_numbers(self) -> SymbolicMatrix:
        """Return the matrix to compute with.

        Raises:
            ColumnError: It has texts, or numbers that were cut to whole ones.
        """
        if self.datatype == onnx.TensorProto.STRING:
            raise ColumnError("a text is used as a number")
        if self.is_cut:
            raise ColumnError("a number is cut to a whole one")
        return self.matrix

    def with_matrix(self, matrix: SymbolicMatrix, tail: tuple[int, ...] | None = None) -> "Columns":
        """Return columns of the same type, of another matrix."""
        return Columns(matrix, self.tail if tail is None else tail, self.datatype)

    def reshape(self, tail: tuple[int, ...]) -> "Columns":
        """Return the same columns in another shape."""
        return replace(self, tail=tail)

    def broadcast(self, constant: Constant) -> tuple[SymbolicMatrix, Doubles, tuple[int, ...]]:
        """Return columns and a constant of one width, and their shape.

        Raises:
            ColumnError: Their shapes do not fit, or the constant has a number for each row.
        """
        matrix = self.take_numbers()
        shape = constant.shape
        if len(shape) > len(self.tail):
            if len(shape) > len(self.tail) + 1 or shape[0] != 1:
                raise ColumnError("a constant has more dimensions than a row")
            shape = shape[1:]
        try:
            tail = np.broadcast_shapes(self.tail, shape)
        except ValueError:
            raise ColumnError("a constant does not fit the columns") from None
        if np.prod(tail) > ROW_VALUES_MAX:
            raise ColumnError(f"there are more than {ROW_VALUES_MAX} columns")
        if tail != self.tail:
            places = np.broadcast_to(np.arange(self.width).reshape(self.tail), tail)
            matrix = matrix.select(places.ravel())
        return matrix, np.broadcast_to(constant.reshape(shape), tail).astype(np.float64).ravel(), tail


@dataclass(frozen=True, eq=False)
class Reduction:
    """One number of a row that is not linear in its columns.

    Attributes:
        kind: The logarithm of the sum of e^z of the columns; or whether their sum is 0.
        matrix: The columns.
    """

    kind: Literal["log_sum_exp", "is_zero", "is_not_zero"]
    matrix: SymbolicMatrix


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The output of a head.

    Attributes:
        kind: "softmax"; "log_softmax", its logarithm; or "normalized", the logistic function divided by its sum.
        logits: The logits.
    """

    kind: Literal["softmax", "log_softmax", "normalized"]
    logits: SymbolicMatrix


@dataclass(frozen=True)
class ClassNames:
    """The names of the classes, as a label chooses one of them; none while only the number of the class is known."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Named:
    """Probabilities whose columns are named, as a list of maps."""

    value: "Value"
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Thresholded:
    """Whether each probability reaches a threshold."""

    thresholds: Doubles


Value = Constant | Columns | Reduction | Probabilities | ClassNames | Named | Thresholded | None


def check_finite(*numbers: Doubles) -> None:
    """Raise ColumnError if one of the numbers is not finite."""
    if not all(np.isfinite(part).all() for part in numbers):
        raise ColumnError("a weight is not finite")


def note_scaling(matrix: SymbolicMatrix) -> None:
    """Note how plain numbers are scaled before they are mixed, for their fields."""
    for block in matrix.blocks:
        if isinstance(block, NumberBlock):
            scaled = (block.factor != 0) & np.isinf(block.low) & np.isinf(block.high)
            changed = scaled & ((block.factor != 1) | (block.shift != 0))
            if changed.any():
                part = block.select(np.flatnonzero(changed))
                part.inputs.note_scaling(part.indices, -part.shift / part.factor, np.abs(1 / part.factor))


def name_classes(names: Any) -> tuple[str, ...]:  # noqa: ANN401  # an array or a list
    """Return the names of classes, which may be numbers."""
    listed = names.ravel().tolist() if isinstance(names, np.ndarray) else list(names)
    return tuple(str(int(name)) if isinstance(name, float) and name.is_integer() else str(name) for name in listed)
