"""Parse the inputs of an Open Inference Protocol v2 request: first their metadata, then their numbers.

A request has its rows in one of two layouts:

    one input   under any name, of shape [B, N]; for a model of one feature also [B]
    N inputs    one for each feature, named as the feature, in any order, each of shape [B] or [B, 1]

Each input has its own datatype, and its numbers as JSON or as binary data. MLServer's PandasCodec sends N inputs.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedError, UnacceptableError
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import NUMBER_TYPES, check_row_count, quote_name
from service.serve.wire.rows import RowParser, cell_error
from service.softmax.arrays import Floats

DATATYPES: Final = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
BOOL: Final = "BOOL"
# The values of a BOOL input; in JSON also false and true, which equal them.
FLAGS: Final = frozenset((0, 1))

_KNOWN_DATATYPES: Final = {**DATATYPES, BOOL: "|u1"}
_FLAG_TYPES: Final = NUMBER_TYPES | {bool}


class InputMetadata(NamedTuple):
    """One input without the binary data.

    Attributes:
        dtype: The little-endian NumPy name of its datatype.
        flags: Whether the datatype is BOOL.
        binary_size: The bytes of its binary data, or None if `data` has its values.
        data: The JSON value of "data", or None.
    """

    dtype: str
    flags: bool
    binary_size: int | None
    data: Any


class Inputs(NamedTuple):
    """The inputs of a request without their binary data.

    Attributes:
        n_rows: The number of rows, B.
        tensors: The inputs in the order of the request.
        columns: The index of the feature of each input, or None if one input has all features.
        binary_size: The bytes of binary data after the JSON part, or None if no input has any.
        whole: The NumPy name of the datatype if the binary data is numbers of one input, as it usually is; else "".
    """

    n_rows: int
    tensors: tuple[InputMetadata, ...]
    columns: tuple[int, ...] | None
    binary_size: int | None
    whole: str = ""


def parse_inputs(inputs: object, features: FeatureColumns, rows: RowParser) -> Inputs:
    """Parse the metadata of the inputs.

    Args:
        inputs: The JSON value of "inputs".
        features: The model's features by name.
        rows: The parser of the model's rows.

    Raises:
        MalformedError: An input contradicts itself.
        UnacceptableError: The inputs do not have one of the two layouts.
        TooLargeError: A shape has more rows than the limit.
    """
    if type(inputs) is not list or not inputs or any(type(tensor) is not dict for tensor in inputs):
        raise UnacceptableError('"inputs" must be a list of at least one tensor object.')
    if any(type(tensor.get("name")) is not str for tensor in inputs):
        raise UnacceptableError('"name" of an input must be a string.')
    if len(inputs) == 1 and not _is_one_of_several(inputs[0], features.names):
        count, tensor = _parse_tensor(inputs[0], rows.n_features, rows.rows_max)
        whole = tensor.dtype if tensor.binary_size is not None and not tensor.flags else ""
        return Inputs(count, (tensor,), None, tensor.binary_size, whole)
    order = features.find_order([tensor["name"] for tensor in inputs], "A request of one input for each feature")
    columns = tuple(np.argsort(order).tolist())
    parsed = [_parse_tensor(tensor, 1, rows.rows_max) for tensor in inputs]
    count = parsed[0][0]
    for column, (n_rows, tensor) in zip(columns, parsed, strict=True):
        if n_rows != count:
            raise UnacceptableError(f"{_label(features.names[column])} must have as many rows as the other inputs.")
        # The matrix of all inputs is no larger than the body, because each has its values.
        if tensor.binary_size is None and (type(tensor.data) is not list or len(tensor.data) != count):
            raise UnacceptableError(
                f'{_label(features.names[column])} must have "data": a list of one number for each row.'
            )
    sizes = [tensor.binary_size for _, tensor in parsed if tensor.binary_size is not None]
    return Inputs(count, tuple(tensor for _, tensor in parsed), columns, sum(sizes) if sizes else None)


def convert_inputs(inputs: Inputs, binary: memoryview, features: FeatureColumns, rows: RowParser) -> Floats:
    """Convert the values of inputs.

    Args:
        inputs: The metadata, and the values that are JSON.
        binary: The binary data; its size is that of the metadata.
        features: The model's features by name.
        rows: The parser of the model's rows.

    Returns:
        X (B, N) in the model's dtype. If B is 1, X may be a buffer that the next call overwrites.

    Raises:
        UnacceptableError: The values are not numbers of this shape.
    """
    if inputs.columns is None:
        (tensor,) = inputs.tensors
        if tensor.binary_size is None:
            return _convert_matrix(tensor, inputs.n_rows, rows)
        _check_flags(tensor, binary)
        return rows.convert_binary(binary, tensor.dtype, inputs.n_rows)
    X = np.empty((inputs.n_rows, rows.n_features), rows.dtype)
    columns = zip(inputs.columns, inputs.tensors, _split_binary(inputs.tensors, binary), strict=True)
    # The model rejects NaN and infinity later; a signaling NaN raises "invalid".
    with np.errstate(over="ignore", invalid="ignore"):
        for column, tensor, part in columns:
            if tensor.binary_size is None:
                X[:, column] = _convert_column(tensor, features.names[column])
            else:
                _check_flags(tensor, part)
                X[:, column] = np.frombuffer(part, tensor.dtype)
    return X


def _is_one_of_several(tensor: dict[str, Any], features: Sequence[str]) -> bool:
    """Return whether the only input of a request is a single feature, so that the others are missing."""
    shape = tensor.get("shape")
    if len(features) == 1 or type(shape) is not list or shape[1:] not in ([], [1]):
        return False
    return tensor["name"] in features


def _label(feature: str) -> str:
    """Return how an error names the input of a feature."""
    name = quote_name(feature)
    return f"Input {name}" if name else "An input"


def _parse_tensor(tensor: dict[str, Any], width: int, rows_max: int) -> tuple[int, InputMetadata]:
    """Return the number of rows, and the metadata, of an input of `width` features."""
    datatype = tensor.get("datatype")
    dtype = _KNOWN_DATATYPES.get(datatype) if type(datatype) is str else None
    if dtype is None:
        raise UnacceptableError(f'"datatype" must be one of {", ".join(_KNOWN_DATATYPES)}.')
    count, data = _parse_shape(tensor.get("shape"), width), tensor.get("data")
    check_row_count(count, rows_max)
    size = get_parameters(tensor).get("binary_data_size")
    if size is None:
        return count, InputMetadata(dtype, datatype == BOOL, None, data)
    if data is not None:
        raise MalformedError('An input must have either "data" or "binary_data_size", not both.')
    expected = count * width * np.dtype(dtype).itemsize
    if type(size) is not int or size != expected:
        raise MalformedError(f'"binary_data_size" must be {expected} for this shape and datatype.')
    return count, InputMetadata(dtype, datatype == BOOL, expected, None)


def get_parameters(document: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output; null and a missing member mean none.

    Raises:
        UnacceptableError: They are not an object.
    """
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise UnacceptableError('"parameters" must be an object.')
    return parameters


def _parse_shape(shape: object, width: int) -> int:
    """Return the number of rows of a shape [B, width]; if the width is 1, of [B] too."""
    endings, wanted = (([1], []), "[rows, 1] or [rows]") if width == 1 else (([width],), f"[rows, {width}]")
    if type(shape) is not list or set(map(type, shape)) != {int} or shape[1:] not in endings or shape[0] < 1:
        raise UnacceptableError(f'"shape" must be {wanted} with at least one row.')
    return int(shape[0])


def _convert_matrix(tensor: InputMetadata, count: int, rows: RowParser) -> Floats:
    """Return X (count, N) of a flat list of numbers, a list of rows, or the array that pysimdjson made of either."""
    data, width = tensor.data, rows.n_features
    if isinstance(data, np.ndarray):
        if tensor.flags and not np.isin(data, tuple(FLAGS)).all():
            raise not_flags()
        return rows.cast_values(data.reshape((count, width)))
    if type(data) is not list or not data:
        raise UnacceptableError('An input must have "data": a list of numbers.')
    nested = type(data[0]) is list
    if not nested:
        if len(data) != count * width:
            raise UnacceptableError(f'"data" has {len(data)} values; "shape" needs {count * width}.')
        if tensor.flags:
            data = _flags_to_numbers(data)
        data = [data[i : i + width] for i in range(0, len(data), width)]
    if len(data) != count:
        raise UnacceptableError(f'"data" has {len(data)} rows; "shape" needs {count}.')
    return rows.convert_rows([_flags_to_numbers(row) for row in data] if nested and tensor.flags else data)


def _convert_column(tensor: InputMetadata, feature: str) -> NDArray[np.float64]:
    """Return the values (B,) of the input of one feature: a flat list, or a list of rows of one number each."""
    data, types = tensor.data, _FLAG_TYPES if tensor.flags else NUMBER_TYPES
    if list in set(map(type, data)):
        data = [row[0] if type(row) is list and len(row) == 1 else row for row in data]
    if not types.issuperset(map(type, data)):
        raise cell_error(next(i for i, value in enumerate(data) if type(value) not in types), feature)
    if tensor.flags and not FLAGS.issuperset(data):
        raise not_flags()
    return np.array(data, np.float64)


def _flags_to_numbers(values: object) -> Any:  # noqa: ANN401  # any JSON value; lists of flags are converted
    """Convert a list of flags to zeros and ones; return other JSON values as they are."""
    if type(values) is not list or not _FLAG_TYPES.issuperset(map(type, values)):
        return values
    if not FLAGS.issuperset(values):
        raise not_flags()
    return list(map(int, values))


def _check_flags(tensor: InputMetadata, binary: memoryview) -> None:
    if tensor.flags and np.frombuffer(binary, np.uint8).max() > 1:
        raise not_flags()


def not_flags() -> UnacceptableError:
    """Return the error of a BOOL input with other values."""
    return UnacceptableError("A BOOL input may only have true, false, 1 and 0; in binary data, bytes of 1 and 0.")


def _split_binary(tensors: Sequence[InputMetadata], binary: memoryview) -> Iterator[memoryview]:
    """Yield the binary data of each input, which is empty if its values are JSON."""
    start = 0
    for tensor in tensors:
        stop = start + (tensor.binary_size or 0)
        yield binary[start:stop]
        start = stop
