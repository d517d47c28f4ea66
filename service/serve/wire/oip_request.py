"""What the JSON part of an Open Inference Protocol v2 request says: of its tensor, and which outputs it asks for.

Sources as in tensors.py, which reads the numbers.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import MalformedError, UnacceptableError
from service.serve.wire.json_grammar import check_fields
from service.serve.wire.rows import RowParser

DATATYPES: Final = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
# What explanations are made of; the model gives it to who asks.
EXPLANATIONS: Final = ("logits", "contributions", "sensitivities")
OUTPUTS: Final = ("probabilities", "labels", *EXPLANATIONS)
UNKNOWN_OUTPUT: Final = (
    "The outputs of a model are probabilities and labels, and on request logits, contributions and sensitivities."
)
# Tensors are matrices; a longer shape is a mistake, and its product could be made enormous.
SHAPE_LENGTH: Final = 2


class OutputRequest(NamedTuple):
    """One output that a request asks for: its name, whether as binary data, and the top k classes or 0."""

    name: str
    binary: bool
    top: int


class InferenceHeader(NamedTuple):
    """The JSON part of a request: everything but the tensor, and the tensor too where `size` is None.

    Attributes:
        id: The request's id, or "".
        n_rows: The number of rows B.
        dtype: The little-endian NumPy name of the tensor's datatype.
        size: The bytes of binary data behind the JSON part, or None where `data` holds the numbers.
        data: The JSON value of "data", or None.
        outputs: The requested outputs.
    """

    id: str
    n_rows: int
    dtype: str
    size: int | None
    data: Any
    outputs: tuple[OutputRequest, ...]


JSON_PROBABILITIES: Final = (OutputRequest("probabilities", binary=False, top=0),)
BINARY_PROBABILITIES: Final = (OutputRequest("probabilities", binary=True, top=0),)


def requests_explanation(outputs: tuple[OutputRequest, ...]) -> bool:
    """Whether one of the outputs that are asked for is a part of an explanation."""
    if outputs is JSON_PROBABILITIES or outputs is BINARY_PROBABILITIES:
        return False
    return any(output.name in EXPLANATIONS for output in outputs)


def parse_inference_header(document: dict[str, Any], rows: RowParser) -> InferenceHeader:
    """Read a document, all but the numbers of its tensor.

    Raises:
        MalformedError: It contradicts itself.
        UnacceptableError: It follows the protocol, but is not for this model.
        TooLargeError: It announces more rows than the limit.
    """
    check_fields(document, ("id", "parameters", "inputs", "outputs"))
    request_id, inputs = document.get("id", ""), document.get("inputs")
    if type(request_id) is not str:
        raise UnacceptableError('"id" must be a string.')
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise UnacceptableError('"inputs" must be a list of one tensor object.')
    count, dtype, size = _tensor(inputs[0], rows)
    by_default = _parameters(document).get("binary_data_output", False)
    if type(by_default) is not bool:
        raise UnacceptableError('"binary_data_output" must be true or false.')
    requested = _parse_outputs(document.get("outputs"), binary=by_default)
    return InferenceHeader(request_id, count, dtype, size, inputs[0].get("data"), requested)


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if type(parameters) is not dict:
        raise UnacceptableError('"parameters" must be an object.')
    return parameters


def _tensor(tensor: dict[str, Any], rows: RowParser) -> tuple[int, str, int | None]:
    """Number of rows, NumPy datatype, and size of the binary data (None: the numbers are JSON) of an input."""
    check_fields(tensor, ("name", "shape", "datatype", "parameters", "data"))
    if type(tensor.get("name")) is not str:
        raise UnacceptableError('An input must have a "name" that is a string.')
    dtype = DATATYPES.get(tensor["datatype"]) if type(tensor.get("datatype")) is str else None
    if dtype is None:
        raise UnacceptableError(f'"datatype" must be one of {", ".join(DATATYPES)}.')
    count = _shape(tensor.get("shape"), rows)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        return count, dtype, None
    if "data" in tensor:
        raise MalformedError('An input must have either "data" or "binary_data_size", not both.')
    expected = count * rows.n_features * np.dtype(dtype).itemsize
    if type(size) is not int or size != expected:
        raise MalformedError(f'"binary_data_size" must be {expected} for this shape and datatype.')
    return count, dtype, expected


def _shape(shape: object, rows: RowParser) -> int:
    """The number of rows that a shape [B, N] announces."""
    if type(shape) is not list or len(shape) != SHAPE_LENGTH or any(type(size) is not int for size in shape):
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}].')
    count, width = shape
    if width != rows.n_features or count < 1:
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}] with at least one row.')
    rows.check_row_count(count)
    return int(count)


def _parse_outputs(outputs: object, *, binary: bool) -> tuple[OutputRequest, ...]:
    if outputs is None:
        return BINARY_PROBABILITIES if binary else JSON_PROBABILITIES
    if type(outputs) is not list or not outputs or any(type(output) is not dict for output in outputs):
        raise UnacceptableError('"outputs" must be a list of at least one object.')
    requested = tuple(_parse_output(output, binary=binary) for output in outputs)
    if len({output.name for output in requested}) != len(requested):
        raise UnacceptableError('"outputs" names an output twice.')
    # The two usual requests are known by identity where the response is written.
    return next((usual for usual in (JSON_PROBABILITIES, BINARY_PROBABILITIES) if requested == usual), requested)


def _parse_output(output: dict[str, Any], *, binary: bool) -> OutputRequest:
    check_fields(output, ("name", "parameters"))
    name, parameters = output.get("name"), _parameters(output)
    if name not in OUTPUTS:
        raise UnacceptableError(UNKNOWN_OUTPUT)
    wanted, top = parameters.get("binary_data", binary), parameters.get("classification", 0)
    if type(wanted) is not bool:
        raise UnacceptableError('"binary_data" must be true or false.')
    if type(top) is not int or top < 0 or (top and name != "probabilities"):
        raise UnacceptableError('"classification" must be a number of classes, and goes with probabilities.')
    return OutputRequest(str(name), wanted, top)
