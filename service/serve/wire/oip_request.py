"""Parse the JSON part of an Open Inference Protocol v2 request: its tensor's metadata, and the requested outputs.

oip_tensors.py parses the numbers, and names the sources of the protocol.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import MalformedError, UnacceptableError
from service.serve.wire.json_grammar import check_fields, check_row_count
from service.serve.wire.rows import RowParser

DATATYPES: Final = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
# The outputs that make up an explanation; they are computed only on request.
EXPLANATIONS: Final = ("logits", "contributions", "sensitivities")
OUTPUTS: Final = ("probabilities", "labels", *EXPLANATIONS)
UNKNOWN_OUTPUT: Final = (
    "Unknown output; a model has probabilities and labels, and for explanations logits, contributions, sensitivities."
)
# Tensors are matrices; the product of a longer shape could be enormous.
SHAPE_LENGTH: Final = 2


class OutputRequest(NamedTuple):
    """One requested output.

    Attributes:
        name: One of OUTPUTS.
        binary: Whether its values follow the JSON part as binary data.
        top: The number of classes to return as classification, the most probable first, or 0 for all values.
    """

    name: str
    binary: bool
    top: int


class InferenceHeader(NamedTuple):
    """The JSON part of a request.

    Attributes:
        id: The request's id, or "".
        n_rows: The number of rows, B.
        dtype: The little-endian NumPy name of the tensor's datatype.
        binary_size: The bytes of binary data after the JSON part, or None if `data` has the numbers.
        data: The JSON value of "data", or None.
        outputs: The requested outputs.
    """

    id: str
    n_rows: int
    dtype: str
    binary_size: int | None
    data: Any
    outputs: tuple[OutputRequest, ...]


JSON_PROBABILITIES: Final = (OutputRequest("probabilities", binary=False, top=0),)
BINARY_PROBABILITIES: Final = (OutputRequest("probabilities", binary=True, top=0),)


def requests_explanation(outputs: tuple[OutputRequest, ...]) -> bool:
    """Return whether one of the requested outputs is part of an explanation."""
    if outputs is JSON_PROBABILITIES or outputs is BINARY_PROBABILITIES:
        return False
    return any(output.name in EXPLANATIONS for output in outputs)


def parse_inference_header(document: dict[str, Any], rows: RowParser) -> InferenceHeader:
    """Parse a document, without the numbers of its tensor.

    Raises:
        MalformedError: The document contradicts itself.
        UnacceptableError: The document follows the protocol, but does not fit this model.
        TooLargeError: The shape has more rows than the limit.
    """
    check_fields(document, ("id", "parameters", "inputs", "outputs"))
    request_id, inputs = document.get("id", ""), document.get("inputs")
    if type(request_id) is not str:
        raise UnacceptableError('"id" must be a string.')
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise UnacceptableError('"inputs" must be a list of one tensor object.')
    count, dtype, size = _parse_tensor_metadata(inputs[0], rows)
    binary_default = _parameters(document).get("binary_data_output", False)
    if type(binary_default) is not bool:
        raise UnacceptableError('"binary_data_output" must be true or false.')
    requested = _parse_outputs(document.get("outputs"), binary=binary_default)
    return InferenceHeader(request_id, count, dtype, size, inputs[0].get("data"), requested)


def _parameters(document: dict[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters", {})
    if type(parameters) is not dict:
        raise UnacceptableError('"parameters" must be an object.')
    return parameters


def _parse_tensor_metadata(tensor: dict[str, Any], rows: RowParser) -> tuple[int, str, int | None]:
    """Return the number of rows, the NumPy datatype, and the size of the binary data or None, of an input."""
    check_fields(tensor, ("name", "shape", "datatype", "parameters", "data"))
    if type(tensor.get("name")) is not str:
        raise UnacceptableError('"name" of an input must be a string.')
    dtype = DATATYPES.get(tensor["datatype"]) if type(tensor.get("datatype")) is str else None
    if dtype is None:
        raise UnacceptableError(f'"datatype" must be one of {", ".join(DATATYPES)}.')
    count = _parse_shape(tensor.get("shape"), rows)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        return count, dtype, None
    if "data" in tensor:
        raise MalformedError('An input must have either "data" or "binary_data_size", not both.')
    expected = count * rows.n_features * np.dtype(dtype).itemsize
    if type(size) is not int or size != expected:
        raise MalformedError(f'"binary_data_size" must be {expected} for this shape and datatype.')
    return count, dtype, expected


def _parse_shape(shape: object, rows: RowParser) -> int:
    """Return the number of rows of a shape [B, N]."""
    if type(shape) is not list or len(shape) != SHAPE_LENGTH or any(type(size) is not int for size in shape):
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}].')
    count, width = shape
    if width != rows.n_features or count < 1:
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}] with at least one row.')
    check_row_count(count, rows.rows_max)
    return int(count)


def _parse_outputs(outputs: object, *, binary: bool) -> tuple[OutputRequest, ...]:
    if outputs is None:
        return BINARY_PROBABILITIES if binary else JSON_PROBABILITIES
    if type(outputs) is not list or not outputs or any(type(output) is not dict for output in outputs):
        raise UnacceptableError('"outputs" must be a list of at least one object.')
    requested = tuple(_parse_output(output, binary=binary) for output in outputs)
    if len({output.name for output in requested}) != len(requested):
        raise UnacceptableError('"outputs" must not name an output twice.')
    # The response is encoded faster for the two usual requests, which are compared by identity.
    return next((usual for usual in (JSON_PROBABILITIES, BINARY_PROBABILITIES) if requested == usual), requested)


def _parse_output(output: dict[str, Any], *, binary: bool) -> OutputRequest:
    check_fields(output, ("name", "parameters"))
    name, parameters = output.get("name"), _parameters(output)
    if name not in OUTPUTS:
        raise UnacceptableError(UNKNOWN_OUTPUT)
    as_binary, top = parameters.get("binary_data", binary), parameters.get("classification", 0)
    if type(as_binary) is not bool:
        raise UnacceptableError('"binary_data" must be true or false.')
    if type(top) is not int or top < 0 or (top and name != "probabilities"):
        raise UnacceptableError('"classification" must be a number of classes, and is valid only for probabilities.')
    return OutputRequest(str(name), as_binary, top)
