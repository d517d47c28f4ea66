"""Predictions of large NumPy arrays in the Open Inference Protocol v2, whose numbers travel as they are in memory.

A request is a JSON object, which announces the sizes, followed by the numbers, row by row, little-endian. The header
`Inference-Header-Content-Length` has the bytes of the JSON part. The answer is built in the same way: probabilities as
binary data, labels as JSON.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from softstep_client.json_text import encode_json

# Arrays of at least so many numbers are sent as binary data. JSON is as fast up to some 300 numbers, and takes four
# times as long for 4,096 (measured by hand over loopback).
BINARY_NUMBERS_MIN = 512

# The letter of a NumPy dtype's kind, and the name of the protocol's type without its bits.
DATATYPES = {"f": "FP", "i": "INT", "u": "UINT"}
OUTPUT_DTYPES = {"FP32": "<f4", "FP64": "<f8"}
HEADER = b"Inference-Header-Content-Length"
# Tensors of features may have any name.
INPUT_NAME = "rows"


class TensorAnswer(NamedTuple):
    """The answer to a binary request.

    Attributes:
        body: The JSON part.
        probabilities: A NumPy array [rows, classes] of the model's dtype.
        labels: For each row its label; of a multi-label model [rows x classes] booleans.
        are_flags: Whether the labels are booleans.
    """

    body: dict[str, Any]
    probabilities: Any
    labels: list[Any]
    are_flags: bool


def encode_tensor(array: Any) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:  # noqa: ANN401 - a NumPy array
    """Return the body and the headers of a request.

    Args:
        array: Numbers [rows, features] of 1, 2, 4 or 8 bytes.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    tensor = {
        "name": INPUT_NAME,
        "datatype": "BOOL" if kind == "b" else f"{DATATYPES[kind]}{8 * size}",
        "shape": list(array.shape),
        "parameters": {"binary_data_size": len(data)},
    }
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "labels"}]
    header = encode_json({"inputs": [tensor], "outputs": outputs})
    headers = ((b"Content-Type", b"application/octet-stream"), (HEADER, str(len(header)).encode()))
    return header + data, headers


def decode_tensors(parse_json: Any, content: bytes, json_bytes: str | None) -> TensorAnswer:  # noqa: ANN401 - a function
    """Parse the answer to a request of `encode_tensor`.

    Args:
        parse_json: Parses bytes as a JSON object.
        content: The body of the answer.
        json_bytes: The header `Inference-Header-Content-Length`.

    Raises:
        KeyError, LookupError, TypeError, ValueError: It is no such answer.
    """
    size = int(json_bytes or len(content))
    body = parse_json(content[:size])
    outputs = {output["name"]: output for output in body["outputs"]}
    probabilities, labels = outputs["probabilities"], outputs["labels"]
    # NumPy is imported, because the rows came as one of its arrays.
    numpy = sys.modules["numpy"]
    values = numpy.frombuffer(content, OUTPUT_DTYPES[probabilities["datatype"]], offset=size)
    # A copy, which the caller may change.
    values = values.reshape(probabilities["shape"]).copy()
    return TensorAnswer(body, values, labels["data"], labels["datatype"] == "BOOL")
