"""Open Inference Protocol v2: request bytes to an array, an array to response bytes.

A body is a JSON object, or, with the header `Inference-Header-Content-Length: n`, a JSON object of n bytes and then
the tensors that it announces with `binary_data_size`, little-endian, row-major, without padding; n = 0 means that the
body is the one FP32 or FP64 tensor itself. A BYTES element is its length as four little-endian bytes, then the bytes.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md.
"""

import struct
from collections.abc import Mapping
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import MalformedError, UnacceptableError
from service.serve.wire.oip_request import (
    BINARY_PROBABILITIES,
    DATATYPES,
    JSON_PROBABILITIES,
    InferenceHeader,
    OutputRequest,
    parse_inference_header,
)
from service.serve.wire.rows import SIMDJSON_BYTES_MIN, RowParser

Floats = NDArray[np.floating[Any]]
Labels = list[int] | NDArray[np.bool_]

DATATYPE_OF: Final = {"float32": "FP32", "float64": "FP64"}
# JSON parts that a model's readers remember, and the longest: a client sends the same one with every tensor.
CACHED_HEADERS_MAX: Final = 256
CACHED_HEADER_BYTES_MAX: Final = 1024

_NAMES: Final = {dtype: name.encode() for dtype, name in DATATYPE_OF.items()}


class InferenceBody(NamedTuple):
    """A request: its id, the rows X (B, N), and the outputs it asks for."""

    id: str
    X: Floats
    outputs: tuple[OutputRequest, ...]


class TensorCodec:
    """Reads and writes the tensors of one served model. Used by the event loop's thread alone.

    Args:
        rows: How rows of the model are read.
        named: What every response says of the model: model_name and model_version.
        state: What its parameters say of the state: seq, and epoch.
        classes: The names of the classes.
    """

    def __init__(self, rows: RowParser, named: dict[str, Any], state: dict[str, int], classes: tuple[str, ...]) -> None:
        self._rows = rows
        self._classes = classes
        self._start = orjson.dumps(named)[:-1] + b',"id":'
        self._middle = b',"parameters":%b,"outputs":[' % orjson.dumps(state)
        self._little = rows.dtype.newbyteorder("<")
        datatype = _NAMES[rows.dtype.name]
        self._just = self._middle + b'{"name":"probabilities","datatype":"%b","shape":' % datatype
        self._headers: dict[bytes, InferenceHeader] = {}

    def parse_inference(self, body: bytes, header_length: bytes | None) -> InferenceBody:
        """Parse a request.

        Args:
            body: The whole body.
            header_length: The value of Inference-Header-Content-Length, or None where the header is missing.

        Raises:
            MalformedError: The bytes do not follow the protocol.
            UnacceptableError: They do, but are no rows of this model.
            TooLargeError: There are more rows than the limit.
        """
        rows = self._rows
        if header_length is None:
            usual = _usual(body, rows) if len(body) < SIMDJSON_BYTES_MIN else None
            if usual is not None:
                return usual
            header = parse_inference_header(rows.parse_tensor_document(body), rows)
            if header.size is not None:
                raise MalformedError("The body has no binary data behind its JSON part; send its size in a header.")
            return InferenceBody(header.id, _from_json(header.data, header.n_rows, rows), header.outputs)
        length = _header_length(header_length, len(body))
        binary = memoryview(body)[length:]
        if length == 0:
            return InferenceBody("", _raw(binary, rows), BINARY_PROBABILITIES)
        header = self._parse_header(body[:length])
        if header.size is None:
            if len(binary):
                raise MalformedError("The body has binary data that no input announces.")
            return InferenceBody(header.id, _from_json(header.data, header.n_rows, rows), header.outputs)
        if len(binary) != header.size:
            raise MalformedError(f"The input announces {header.size} bytes of binary data; the body has {len(binary)}.")
        return InferenceBody(header.id, rows.convert_binary(binary, header.dtype, header.n_rows), header.outputs)

    def _parse_header(self, text: bytes) -> InferenceHeader:
        """Parse a JSON part, or remember what the same bytes meant: clients send them again with every tensor."""
        header = self._headers.get(text)
        if header is None:
            header = parse_inference_header(self._rows.parse_tensor_document(text), self._rows)
            if header.size is not None and len(text) <= CACHED_HEADER_BYTES_MAX:
                if len(self._headers) >= CACHED_HEADERS_MAX:
                    self._headers.clear()
                self._headers[text] = header
        return header

    def encode_inference(
        self, request: InferenceBody, P: Floats, labels: Labels, more: Mapping[str, Floats] | None = None
    ) -> tuple[bytes, int | None]:
        """The response body, and the size of its JSON part where binary data follows it.

        Args:
            request: What was asked.
            P: Probabilities (B, K).
            labels: Indices of the B labels, or flags (B, K) of a multi-label model.
            more: Further outputs by their names, where one of them is asked for.
        """
        if request.outputs is JSON_PROBABILITIES:
            identity = orjson.dumps(request.id) if request.id else b'""'
            numbers = orjson.dumps(P.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
            return b'%b%b%b[%d,%d],"data":%b}]}' % (self._start, identity, self._just, *P.shape, numbers), None
        if request.outputs is BINARY_PROBABILITIES:
            identity = orjson.dumps(request.id) if request.id else b'""'
            raw = P.astype(self._little, copy=False).tobytes()
            text = b'%b%b%b[%d,%d],"parameters":{"binary_data_size":%d}}]}' % (
                self._start, identity, self._just, *P.shape, len(raw)
            )  # fmt: skip
            return text + raw, len(text)
        parts: list[bytes] = []
        outputs: list[bytes] = []
        for output in request.outputs:
            datatype, shape, values, raw = self._output(output, P, labels, more or {})
            start = b'{"name":"%b","datatype":"%b","shape":%b' % (output.name.encode(), datatype, _shape_text(shape))
            if output.binary:
                parts.append(raw())
                outputs.append(start + b',"parameters":{"binary_data_size":%d}}' % len(parts[-1]))
            else:
                numbers = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
                outputs.append(start + b',"data":' + numbers + b"}")
        identity = orjson.dumps(request.id) if request.id else b'""'
        text = b"".join((self._start, identity, self._middle, b",".join(outputs), b"]}"))
        return (b"".join((text, *parts)), len(text)) if parts else (text, None)

    def _output(
        self, output: OutputRequest, P: Floats, labels: Labels, more: Mapping[str, Floats]
    ) -> tuple[bytes, tuple[int, ...], Any, Any]:
        """Datatype, shape, JSON values and a function that gives the binary data of one output."""
        if output.top:
            texts = _classification(output.top, P, self._classes)
            return b"BYTES", (len(P), len(texts) // len(P)), texts, lambda: _bytes_elements(texts)
        if output.name in more:
            P = more[output.name]
        if output.name != "labels":
            return _NAMES[P.dtype.name], P.shape, P.ravel(), P.astype(self._little, copy=False).tobytes
        if isinstance(labels, np.ndarray):
            return b"BOOL", labels.shape, labels.ravel(), labels.tobytes
        names = [self._classes[label] for label in labels]
        return b"BYTES", (len(names),), names, lambda: _bytes_elements(names)


def _shape_text(shape: tuple[int, ...]) -> bytes:
    return b"[" + b",".join([b"%d" % size for size in shape]) + b"]"


def _usual(body: bytes, rows: RowParser) -> InferenceBody | None:
    """One row in the usual form, or None: the general way then finds the fault.

    The form has one string for each key and for name, datatype and id, and no escapes; so no key is repeated.
    """
    try:
        document = orjson.loads(body)
        (tensor,) = document["inputs"]
        identity, quotes = ("", 14) if len(document) == 1 else (document["id"], 18)
        data, (count, width) = tensor["data"], tensor["shape"]
        usual = (
            body.count(b'"') == quotes
            and b"\\" not in body
            and len(tensor) == 4  # noqa: PLR2004  # name, shape, datatype and data
            and type(count) is type(width) is int
            and (count, width) == (1, rows.n_features)
            and type(tensor["name"]) is type(identity) is str
            and tensor["datatype"] in DATATYPES
        )
        X = rows.pack_row(data[0] if type(data[0]) is list and len(data) == 1 else data) if usual else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return None if X is None else InferenceBody(identity, X, JSON_PROBABILITIES)


def _header_length(text: bytes, available: int) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > available:  # noqa: PLR2004  # a 64-bit number
        raise MalformedError("Inference-Header-Content-Length must be the size in bytes of the JSON part of the body.")
    return int(text)


def _raw(binary: memoryview, rows: RowParser) -> Floats:
    size = rows.n_features * rows.dtype.itemsize
    if not len(binary) or len(binary) % size:
        raise MalformedError(f"A raw tensor must be whole rows of {size} bytes.")
    rows.check_row_count(len(binary) // size)
    return rows.convert_binary(binary, DATATYPES[DATATYPE_OF[rows.dtype.name]], len(binary) // size)


def _from_json(data: object, count: int, rows: RowParser) -> Floats:
    """X (count, N) from a flat list of numbers or a list of rows, which the quick parser may have made an array."""
    shape = (count, rows.n_features)
    if isinstance(data, np.ndarray):
        return rows.cast_values(data.reshape(shape))
    if type(data) is not list or not data:
        raise UnacceptableError('An input must have "data": a list of numbers.')
    if type(data[0]) is not list:
        if len(data) != prod(shape):
            raise UnacceptableError(f'"data" has {len(data)} values; "shape" needs {prod(shape)}.')
        data = [data[i : i + rows.n_features] for i in range(0, len(data), rows.n_features)]
    if len(data) != count:
        raise UnacceptableError(f'"data" has {len(data)} rows; "shape" needs {count}.')
    return rows.convert_rows(data)


def _classification(top: int, P: Floats, classes: tuple[str, ...]) -> list[str]:
    """The top k classes of each row as "probability:index:name", the most probable first, ties by index.

    `!s` writes the shortest decimal that is the same number in its own dtype, as in JSON data.
    """
    order = np.argsort(-P, axis=1, kind="stable")[:, :top]
    return [f"{P[i, k]!s}:{k}:{classes[k]}" for i, row in enumerate(order.tolist()) for k in row]


def _bytes_elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
