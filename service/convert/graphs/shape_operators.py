"""Operators that choose and arrange columns: shapes, selections, types, and arithmetic on constants alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.graphs.graph_parser import DIMENSIONS_MAX, ROW_VALUES_MAX
from service.convert.graphs.graph_session import DTYPES
from service.convert.graphs.graph_values import (
    FLOATS,
    INTEGERS,
    NUMBERS_MAX,
    ClassNames,
    Columns,
    Reduction,
    Value,
    name_classes,
)
from service.convert.graphs.node_reading import Call

CONSTANT_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Sqrt": np.sqrt, "Neg": np.negative,
    "Exp": np.exp, "Log": np.log, "Reciprocal": np.reciprocal, "Abs": np.abs, "Min": np.minimum, "Max": np.maximum,
}  # fmt: skip
TWO: Final = 2


def compute_constant(call: Call) -> NDArray[Any] | None:
    """Return what arithmetic makes of constants alone; None for other operators."""
    arrays = [value for value in call.values if isinstance(value, np.ndarray)]
    function = CONSTANT_FUNCTIONS.get(call.node.operator)
    if function is None or not arrays or len(arrays) < len(call.values) or len(arrays) > TWO:
        return None
    if any(array.dtype == np.object_ for array in arrays):
        raise ColumnError("a text is used as a number")
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        raise ColumnError("two constants do not fit") from None
    if np.prod(shape, dtype=np.float64) > NUMBERS_MAX:
        raise ColumnError("a constant would be too large")
    with np.errstate(all="ignore"):
        return np.asarray(function(*arrays)).astype(arrays[0].dtype)


def identity(call: Call) -> Value:
    """Return the input as it is."""
    return call.values[0] if call.values else None


def constant_node(call: Call) -> Value:
    """Return the value of a node `Constant`."""
    for name, value in call.node.attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in {"value_float", "value_floats"}:
            return np.asarray(value, np.float32)
        if name in {"value_int", "value_ints"}:
            return np.asarray(value, np.int64)
        if name in {"value_string", "value_strings"}:
            return np.asarray(value, np.object_)
    raise ColumnError("it has no value")


def constant_of_shape(call: Call) -> Value:
    """Return a constant of one number, of the shape that another constant has."""
    if call.values and isinstance(call.values[0], Columns):
        # skl2onnx writes it for a selector that keeps the first column alone, and onnxruntime refuses that graph.
        raise ColumnError("its shape is a value of the row; skl2onnx writes it wrongly where only column 0 is selected")
    shape = call.need_constant(0).astype(np.int64).ravel().tolist()
    filling = call.numbers("value")
    number = np.zeros(1, np.float32) if filling is None else filling.ravel()
    if len(shape) > DIMENSIONS_MAX or min(shape, default=1) < 0 or number.size != 1:
        raise ColumnError("its shape or its value cannot be used")
    if np.prod(shape, dtype=np.float64) > NUMBERS_MAX:
        raise ColumnError("a constant would be too large")
    return np.full(shape, number[0], number.dtype)


def cast(call: Call) -> Value:
    """Convert to another type."""
    value, to = identity(call), call.whole("to", 0)
    if isinstance(value, np.ndarray):
        if to not in DTYPES or to == onnx.TensorProto.STRING or value.dtype == np.object_:
            raise ColumnError("a constant is converted to another type than a number")
        with np.errstate(invalid="ignore"):
            return value.astype(DTYPES[to])
    if isinstance(value, Columns) and value.sum_of is not None and to == onnx.TensorProto.BOOL:
        return Reduction("is_not_zero", value.sum_of)
    return _convert(value, to) if isinstance(value, Columns) else value


def _convert(value: Columns, to: int) -> Columns:
    if to == value.datatype:
        return value
    if to in FLOATS and value.datatype != onnx.TensorProto.STRING:
        return replace(value, datatype=to)
    if to in INTEGERS and value.datatype != onnx.TensorProto.STRING:
        return replace(value, datatype=to, is_cut=value.is_cut or value.datatype in FLOATS)
    raise ColumnError("it converts a value of the row to a text or a boolean")


def reshape(call: Call) -> Value:
    """Arrange the columns of each row."""
    value, shape = identity(call), call.need_constant(1, "shape").astype(np.int64).ravel().tolist()
    if isinstance(value, np.ndarray):
        return _arrange(value, shape)
    if not isinstance(value, Columns):
        return value
    return value.reshape(_tail(value, shape))


def flatten(call: Call) -> Value:
    """Put all columns of a row side by side."""
    value = identity(call)
    if not isinstance(value, Columns):
        return value
    if call.axis(len(value.tail) + 1, 1) != 1:
        raise ColumnError("it puts the values of several rows together")
    return value.reshape((value.width,))


def squeeze(call: Call) -> Value:
    """Leave out dimensions of one element."""
    value = identity(call)
    if isinstance(value, np.ndarray):
        return value.squeeze()
    if not isinstance(value, Columns):
        return value
    return value.reshape(tuple(size for size in value.tail if size != 1))


def unsqueeze(call: Call) -> Value:
    """Add dimensions of one element, which changes no column."""
    value = identity(call)
    axes = call.need_constant(1, "axes").astype(np.int64).ravel().tolist()
    if isinstance(value, np.ndarray):
        if len(axes) + value.ndim > DIMENSIONS_MAX:
            raise ColumnError("a constant has too many dimensions")
        return np.expand_dims(value, tuple(axes))
    if isinstance(value, Columns) and len(axes) == 1 and axes[0] not in {0, -(len(value.tail) + TWO)}:
        at = axes[0] - 1 if axes[0] > 0 else axes[0] + len(value.tail) + 1
        return value.reshape((*value.tail[:at], 1, *value.tail[at:]))
    raise ColumnError("it adds a dimension before the rows")


def transpose(call: Call) -> Value:
    """Exchange the dimensions of a constant."""
    value = identity(call)
    if not isinstance(value, np.ndarray):
        raise ColumnError("it exchanges rows and columns")
    order = call.numbers("perm")
    if order is not None and sorted(order.tolist()) != list(range(value.ndim)):
        raise ColumnError("its attribute perm is no order of the dimensions")
    return value.transpose(None if order is None else order.tolist())


def concat(call: Call) -> Value:
    """Put matrices side by side."""
    if all(isinstance(value, np.ndarray) for value in call.values):
        raise ColumnError("it puts constants together")
    parts = [call.columns(place) for place in range(len(call.values))]
    axis = call.axis(len(parts[0].tail) + 1, 1)
    if any(part.tail[:-1] != parts[0].tail[:-1] or not part.tail for part in parts) or axis != len(parts[0].tail):
        raise ColumnError("it puts something else than columns together")
    if np.prod(parts[0].tail[:-1]) != 1:
        raise ColumnError("it puts matrices of each row together")
    width = sum(part.width for part in parts)
    if width > ROW_VALUES_MAX:
        raise ColumnError(f"there are more than {ROW_VALUES_MAX} columns")
    joined = SymbolicMatrix.side_by_side([part.matrix for part in parts])
    is_cut = any(part.is_cut for part in parts)
    return Columns(joined, (*parts[0].tail[:-1], width), parts[0].datatype, is_cut=is_cut)


def gather(call: Call) -> Value:
    """Choose columns, or the name of a class."""
    value, places = identity(call), call.values[1] if len(call.values) > 1 else None
    if isinstance(value, np.ndarray) and isinstance(places, ClassNames):
        return ClassNames(name_classes(value))
    if not isinstance(value, Columns):
        raise ColumnError("it chooses from something else than columns")
    indices = call.need_constant(1)
    if call.axis(len(value.tail) + 1, 0) != len(value.tail) or np.prod(value.tail[:-1]) != 1:
        raise ColumnError("it chooses something else than columns")
    chosen = _select(value, indices.astype(np.int64).ravel())
    return chosen.reshape((*value.tail[:-1], chosen.width) if indices.ndim else value.tail[:-1])


def extract_features(call: Call) -> Value:
    """Choose columns, or the name of a class, as `ArrayFeatureExtractor` does."""
    value, places = identity(call), call.values[1] if len(call.values) > 1 else None
    if isinstance(value, np.ndarray) and isinstance(places, ClassNames):
        return ClassNames(name_classes(value))
    return _select(call.columns(), call.need_constant(1).astype(np.int64).ravel())


def slice_columns(call: Call) -> Value:
    """Choose a range of columns."""
    value = call.columns()
    starts, ends = (call.need_constant(place, name).ravel().tolist() for place, name in ((1, "starts"), (2, "ends")))
    axes, steps = call.constant(3, "axes"), call.constant(4)
    listed = list(range(len(starts))) if axes is None else axes.ravel().tolist()
    step = [1] if steps is None else steps.ravel().tolist()
    if len(listed) != 1 or listed[0] not in {1, -1} or len(value.tail) != 1 or step != [1] or len(ends) != 1:
        raise ColumnError("it chooses something else than columns that follow each other")
    return _select(value, np.arange(value.width)[int(starts[0]) : int(ends[0])])


def split(call: Call) -> tuple[Value, ...]:
    """Choose ranges of columns that follow each other."""
    value, sizes = call.columns(), call.constant(1, "split")
    count = len(call.node.outputs)
    if call.axis(len(value.tail) + 1, 0) != len(value.tail) or np.prod(value.tail[:-1]) != 1:
        raise ColumnError("it splits something else than columns")
    even = -(-value.width // max(count, 1))
    listed = [even] * count if sizes is None else sizes.astype(np.int64).ravel().tolist()
    ends = np.cumsum(listed)
    if len(listed) != count or min(listed, default=-1) < 0 or (sizes is not None and ends[-1] != value.width):
        raise ColumnError("its parts do not fit the columns")
    # A part may have no columns.
    empty = Columns(SymbolicMatrix(()), (0,), value.datatype)
    parts = [
        _select(value, np.arange(end - size, min(end, value.width))) if size else empty
        for size, end in zip(listed, ends, strict=True)
    ]
    return tuple(part.reshape((*value.tail[:-1], part.width)) for part in parts)


def _select(value: Columns, indices: NDArray[np.int64]) -> Columns:
    if not len(indices) or indices.min() < -value.width or indices.max() >= value.width:
        raise ColumnError("it chooses columns that are not there")
    if len(indices) > ROW_VALUES_MAX:
        raise ColumnError(f"there are more than {ROW_VALUES_MAX} columns")
    places = indices % value.width
    gaps_of = None if value.gaps_of is None else value.gaps_of.select(places)
    return Columns(value.matrix.select(places), (len(places),), value.datatype, gaps_of, is_cut=value.is_cut)


def _arrange(value: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    try:
        return value.reshape([value.shape[i] if size == 0 else size for i, size in enumerate(shape)])
    except (ValueError, IndexError):
        raise ColumnError("a constant does not fit its shape") from None


def _tail(value: Columns, shape: list[int]) -> tuple[int, ...]:
    """Return the shape after the rows that a shape of the whole matrix gives."""
    before = (-1, *value.tail)
    sizes = [before[i] if size == 0 and i < len(before) else size for i, size in enumerate(shape)]
    tail = sizes[1:]
    if sizes[:1] not in ([-1], [1]) or tail.count(-1) > (0 if shape[0] == -1 else 1) or any(size == 0 for size in tail):
        raise ColumnError("it does not keep the rows")
    rest = int(np.prod([size for size in tail if size != -1]))
    if -1 in tail and rest and value.width % rest == 0:
        tail = [value.width // rest if size == -1 else size for size in tail]
    if int(np.prod(tail)) != value.width:
        raise ColumnError("it does not keep the rows")
    return tuple(tail)
