"""Parse requests and encode responses of the Open Inference Protocol v2.

A body is a JSON object. With the header `Inference-Header-Content-Length: n` it is a JSON object of n bytes, then the
tensors that have a `binary_data_size`: little-endian, row-major, without padding. If n is 0, the body is one raw FP32
or FP64 tensor. A BYTES element is its length in four little-endian bytes, then its bytes; a BOOL element is one byte.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import MalformedError
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import check_row_count
from service.serve.wire.oip_inputs import DATATYPES, convert_inputs
from service.serve.wire.oip_request import (
    BINARY_PROBABILITIES,
    JSON_PROBABILITIES,
    InferenceHeader,
    OutputRequest,
    parse_inference_header,
)
from service.serve.wire.rows import SIMDJSON_BYTES_MIN, RowParser
from service.softmax.arrays import Floats

# Indices of the labels of B rows, or flags (B, K) of a multi-label model.
Labels = list[int] | NDArray[np.bool_]

DATATYPE_OF: Final = {"float32": "FP32", "float64": "FP64"}
# Parsed JSON parts that are cached, and the size of the largest; a client sends the same one with each tensor.
CACHED_HEADERS_MAX: Final = 256
CACHED_HEADER_BYTES_MAX: Final = 1024

_NAMES: Final = {dtype: name.encode() for dtype, name in DATATYPE_OF.items()}


class InferenceBody(NamedTuple):
    """A request: its id, the rows X (B, N), and the requested outputs."""

    id: str
    X: Floats
    outputs: tuple[OutputRequest, ...]


class TensorCodec:
    """Parses requests and encodes responses of one served model. Use it on the event loop's thread only.

    Args:
        rows: The parser of the model's rows.
        features: The model's features by name.
        model_fields: The fields of every response that name the model: model_name and model_version.
        state_fields: The parameters of every response that name the state: seq, and epoch.
        classes: The names of the classes.
    """

    def __init__(
        self,
        rows: RowParser,
        features: FeatureColumns,
        model_fields: dict[str, str],
        state_fields: dict[str, int],
        classes: tuple[str, ...],
    ) -> None:
        self._rows = rows
        self._features = features
        self._model_fields = model_fields
        self._name = model_fields.get("model_name")
        self._classes = classes
        self._start = orjson.dumps(model_fields)[:-1] + b',"id":'
        self._middle = b',"parameters":%b,"outputs":[' % orjson.dumps(state_fields)
        self._little = rows.dtype.newbyteorder("<")
        datatype = _NAMES[rows.dtype.name]
        self._probabilities_start = self._middle + b'{"name":"probabilities","datatype":"%b","shape":' % datatype
        self._headers: dict[bytes, InferenceHeader] = {}

    def parse_inference(self, body: bytes, header_length: bytes | None) -> InferenceBody:
        """Parse a request.

        Args:
            body: The whole body.
            header_length: The value of Inference-Header-Content-Length, or None if the header is missing.

        Raises:
            MalformedError: The bytes do not follow the protocol.
            UnacceptableError: The bytes follow the protocol, but have no rows of this model.
            TooLargeError: There are more rows than the limit.
        """
        rows = self._rows
        if header_length is None:
            usual = _parse_usual_row(body, rows, self._name) if len(body) < SIMDJSON_BYTES_MIN else None
            if usual is not None:
                return usual
            header = self._parse_document(body)
            if header.inputs.binary_size is not None:
                raise MalformedError("Binary data needs the header Inference-Header-Content-Length; see docs/http.md.")
            return self._convert(header, memoryview(b""))
        length = _header_length(header_length, len(body))
        binary = memoryview(body)[length:]
        if length == 0:
            return InferenceBody("", _convert_raw_tensor(binary, rows), BINARY_PROBABILITIES)
        header = self._parse_header(body[:length])
        inputs = header.inputs
        size = inputs.binary_size
        if inputs.whole and len(binary) == size:
            return InferenceBody(header.id, rows.convert_binary(binary, inputs.whole, inputs.n_rows), header.outputs)
        if size is None and len(binary):
            raise MalformedError('The body has binary data, but no input has a "binary_data_size".')
        if size is not None and len(binary) != size:
            raise MalformedError(
                f'The inputs have a "binary_data_size" of {size}, but the body has {len(binary)} bytes of binary data.'
            )
        return self._convert(header, binary)

    def _parse_document(self, text: bytes) -> InferenceHeader:
        document = self._rows.parse_tensor_document(text)
        return parse_inference_header(document, self._model_fields, self._features, self._rows)

    def _convert(self, header: InferenceHeader, binary: memoryview) -> InferenceBody:
        return InferenceBody(
            header.id, convert_inputs(header.inputs, binary, self._features, self._rows), header.outputs
        )

    def _parse_header(self, text: bytes) -> InferenceHeader:
        """Parse a JSON part, or return the cached result of the same bytes."""
        header = self._headers.get(text)
        if header is None:
            header = self._parse_document(text)
            if header.inputs.binary_size is not None and len(text) <= CACHED_HEADER_BYTES_MAX:
                if len(self._headers) >= CACHED_HEADERS_MAX:
                    self._headers.clear()
                self._headers[text] = header
        return header

    def encode_inference(
        self, request: InferenceBody, P: Floats, labels: Labels, more: Mapping[str, Floats] | None = None
    ) -> tuple[bytes, int | None]:
        """Encode a response.

        Args:
            request: The request.
            P: Probabilities (B, K).
            labels: Indices of the B labels, or flags (B, K) of a multi-label model.
            more: The other requested outputs by their names.

        Returns:
            The body, and the size of its JSON part if binary data follows, else None.
        """
        if request.outputs is JSON_PROBABILITIES:
            identity = orjson.dumps(request.id) if request.id else b'""'
            numbers = orjson.dumps(P.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
            return b'%b%b%b[%d,%d],"data":%b}]}' % (
                self._start,
                identity,
                self._probabilities_start,
                *P.shape,
                numbers,
            ), None
        if request.outputs is BINARY_PROBABILITIES:
            identity = orjson.dumps(request.id) if request.id else b'""'
            raw = P.astype(self._little, copy=False).tobytes()
            text = b'%b%b%b[%d,%d],"parameters":{"binary_data_size":%d}}]}' % (
                self._start, identity, self._probabilities_start, *P.shape, len(raw)
            )  # fmt: skip
            return text + raw, len(text)
        parts: list[bytes] = []
        outputs: list[bytes] = []
        for output in request.outputs:
            datatype, shape, values, raw = self._encode_output(output, P, labels, more or {})
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

    def _encode_output(
        self, output: OutputRequest, P: Floats, labels: Labels, more: Mapping[str, Floats]
    ) -> tuple[bytes, tuple[int, ...], Any, Any]:
        """Return the datatype, the shape, the JSON values and a function that encodes the binary data of an output."""
        if output.top:
            texts = _classification(output.top, P, self._classes)
            return b"BYTES", (len(P), len(texts) // len(P)), texts, lambda: _encode_bytes_elements(texts)
        if output.name in more:
            P = more[output.name]
        if output.name != "labels":
            return _NAMES[P.dtype.name], P.shape, P.ravel(), P.astype(self._little, copy=False).tobytes
        if isinstance(labels, np.ndarray):
            return b"BOOL", labels.shape, labels.ravel(), labels.tobytes
        names = [self._classes[label] for label in labels]
        return b"BYTES", (len(names),), names, lambda: _encode_bytes_elements(names)


def _shape_text(shape: tuple[int, ...]) -> bytes:
    return b"[" + b",".join([b"%d" % size for size in shape]) + b"]"


def _parse_usual_row(body: bytes, rows: RowParser, model_name: str | None) -> InferenceBody | None:
    """Parse a request of one row in the usual form, or return None; the general parser then finds the error.

    The form has one string for each key and for name, datatype, id and the model's name, which KServe's client sends
    with an id. It has no escapes, so no key is repeated.
    """
    try:
        document = orjson.loads(body)
        (tensor,) = document["inputs"]
        identity, quotes = ("", 14) if len(document) == 1 else (document["id"], 18)
        if len(document) == 3:  # noqa: PLR2004  # the keys id, model_name and inputs
            quotes = 22 if document["model_name"] == model_name else 0
        data, (count, width) = tensor["data"], tensor["shape"]
        usual = (
            body.count(b'"') == quotes
            and b"\\" not in body
            and len(tensor) == 4  # noqa: PLR2004  # the keys name, shape, datatype and data
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


def _convert_raw_tensor(binary: memoryview, rows: RowParser) -> Floats:
    size = rows.n_features * rows.dtype.itemsize
    if not len(binary) or len(binary) % size:
        raise MalformedError(f"A raw tensor must have whole rows of {size} bytes.")
    check_row_count(len(binary) // size, rows.rows_max)
    return rows.convert_binary(binary, DATATYPES[DATATYPE_OF[rows.dtype.name]], len(binary) // size)


def _classification(top: int, P: Floats, classes: tuple[str, ...]) -> list[str]:
    """Return the top k classes of each row as "probability:index:name", the most probable first, ties by index.

    `!s` writes the shortest decimal that parses to the same number of its dtype, as in JSON data.
    """
    order = np.argsort(-P, axis=1, kind="stable")[:, :top]
    return [f"{P[i, k]!s}:{k}:{classes[k]}" for i, row in enumerate(order.tolist()) for k in row]


def _encode_bytes_elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
