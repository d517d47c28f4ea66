"""Open Inference Protocol v2: request bytes to an array, an array to response bytes.

A body is a JSON object, or, with the header `Inference-Header-Content-Length: n`, a JSON object of n bytes and then
the tensors that it announces with `binary_data_size`, little-endian, row-major, without padding; n = 0 means that the
body is the one FP32 or FP64 tensor itself. A BYTES element is its length as four little-endian bytes, then the bytes.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md.
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import MalformedError, UnacceptableError
from service.serve.codec import Rows, check_fields

Floats = NDArray[np.floating[Any]]

DATATYPES: Final = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
DATATYPE_OF: Final = {"float32": "FP32", "float64": "FP64"}
OUTPUTS: Final = ("probabilities", "labels")
# Tensors are matrices; a longer shape is a mistake, and its product could be made enormous.
SHAPE_LENGTH: Final = 2


class Wish(NamedTuple):
    """One output that a request asks for: its name, whether as binary data, and the top k classes or 0."""

    name: str
    binary: bool
    top: int


@dataclass(frozen=True, slots=True)
class Inference:
    """A request: its id, the rows X (B, N), and the outputs it asks for."""

    id: str
    X: Floats
    wishes: tuple[Wish, ...]


class Answered(NamedTuple):
    """What a model says of B rows: P (B, K), labels as indices or (B, K) flags, and the names of the classes."""

    probabilities: Floats
    labels: list[int] | NDArray[np.bool_]
    classes: tuple[str, ...]


def read(body: bytes, header_length: bytes | None, rows: Rows) -> Inference:
    """Parse a v2 inference request.

    Args:
        body: The whole body.
        header_length: The value of Inference-Header-Content-Length, or None where the header is missing.
        rows: How rows of the model are read.

    Raises:
        MalformedError: The bytes do not follow the protocol.
        UnacceptableError: They do, but are no rows of this model.
        TooLargeError: There are more rows than the limit.
    """
    if header_length is None:
        return _inference(rows.tensor_document(body), b"", rows)
    length = _header_length(header_length, len(body))
    if length == 0:
        return Inference("", _raw(body, rows), (Wish("probabilities", binary=True, top=0),))
    return _inference(rows.tensor_document(body[:length]), memoryview(body)[length:], rows)


def _header_length(text: bytes, available: int) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > available:  # noqa: PLR2004  # a 64-bit number
        raise MalformedError("Inference-Header-Content-Length must be the size in bytes of the JSON part of the body.")
    return int(text)


def _raw(body: bytes, rows: Rows) -> Floats:
    size = rows.n_features * rows.dtype.itemsize
    if not body or len(body) % size:
        raise MalformedError(f"A raw tensor must be whole rows of {size} bytes.")
    rows.check_count(len(body) // size)
    return rows.cast(np.frombuffer(body, rows.dtype.newbyteorder("<")).reshape(-1, rows.n_features))


def _inference(document: dict[str, Any], binary: bytes | memoryview, rows: Rows) -> Inference:
    check_fields(document, ("id", "parameters", "inputs", "outputs"))
    request_id, inputs = document.get("id", ""), document.get("inputs")
    if type(request_id) is not str:
        raise UnacceptableError('"id" must be a string.')
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise UnacceptableError('"inputs" must be a list of one tensor object.')
    X = _tensor(inputs[0], binary, rows)
    by_default = _parameters(document).get("binary_data_output", False)
    if type(by_default) is not bool:
        raise UnacceptableError('"binary_data_output" must be true or false.')
    return Inference(request_id, X, _wishes(document.get("outputs"), binary=by_default))


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if type(parameters) is not dict:
        raise UnacceptableError('"parameters" must be an object.')
    return parameters


def _tensor(tensor: dict[str, Any], binary: bytes | memoryview, rows: Rows) -> Floats:
    check_fields(tensor, ("name", "shape", "datatype", "parameters", "data"))
    if type(tensor.get("name")) is not str:
        raise UnacceptableError('An input must have a "name" that is a string.')
    dtype = DATATYPES.get(tensor["datatype"]) if type(tensor.get("datatype")) is str else None
    if dtype is None:
        raise UnacceptableError(f'"datatype" must be one of {", ".join(DATATYPES)}.')
    count = _shape(tensor.get("shape"), rows)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if len(binary):
            raise MalformedError("The body has binary data that no input announces.")
        return _from_json(tensor.get("data"), count, rows)
    if "data" in tensor:
        raise MalformedError('An input must have either "data" or "binary_data_size", not both.')
    expected = count * rows.n_features * np.dtype(dtype).itemsize
    if type(size) is not int or size != expected or len(binary) != expected:
        raise MalformedError(f"The input needs just {expected} bytes of binary data for its shape and datatype.")
    return rows.cast(np.frombuffer(binary, dtype).reshape(count, rows.n_features))


def _shape(shape: object, rows: Rows) -> int:
    """The number of rows that a shape [B, N] announces."""
    if type(shape) is not list or len(shape) != SHAPE_LENGTH or any(type(size) is not int for size in shape):
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}].')
    count, width = shape
    if width != rows.n_features or count < 1:
        raise UnacceptableError(f'"shape" must be [rows, {rows.n_features}] with at least one row.')
    rows.check_count(count)
    return int(count)


def _from_json(data: object, count: int, rows: Rows) -> Floats:
    """X (count, N) from a flat list of numbers or a list of rows, which the quick parser may have made an array."""
    shape = (count, rows.n_features)
    if isinstance(data, np.ndarray):
        if data.shape not in {shape, (prod(shape),)}:
            raise UnacceptableError(f'"data" must have {prod(shape)} numbers, flat or in rows, as "shape" says.')
        return rows.cast(data.reshape(shape))
    if type(data) is not list or not data:
        raise UnacceptableError('An input must have "data": a list of numbers.')
    if type(data[0]) is not list:
        if len(data) != prod(shape):
            raise UnacceptableError(f'"data" has {len(data)} values; "shape" needs {prod(shape)}.')
        data = [data[i : i + rows.n_features] for i in range(0, len(data), rows.n_features)]
    if len(data) != count:
        raise UnacceptableError(f'"data" has {len(data)} rows; "shape" needs {count}.')
    return rows.matrix(data)


def _wishes(outputs: object, *, binary: bool) -> tuple[Wish, ...]:
    if outputs is None:
        return (Wish("probabilities", binary, 0),)
    if type(outputs) is not list or not outputs or any(type(output) is not dict for output in outputs):
        raise UnacceptableError('"outputs" must be a list of at least one object.')
    wishes = tuple(_wish(output, binary=binary) for output in outputs)
    if len({wish.name for wish in wishes}) != len(wishes):
        raise UnacceptableError('"outputs" names an output twice.')
    return wishes


def _wish(output: dict[str, Any], *, binary: bool) -> Wish:
    check_fields(output, ("name", "parameters"))
    name, parameters = output.get("name"), _parameters(output)
    if name not in OUTPUTS:
        raise UnacceptableError(f"The outputs of a model are {' and '.join(OUTPUTS)}.")
    wanted, top = parameters.get("binary_data", binary), parameters.get("classification", 0)
    if type(wanted) is not bool:
        raise UnacceptableError('"binary_data" must be true or false.')
    if type(top) is not int or top < 0 or (top and name != "probabilities"):
        raise UnacceptableError('"classification" must be a number of classes, and goes with probabilities.')
    return Wish(str(name), wanted, top)


def write(head: dict[str, Any], wishes: tuple[Wish, ...], answered: Answered) -> tuple[bytes, int | None]:
    """The response body, and the size of its JSON part where binary data follows it.

    Args:
        head: model_name, model_version, id and parameters of the response.
        wishes: The outputs that are asked for.
        answered: What the model says.
    """
    if wishes == JUST_PROBABILITIES:
        P = answered.probabilities
        output = {"name": "probabilities", "datatype": DATATYPE_OF[P.dtype.name], "shape": P.shape, "data": P.ravel()}
        return orjson.dumps({**head, "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY), None
    outputs, parts = [], []
    for wish in wishes:
        datatype, shape, values, raw = _output(wish, answered)
        output = {"name": wish.name, "datatype": datatype, "shape": shape}
        if wish.binary:
            parts.append(raw())
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    text = orjson.dumps({**head, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)


JUST_PROBABILITIES: Final = (Wish("probabilities", binary=False, top=0),)


def _output(wish: Wish, answered: Answered) -> tuple[str, tuple[int, ...], Any, Any]:
    """Datatype, shape, JSON values and a function that gives the binary data of one output."""
    P = answered.probabilities
    if wish.top:
        texts = _classification(wish.top, answered)
        return "BYTES", (len(P), len(texts) // len(P)), texts, lambda: _bytes_elements(texts)
    if wish.name == "probabilities":
        return (
            DATATYPE_OF[P.dtype.name],
            P.shape,
            P.ravel(),
            lambda: P.astype(P.dtype.newbyteorder("<"), copy=False).tobytes(),
        )
    if isinstance(answered.labels, np.ndarray):
        flags = answered.labels
        return "BOOL", flags.shape, flags.ravel(), flags.tobytes
    names = [answered.classes[label] for label in answered.labels]
    return "BYTES", (len(names),), names, lambda: _bytes_elements(names)


def _classification(top: int, answered: Answered) -> list[str]:
    """The top k classes of each row as "probability:index:name", the most probable first, ties by index."""
    P = answered.probabilities
    order = np.argsort(-P, axis=1, kind="stable")[:, :top]
    return [f"{P[i, k]}:{k}:{answered.classes[k]}" for i, row in enumerate(order.tolist()) for k in row]


def _bytes_elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
