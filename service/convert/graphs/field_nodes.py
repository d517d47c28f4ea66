"""The nodes of fields: from the values of a row to the columns of a model.

    kind      input                                missing                    columns
    number    double (rows, 1)                     NaN                        (x - mean) / scale, cut
    boolean   bool (rows, 1); double (rows, 1)     NaN                        1 for true
              where a missing one has a meaning
    category  int64 (rows, 1) if all values are    -2**63                     code = place in the list; [code = column]
              whole numbers, else string (rows, 1) ""
    vector    double (rows, size)                  NaN                        as numbers

Fields that read one value of a row share its input, which is double if one of them needs that. A value that a field
refuses gives NaN in all its columns, and so NaN probabilities: a graph cannot refuse a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from service.convert.graphs.graph_builder import ML_DOMAIN, GraphBuilder
from service.convert.graphs.graph_session import InputForm
from service.errors import ConversionError
from service.fields.column_names import show_category
from service.fields.field_list import ValueRecord, group_by_value
from service.fields.field_records import (
    BooleanField,
    Category,
    CategoryField,
    FieldRecord,
    MissingBoolean,
    MissingCategory,
    MissingNumber,
    NumberField,
    VectorField,
)
from service.fields.refusals import quote
from service.softmax.arrays import Doubles
from service.store.artifact.tensors import Array

# A whole number that no category has.
MISSING_INTEGER: Final = -(2**63)
MISSING_TEXT: Final = ""
# The code of a category that a field refuses.
REFUSED: Final = -1


def list_inputs(fields: Sequence[FieldRecord]) -> list[InputForm]:
    """Return the inputs of a graph, one for each value of a row.

    Raises:
        ConversionError: Fields that read one value need inputs of different types.
    """
    return [_find_input(name, group) for name, group in group_by_value(fields).items()]


def add_columns(graph: GraphBuilder, field: FieldRecord, x: str, tensors: Mapping[str, Array]) -> str:
    """Add the nodes of a field; return the name of its columns (rows, width) in the dtype of the model.

    Args:
        graph: The graph.
        field: The field.
        x: Its input.
        tensors: The tensors of the artifact.

    Raises:
        ConversionError: ONNX has no operators for the field.
    """
    match field:
        case NumberField():
            return _add_number(graph, field, x)
        case BooleanField():
            return _add_boolean(graph, field, x)
        case CategoryField() if field.values is not None:
            return _add_category(graph, field, x, field.values)
        case VectorField():
            return _add_vector(graph, field, x, tensors)
    kind = "hashed category" if isinstance(field, CategoryField) else field.kind
    raise ConversionError(
        f"the field {quote(field.name)} is a {kind}, and ONNX takes numbers, booleans, listed categories and vectors"
    )


def _find_input(name: str, group: Sequence[ValueRecord]) -> InputForm:
    types = set(map(_input_type, group))
    if len(types) > 1 and onnx.TensorProto.STRING not in types:
        types = {onnx.TensorProto.DOUBLE}
    if len(types) > 1:
        raise ConversionError(f"the fields that read {quote(name)} need inputs of different types")
    size = next((field.size for field in group if isinstance(field, VectorField)), 0)
    return InputForm(name, types.pop(), (name,), size)


def _input_type(field: ValueRecord) -> int:
    """Return the type of the input of a field, as ONNX numbers it."""
    if isinstance(field, BooleanField) and field.missing == "none":
        return onnx.TensorProto.BOOL
    if isinstance(field, CategoryField):
        return onnx.TensorProto.INT64 if has_whole_numbers(field) else onnx.TensorProto.STRING
    return onnx.TensorProto.DOUBLE


def has_whole_numbers(field: CategoryField) -> bool:
    """Return whether all categories are whole numbers; else the input has texts."""
    return all(type(value) is int for value in field.values or ())


def _add_number(graph: GraphBuilder, field: NumberField, x: str) -> str:
    stand_in = field.missing.value if isinstance(field.missing, MissingNumber) else field.mean
    missing = graph.add("IsNaN", x)
    z = _scale(graph, graph.add("Where", missing, _double(graph, stand_in), x), field.mean, field.scale, field.clip)
    return _finish(graph, field, missing, graph.cast(z))


def _add_boolean(graph: GraphBuilder, field: BooleanField, x: str) -> str:
    if graph.input_type(x) == onnx.TensorProto.BOOL:
        return graph.cast(x)
    stand_in = float(field.missing.value) if isinstance(field.missing, MissingBoolean) else 0.0
    missing = graph.add("IsNaN", x)
    return _finish(graph, field, missing, graph.cast(graph.add("Where", missing, _double(graph, stand_in), x)))


def _add_vector(graph: GraphBuilder, field: VectorField, x: str, tensors: Mapping[str, Array]) -> str:
    mean, scale = (_read_numbers(numbers, tensors) for numbers in (field.mean, field.scale))
    gaps = graph.add("IsNaN", x)
    start = np.zeros(field.size) if mean is None else mean
    z = _scale(graph, graph.add("Where", gaps, _double(graph, start), x), start, scale, field.clip)
    missing = graph.add("Gather", gaps, graph.constant(np.array([0])), axis=1)
    return _finish(graph, field, missing, graph.cast(z))


def _add_category(graph: GraphBuilder, field: CategoryField, x: str, values: tuple[Category, ...]) -> str:
    """Add a table from categories to codes, and a column for each code."""
    whole = has_whole_numbers(field)
    names: list[Any] = list(values) if whole else [show_category(value) for value in values]
    if len(set(names)) < len(names):
        raise ConversionError(f"two values of the field {quote(field.name)} are one text, and ONNX has no mixed types")
    width = len(values) + field.has_other + field.has_missing
    # A code behind the last column has no entry.
    codes = {name: code for code, name in enumerate(names)}
    missing_code = {"refuse": REFUSED, "column": width - 1}.get(str(field.missing), width)
    if isinstance(field.missing, MissingCategory):
        stand_in = field.missing.value
        missing_code = next(i for i, value in enumerate(values) if (type(value), value) == (type(stand_in), stand_in))
    codes.setdefault(MISSING_INTEGER if whole else MISSING_TEXT, missing_code)
    default = {"refuse": REFUSED, "other": len(values)}.get(field.unknown, width)
    keys = {"keys_int64s" if whole else "keys_strings": list(codes)}
    if graph.input_type(x) == onnx.TensorProto.DOUBLE:
        filled = graph.add("Where", graph.add("IsNaN", x), _double(graph, float(MISSING_INTEGER)), x)
        x = graph.cast(filled, onnx.TensorProto.INT64)
    code = graph.add(
        "LabelEncoder", x, domain=ML_DOMAIN, **keys, values_int64s=list(codes.values()), default_int64=default
    )
    columns = graph.cast(graph.add("Equal", code, graph.constant(np.arange(width))))
    if REFUSED not in {default, missing_code}:
        return columns
    refused = graph.add("Equal", code, graph.constant(np.array(REFUSED)))
    return graph.add("Where", refused, graph.constant(np.nan), columns)


def _finish(graph: GraphBuilder, field: FieldRecord, missing: str, columns: str) -> str:
    """Add the column `missing`, or NaN where the field refuses a missing value."""
    if getattr(field, "missing", None) == "refuse":
        return graph.add("Where", missing, graph.constant(np.nan), columns)
    return graph.add("Concat", columns, graph.cast(missing), axis=1) if field.has_missing else columns


def _scale(
    graph: GraphBuilder, x: str, mean: Doubles | float, scale: Doubles | float | None, clip: float | None
) -> str:
    """Add (x - mean) / scale, cut to [-clip, clip]."""
    z = graph.add("Sub", x, _double(graph, mean))
    if scale is not None:
        z = graph.add("Div", z, _double(graph, scale))
    return z if clip is None else graph.add("Clip", z, _double(graph, -clip), _double(graph, clip))


def _double(graph: GraphBuilder, value: Doubles | float) -> str:
    """Add a constant in float64."""
    return graph.constant(np.asarray(value, np.float64))


def _read_numbers(numbers: tuple[float, ...] | str | None, tensors: Mapping[str, Array]) -> NDArray[Any] | None:
    """Return numbers of the manifest, or the tensor that it names; None if there are none."""
    if numbers is None:
        return None
    return np.asarray(tensors[numbers] if isinstance(numbers, str) else numbers, np.float64)
