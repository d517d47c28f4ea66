"""Parse requests of the Open Inference Protocol v2 for models whose rows are numbers.

A body is a JSON object. With the header `Inference-Header-Content-Length: n` it is a JSON object of n bytes, then the
tensors that have a `binary_data_size`: little-endian, row-major, without padding. If n is 0, the body is one raw FP32
or FP64 tensor. A BYTES element is its length in four little-endian bytes, then its bytes; a BOOL element is one byte.
oip_response.py encodes the responses.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from service.errors import MalformedError
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import check_row_count
from service.serve.wire.oip_inputs import DATATYPES, convert_inputs
from service.serve.wire.oip_request import (
    BINARY_PROBABILITIES,
    JSON_PROBABILITIES,
    InferenceHeader,
    check_binary_data,
    parse_inference_header,
)
from service.serve.wire.oip_response import DATATYPE_OF, InferenceBody, ResponseEncoder
from service.serve.wire.rows import SIMDJSON_BYTES_MIN, RowParser
from service.softmax.arrays import Floats

# Parsed JSON parts that are cached, and the size of the largest; a client sends the same one with each tensor.
CACHED_HEADERS_MAX: Final = 256
CACHED_HEADER_BYTES_MAX: Final = 1024


class TensorCodec(ResponseEncoder):
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
        model_fields: Mapping[str, str],
        state_fields: Mapping[str, int],
        classes: tuple[str, ...],
    ) -> None:
        super().__init__(rows.dtype, model_fields, state_fields, classes)
        self._rows = rows
        self._features = features
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
            usual = (
                _parse_usual_row(body, rows, self.model_fields.get("model_name"))
                if len(body) < SIMDJSON_BYTES_MIN
                else None
            )
            if usual is not None:
                return usual
            header = self._parse_document(body)
            check_binary_data(header.inputs.binary_size, 0, has_header=False)
            return self._convert(header, memoryview(b""))
        length = parse_header_length(header_length, len(body))
        binary = memoryview(body)[length:]
        if length == 0:
            return InferenceBody("", _convert_raw_tensor(binary, rows), BINARY_PROBABILITIES)
        header = self._parse_header(body[:length])
        inputs = header.inputs
        size = inputs.binary_size
        if inputs.whole and len(binary) == size:
            return InferenceBody(header.id, rows.convert_binary(binary, inputs.whole, inputs.n_rows), header.outputs)
        check_binary_data(size, len(binary), has_header=True)
        return self._convert(header, binary)

    def _parse_document(self, text: bytes) -> InferenceHeader:
        document = self._rows.parse_tensor_document(text)
        return parse_inference_header(document, self.model_fields, self._features, self._rows)

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


def parse_header_length(text: bytes, available: int) -> int:
    """Return the value of Inference-Header-Content-Length.

    Args:
        text: The value.
        available: The bytes of the body.

    Raises:
        MalformedError: It is no number, or larger than the body.
    """
    if not text.isdigit() or len(text) > 19 or int(text) > available:  # noqa: PLR2004  # a 64-bit number
        raise MalformedError("Inference-Header-Content-Length must be the size in bytes of the JSON part of the body.")
    return int(text)


def _convert_raw_tensor(binary: memoryview, rows: RowParser) -> Floats:
    size = rows.n_features * rows.dtype.itemsize
    if not len(binary) or len(binary) % size:
        raise MalformedError(f"A raw tensor must have whole rows of {size} bytes.")
    check_row_count(len(binary) // size, rows.rows_max)
    return rows.convert_binary(binary, DATATYPES[DATATYPE_OF[rows.dtype.name]], len(binary) // size)
