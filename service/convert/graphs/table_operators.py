"""Operators on categories: tables, one column for each category, and comparisons."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from service.convert.columns.category_reading import read_category, to_category
from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import CategoryReading, NumberBlock, SymbolicBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.columns.table_blocks import OneHotBlock, TableBlock
from service.convert.graphs.field_nodes import MISSING_INTEGER, MISSING_TEXT
from service.convert.graphs.gap_operators import TABLE_CELLS_MAX
from service.convert.graphs.graph_parser import ROW_VALUES_MAX
from service.convert.graphs.graph_values import INTEGERS, Columns, Reduction, Value, check_finite
from service.convert.graphs.node_reading import Call
from service.softmax.arrays import Integers

# What `LabelEncoder` returns for other keys if it does not say (ONNX's specification of ai.onnx.ml).
DEFAULT_INTEGER: Final = -1
DEFAULT_FLOAT: Final = -0.0


def label_encoder(call: Call) -> Value:
    """Return the number that a table has for each category."""
    value = call.columns()
    keys = _read_keys(call)
    numbers = _read_first(call, ("values_int64s", "values_floats", "values_tensor"))
    if numbers is None or len(numbers) != len(keys):
        raise ColumnError("it has no table from categories to numbers")
    default = _read_default(call)
    if numbers.dtype == np.object_:
        raise ColumnError("its table is not one of numbers")
    check_finite(numbers, np.array(default))
    blocks = []
    for column in _each_column(value):
        reading, found = _read(column, value, keys)
        # Of a row of the encoder: the number of its category, or the default.
        table = np.array([*numbers.tolist(), default])[np.where(found < 0, len(keys), found)]
        blocks.append(TableBlock.of_table(_plain(reading), table[:, None]))
    return Columns(SymbolicMatrix(tuple(blocks)), value.tail, onnx.TensorProto.DOUBLE)


def one_hot_encoder(call: Call) -> Value:
    """Return a column for each category, which is 1 where the value is that category."""
    value = call.columns()
    texts, numbers = call.texts("cats_strings"), call.numbers("cats_int64s")
    keys: list[Any] = texts if texts is not None else [] if numbers is None else numbers.tolist()
    if not keys or len(keys) * value.width > ROW_VALUES_MAX:
        raise ColumnError(f"it has no categories, or more than {ROW_VALUES_MAX} columns")
    refuses = not call.whole("zeros", 1)
    blocks = []
    for column in _each_column(value):
        reading, found = _read(column, value, keys, refuses_unknown=refuses)
        blocks.append(OneHotBlock.of_columns(_plain(reading), found, len(keys)))
    tail = (*value.tail[:-1], len(keys)) if value.tail[-1:] == (1,) else (*value.tail, len(keys))
    return Columns(SymbolicMatrix(tuple(blocks)), tail, onnx.TensorProto.FLOAT)


def equal(call: Call) -> Value:
    """Compare a category with constants."""
    value, constant = call.columns(0 if isinstance(call.values[0], Columns) else 1), None
    for place in range(len(call.values)):
        constant = call.values[place] if isinstance(call.values[place], np.ndarray) else constant
    if not isinstance(constant, np.ndarray) or value.width != 1 or value.tail not in {(), (1,)}:
        raise ColumnError("it compares something else than a category with constants")
    keys = constant.ravel().tolist()
    if len(set(keys)) < len(keys):
        raise ColumnError("it compares a category with one constant twice")
    reading, found = _read(value.matrix.blocks[0], value, keys)
    block = OneHotBlock.of_columns(_plain(reading), found, len(keys))
    return Columns(SymbolicMatrix((block,)), (len(keys),), onnx.TensorProto.BOOL)


def invert_flags(call: Call) -> Value:
    """Return 1 - x of flags."""
    value = call.values[0] if call.values else None
    if isinstance(value, Reduction) and value.kind == "is_not_zero":
        return Reduction("is_zero", value.matrix)
    flags = call.columns()
    if flags.datatype != onnx.TensorProto.BOOL:
        raise ColumnError("its input is not a boolean")
    n = flags.width
    return flags.with_matrix(flags.matrix.scale(np.full(n, -1.0), np.ones(n)))


def read_flag(block: SymbolicBlock) -> TableBlock:
    """Return a boolean of a row as a number: 1 for true."""
    reading = read_category(block, [True])
    return TableBlock.of_table(reading, np.array([[1.0], [0.0], [0.0]]))


def _plain(reading: CategoryReading) -> CategoryReading:
    """Return a reading whose rows are those of a table that is made for it."""
    return reading._replace(rows=np.arange(len(reading.rows)))


def _each_column(value: Columns) -> list[SymbolicBlock]:
    """Return each column as a block."""
    if not value.width:
        raise ColumnError("it has no columns")
    return [value.matrix.select([i]).blocks[0] for i in range(value.width)]


def _read(
    block: SymbolicBlock, value: Columns, keys: Sequence[Any], *, refuses_unknown: bool = False
) -> tuple[CategoryReading, Integers]:
    """Return how a column is one of the keys of an operator, and the key of each row of the reading, -1 for none.

    A missing text is the empty one, and a missing whole number the least one. Gaps of a float have no whole number.
    """
    places: dict[Any, int] = {}
    for place, key in enumerate(keys):
        if key in places:
            raise ColumnError("it has one category twice")
        places[key] = place
    is_text = value.datatype == onnx.TensorProto.STRING
    gap = MISSING_TEXT if is_text else MISSING_INTEGER if value.datatype in INTEGERS and not value.is_cut else None
    listed = [key for key in keys if not (_is_nan(key) or (key == MISSING_INTEGER and not is_text))]
    if isinstance(block, TableBlock):
        reading = read_category(block, [to_category(key) for key in listed], refuses_unknown=refuses_unknown)
        rows = np.array([*(places[key] for key in listed), -1, -1], np.int64)
        return reading, rows[reading.rows]
    if not isinstance(block, NumberBlock):
        raise ColumnError("its input is not a category")
    if value.is_cut and block.missing[0] == float(MISSING_INTEGER):
        block, gap = replace(block, missing=np.full(1, np.nan)), MISSING_INTEGER
    missing = places.get(gap, -1) if gap is not None else next((places[key] for key in keys if _is_nan(key)), -1)
    is_float = not is_text and gap is None
    refuses_gap = (refuses_unknown and missing < 0) or (is_float and missing < 0)
    reading = read_category(
        block, [to_category(key) for key in listed], refuses_unknown=refuses_unknown, refuses_missing=refuses_gap
    )
    found = np.array([*(places[key] for key in listed), -1, missing], np.int64)
    if gap == MISSING_TEXT and missing >= 0:
        reading = reading._replace(fill=MISSING_TEXT)
    if reading.rows[-1] != len(listed) + 1:
        # A number stands for a missing one.
        found[-1] = found[reading.rows[-1]]
    return reading, found


def _is_nan(key: object) -> bool:
    return isinstance(key, float) and np.isnan(key)


def _read_keys(call: Call) -> list[Any]:
    texts = call.texts("keys_strings")
    if texts is not None:
        return texts
    keys = _read_first(call, ("keys_int64s", "keys_floats", "keys_tensor"))
    if keys is None:
        raise ColumnError("it has no table from categories to numbers")
    return list(keys.tolist())


def _read_first(call: Call, names: Sequence[str]) -> NDArray[Any] | None:
    """Return the first of several attributes that the node has, flat."""
    for name in names:
        value = call.node.attributes.get(name)
        if isinstance(value, np.ndarray):
            if len(value.ravel()) > TABLE_CELLS_MAX:
                raise ColumnError("its table is too large")
            return value.ravel()
    return None


def _read_default(call: Call) -> float:
    """Return the number for other categories."""
    tensor = call.node.attributes.get("default_tensor")
    if isinstance(tensor, np.ndarray) and tensor.size == 1 and tensor.dtype != np.object_:
        return float(tensor.ravel()[0])
    if "values_floats" in call.node.attributes:
        return call.number("default_float", DEFAULT_FLOAT)
    return float(call.whole("default_int64", DEFAULT_INTEGER))
