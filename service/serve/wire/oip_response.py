"""Encode responses of the Open Inference Protocol v2, as JSON or with binary data; oip_tensors.py has the layout.

Source: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md and
extension_classification.md.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.serve.wire.oip_request import BINARY_PROBABILITIES, JSON_PROBABILITIES, OutputRequest
from service.softmax.arrays import Floats
from service.softmax.sparse_rows import Rows

# Indices of the labels of B rows, or flags (B, K) of a multi-label model.
Labels = list[int] | NDArray[np.bool_]

DATATYPE_OF: Final = {"float32": "FP32", "float64": "FP64"}

_NAMES: Final = {dtype: name.encode() for dtype, name in DATATYPE_OF.items()}


class InferenceBody(NamedTuple):
    """A request: its id, the rows X (B, N), and the requested outputs."""

    id: str
    X: Rows
    outputs: tuple[OutputRequest, ...]


class ResponseEncoder:
    """Encodes the responses of one served model.

    Args:
        dtype: The model's dtype.
        model_fields: The fields of every response that name the model: model_name and model_version.
        state_fields: The parameters of every response that name the state: seq, and epoch.
        classes: The names of the classes.

    Attributes:
        model_fields: As above.
        state_fields: As above.
    """

    def __init__(
        self,
        dtype: np.dtype[np.floating[Any]],
        model_fields: Mapping[str, str],
        state_fields: Mapping[str, int],
        classes: tuple[str, ...],
    ) -> None:
        self.model_fields: Final = model_fields
        self.state_fields: Final = state_fields
        self._classes = classes
        self._start = orjson.dumps(dict(model_fields))[:-1] + b',"id":'
        self._middle = b',"parameters":%b,"outputs":[' % orjson.dumps(dict(state_fields))
        self._little = dtype.newbyteorder("<")
        self._probabilities_start = (
            self._middle + b'{"name":"probabilities","datatype":"%b","shape":' % _NAMES[dtype.name]
        )

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


def _classification(top: int, P: Floats, classes: tuple[str, ...]) -> list[str]:
    """Return the top k classes of each row as "probability:index:name", the most probable first, ties by index.

    `!s` writes the shortest decimal that parses to the same number of its dtype, as in JSON data.
    """
    order = np.argsort(-P, axis=1, kind="stable")[:, :top]
    return [f"{P[i, k]!s}:{k}:{classes[k]}" for i, row in enumerate(order.tolist()) for k in row]


def _encode_bytes_elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
