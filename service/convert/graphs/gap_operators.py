"""Operators that fill gaps, choose by a gap or a category, or cut numbers to an interval."""

from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import NumberBlock, SymbolicBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.columns.table_blocks import OneHotBlock, TableBlock
from service.convert.graphs.graph_values import Columns, Constant, Value, check_finite
from service.convert.graphs.level_blocks import apply_function
from service.convert.graphs.node_reading import Call
from service.softmax.arrays import Doubles

# Cells of a table of one category, 32 MiB.
TABLE_CELLS_MAX: Final = 1 << 22


def imputer(call: Call) -> Value:
    """Put numbers in the place of missing ones."""
    value, fills = call.columns(), call.numbers("imputed_value_floats")
    if fills is None or not np.isnan(call.number("replaced_value_float", 0.0)):
        raise ColumnError("it replaces other values than missing numbers")
    if len(fills) not in {1, value.width}:
        raise ColumnError("its numbers do not fit the columns")
    check_finite(fills)
    filled = value.take_numbers().fill_missing(np.broadcast_to(fills, (value.width,)).astype(np.float64))
    return value.with_matrix(filled)


def is_missing(call: Call) -> Value:
    """Mark missing numbers."""
    value = call.columns()
    matrix = value.take_numbers()
    return Columns(matrix.mark_missing(), value.tail, onnx.TensorProto.BOOL, gaps_of=matrix)


def where(call: Call) -> Value:
    """Put a constant in the place of missing numbers, or of some categories."""
    condition, constant, value = call.columns(0), call.constant(1), call.columns(2)
    if constant is None:
        raise ColumnError("it chooses between two values of the row")
    matrix, numbers, tail = value.broadcast(constant)
    blocks: list[SymbolicBlock] = []
    for block, (start, end) in zip(matrix.blocks, matrix.bounds, strict=True):
        part = numbers[start:end]
        if condition.gaps_of is not None and isinstance(block, NumberBlock):
            blocks.append(_fill(block, condition.gaps_of, part))
        else:
            blocks.append(_choose(block, condition.matrix, part))
    return Columns(SymbolicMatrix(tuple(blocks)), tail, value.datatype, is_cut=value.is_cut)


def clip(call: Call) -> Value:
    """Cut columns to an interval."""
    value = call.columns()
    low, high = (call.constant(place, name) for place, name in ((1, "min"), (2, "max")))
    ends = [np.array(-np.inf) if low is None else low, np.array(np.inf) if high is None else high]
    return _cut(value, *ends)


def largest(call: Call) -> Value:
    """Return max(z, 0), or cut columns from below."""
    value, constant = _columns_and_constant(call)
    if not constant.any():
        return value.with_matrix(apply_function("relu", value.take_numbers()))
    return _cut(value, constant, np.array(np.inf))


def smallest(call: Call) -> Value:
    """Return min(z, 0), or cut columns from above."""
    value, constant = _columns_and_constant(call)
    if not constant.any():
        return value.with_matrix(apply_function("min_0", value.take_numbers()))
    return _cut(value, np.array(-np.inf), constant)


def _columns_and_constant(call: Call) -> tuple[Columns, Constant]:
    one, other = (call.values[place] if place < len(call.values) else None for place in (0, 1))
    if isinstance(one, Columns) and isinstance(other, np.ndarray):
        return one, other
    if isinstance(other, Columns) and isinstance(one, np.ndarray):
        return other, one
    raise ColumnError("it compares two values of the row")


def _cut(value: Columns, low: Constant, high: Constant) -> Columns:
    matrix, lows, tail = value.broadcast(low)
    _, highs, _ = value.broadcast(high)
    return value.with_matrix(matrix.clip(lows, highs), tail)


def _fill(block: NumberBlock, gaps_of: SymbolicMatrix, numbers: Doubles) -> NumberBlock:
    """Return numbers with a constant where they are missing; NaN refuses a missing one.

    The gaps are those of the same values, or of one number of a vector, which stands for all.
    """
    gaps = [index for one in gaps_of.blocks if isinstance(one, NumberBlock) for index in one.indices.tolist()]
    if len(gaps) == 1 and np.isnan(numbers).all():
        return replace(block, missing=numbers)
    if len(gaps_of.blocks) != 1 or gaps[: block.width] != block.indices.tolist():
        raise ColumnError("it replaces numbers where other ones are missing")
    return replace(block, missing=numbers)


def _choose(block: SymbolicBlock, condition: SymbolicMatrix, numbers: Doubles) -> SymbolicBlock:
    """Return functions of a category with a constant where a condition on that category holds."""
    test = condition.blocks[0] if len(condition.blocks) == 1 and condition.width == 1 else None
    if isinstance(test, OneHotBlock):
        holds = test.columns == 0
    elif isinstance(test, TableBlock):
        holds = test.scaled_table[:, 0] != 0
    else:
        raise ColumnError("its condition is neither a gap nor a category")
    if not isinstance(block, OneHotBlock | TableBlock):
        raise ColumnError("it chooses values by a category that they are no function of")
    if (block.reading.place, block.reading.values) != (test.reading.place, test.reading.values):
        raise ColumnError("it chooses values by a category that they are no function of")
    unknown, missing = bool(holds[-2]), bool(holds[-1])
    if isinstance(block, OneHotBlock) and np.isnan(numbers).all() and not holds[:-2].any():
        reading = block.reading
        return replace(
            block,
            reading=reading._replace(
                refuses_unknown=reading.refuses_unknown or unknown,
                refuses_missing=reading.refuses_missing or missing,
            ),
        )
    return _replace_rows(block, holds, numbers)


def _replace_rows(block: OneHotBlock | TableBlock, holds: NDArray[np.bool_], numbers: Doubles) -> TableBlock:
    """Return a block as a table with these numbers in the rows that hold."""
    rows, n = len(block.reading.rows), block.width
    if rows * n > TABLE_CELLS_MAX:
        raise ColumnError("it chooses from a table that is too large")
    if isinstance(block, TableBlock):
        table = block.scaled_table
    else:
        ones = np.zeros((rows, n + 1))
        ones[np.arange(rows), block.columns] = 1
        table = ones[:, :-1] * block.factor + block.shift
    return TableBlock(block.reading, np.where(holds[:, None], numbers, table), np.ones(n), np.zeros(n))
