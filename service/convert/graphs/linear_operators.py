"""Operators that are linear in the columns."""

from collections.abc import Callable
from typing import Final

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.graphs.graph_head import are_opposite, find_logistic
from service.convert.graphs.graph_values import (
    Columns,
    Constant,
    Probabilities,
    Reduction,
    Value,
    check_finite,
    note_scaling,
)
from service.convert.graphs.level_blocks import SumBlock, apply_function, find_function
from service.convert.graphs.node_reading import Call
from service.softmax.arrays import Doubles

Numbers = Callable[[Doubles], tuple[Doubles, Doubles]]
MATRIX_DIMENSIONS: Final = 2
PAIR: Final = 2


def add(call: Call) -> Value:
    """Add a constant, or two matrices."""
    one, other = _two(call)
    if isinstance(one, Columns) and isinstance(other, Columns):
        return _sum(one, other)
    if isinstance(one, Columns) and isinstance(other, np.ndarray):
        return _scale(one, other, lambda c: (np.ones_like(c), c))
    if isinstance(other, Columns) and isinstance(one, np.ndarray):
        return _scale(other, one, lambda c: (np.ones_like(c), c))
    # A sum of probabilities that is 0 is replaced by another number, so that dividing by it gives no NaN.
    for value, rest in ((one, other), (other, one)):
        if isinstance(rest, Reduction) and rest.kind == "is_zero" and isinstance(value, Columns | Reduction):
            return value
    raise ColumnError("it adds what is neither columns nor a constant")


def subtract(call: Call) -> Value:
    """Subtract a constant, or two matrices."""
    one, other = _two(call)
    if isinstance(one, Columns) and isinstance(other, np.ndarray):
        return _scale(one, other, lambda c: (np.ones_like(c), -c))
    if isinstance(other, Columns) and isinstance(one, np.ndarray):
        return _scale(other, one, lambda c: (-np.ones_like(c), c))
    if isinstance(one, Columns) and isinstance(other, Reduction) and other.kind == "log_sum_exp":
        if other.matrix is not one.matrix:
            raise ColumnError("it subtracts a number of other columns")
        return Probabilities("log_softmax", one.matrix)
    if isinstance(one, Columns) and isinstance(other, Columns):
        logistic = _find_log_logistic(one.matrix, other.matrix)
        if logistic is not None:
            return one.with_matrix(apply_function("log_logistic", logistic))
        n = other.width
        return _sum(one, other.with_matrix(other.take_numbers().scale(np.full(n, -1.0), np.zeros(n))))
    raise ColumnError("it subtracts what is neither columns nor a constant")


def multiply(call: Call) -> Value:
    """Multiply columns by a constant."""
    one, other = _two(call)
    for value, constant in ((one, other), (other, one)):
        if isinstance(value, Columns) and isinstance(constant, np.ndarray):
            return _scale(value, constant, lambda c: (c, np.zeros_like(c)))
        if isinstance(value, Reduction) and value.kind == "is_zero" and isinstance(constant, np.ndarray):
            return value
    raise ColumnError("it multiplies two values of a row with each other")


def divide(call: Call) -> Value:
    """Divide columns by a constant, or probabilities by their sum."""
    one, other = _two(call)
    if isinstance(one, Columns) and isinstance(other, np.ndarray):
        if not other.all():
            raise ColumnError("it divides by 0")
        return _scale(one, other, lambda c: (1 / c, np.zeros_like(c)))
    if isinstance(one, Columns) and isinstance(other, Columns) and other.sum_of is not None:
        if other.sum_of is not one.matrix:
            raise ColumnError("it divides by the sum of other columns")
        return divide_by_sum(one)
    raise ColumnError("it divides by a value of the row")


def divide_by_sum(value: Columns) -> Value:
    """Return columns divided by their sum; two that are sigma(-z) and sigma(z) have the sum 1."""
    logits = find_logistic(value.take_numbers()) if value.width == PAIR else None
    if logits is not None and are_opposite(logits.select([0]), logits.select([1])):
        return value
    return Probabilities("normalized", value.matrix)


def negate(call: Call) -> Value:
    """Change the sign of columns."""
    value = call.columns()
    return _scale(value, np.array(-1.0), lambda c: (c, np.zeros_like(c)))


def invert(call: Call) -> Value:
    """Return 1 / (1 + e^z), the logistic function of -z."""
    value = call.columns()
    inner = find_function(value.matrix, "exp", 1.0, 1.0)
    if inner is None:
        raise ColumnError("it divides by a value of the row")
    n = inner.width
    logits = inner.scale(np.full(n, -1.0), np.zeros(n))
    return value.with_matrix(apply_function("sigmoid", logits, negative=inner))


def matrix_product(call: Call) -> Value:
    """Multiply by a constant matrix."""
    value, matrix = call.columns(), call.need_constant(1)
    return _mix(value, matrix.astype(np.float64), None)


def affine_product(call: Call) -> Value:
    """Multiply by a constant matrix and add a constant, as `Gemm` does."""
    value, matrix, added = call.columns(), call.need_constant(1), call.constant(2)
    if call.whole("transA", 0):
        raise ColumnError("it exchanges rows and columns")
    if matrix.ndim != MATRIX_DIMENSIONS:
        raise ColumnError("its weights are no matrix")
    weights = (matrix.T if call.whole("transB", 0) else matrix).astype(np.float64) * call.number("alpha", 1.0)
    return _mix(value, weights, None if added is None else added.astype(np.float64) * call.number("beta", 1.0))


def batch_normalization(call: Call) -> Value:
    """Scale columns by the statistics of the training."""
    value = call.columns()
    if call.whole("training_mode", 0):
        raise ColumnError("it computes statistics of several rows")
    scale, shift, mean, variance = (call.need_constant(place).astype(np.float64).ravel() for place in range(1, 5))
    if {len(part) for part in (scale, shift, mean, variance)} != {value.width} or len(value.tail) != 1:
        raise ColumnError("its statistics do not fit the columns")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scale / np.sqrt(variance + call.number("epsilon", 1e-5))
    check_finite(factor, shift, mean)
    return value.with_matrix(value.take_numbers().scale(factor, shift - mean * factor))


def scaler(call: Call) -> Value:
    """Return (x - offset) * scale."""
    value = call.columns()
    offset, scale = (call.numbers(name) for name in ("offset", "scale"))
    if offset is None or scale is None:
        raise ColumnError("it has no offset or no scale")
    centered = _scale(value, offset, lambda c: (np.ones_like(c), -c))
    scaled = _scale(centered, scale, lambda c: (c, np.zeros_like(c)))
    note_scaling(scaled.matrix)
    return scaled


def _two(call: Call) -> tuple[Value, Value]:
    if len(call.values) != MATRIX_DIMENSIONS:
        raise ColumnError("it has other than two inputs")
    return call.values[0], call.values[1]


def _scale(value: Columns, constant: Constant, numbers: Numbers) -> Columns:
    """Return columns times a factor, plus a shift, which `numbers` makes of a constant."""
    if constant.dtype == np.object_:
        raise ColumnError("a text is used as a number")
    matrix, broadcast, tail = value.broadcast(constant)
    check_finite(broadcast)
    return value.with_matrix(matrix.scale(*numbers(broadcast)), tail)


def _sum(one: Columns, other: Columns) -> Columns:
    if one.tail != other.tail:
        raise ColumnError("it adds matrices of different widths")
    return one.with_matrix(SymbolicMatrix((SumBlock.of_matrices(one.take_numbers(), other.take_numbers()),)))


def _mix(value: Columns, matrix: Doubles, shift: Doubles | None) -> Columns:
    if matrix.ndim != MATRIX_DIMENSIONS or len(value.tail) != 1 or matrix.shape[0] != value.width:
        raise ColumnError("its weights do not fit the columns")
    added = np.zeros(matrix.shape[1]) if shift is None else shift
    if added.size not in {1, matrix.shape[1]}:
        raise ColumnError("its bias does not fit the weights")
    check_finite(matrix, added)
    note_scaling(value.take_numbers())
    mixed = value.matrix.mix(matrix, np.broadcast_to(added.ravel(), (matrix.shape[1],)).copy())
    return value.with_matrix(mixed, (matrix.shape[1],))


def _find_log_logistic(one: SymbolicMatrix, other: SymbolicMatrix) -> SymbolicMatrix | None:
    """Return z if the difference of two matrices is min(z, 0) - ln(1 + e^-|z|), which is ln sigma(z); else None."""
    z, powers = find_function(one, "min_0"), find_function(other, "log")
    absolute = None if powers is None else find_function(powers, "exp", 1.0, 1.0)
    same = None if absolute is None else find_function(absolute, "abs", -1.0)
    return z if z is not None and same is z else None
