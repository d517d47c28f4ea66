"""Translate ModelInfer between its messages and the bodies of HTTP: a JSON part, then binary tensors.

    contents of an input            binary data
    raw_input_contents              as it is
    contents, by the datatype       little-endian values; a BYTES element after its length in four bytes

An input has raw contents or contents, and so have all inputs of a request. All outputs are raw.

Source: Open Inference Protocol, inference_grpc.md; wire/oip_tensors.py has the binary layout.
"""

import struct
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from service.errors import MalformedError, UnacceptableError
from service.serve.grpc.grpc_messages import InferResponse, Message
from service.serve.grpc.message_framing import frame_message
from service.serve.responses import TENSOR_HEADER, HttpResponse
from service.serve.wire.oip_inputs import BOOL, DATATYPES

BYTES: Final = "BYTES"
# The field of `InferTensorContents` for each datatype; FP16 has none.
CONTENTS: Final = {
    BOOL: "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}  # fmt: skip
_DTYPES: Final = {**DATATYPES, BOOL: "|u1"}


class InferBody(NamedTuple):
    """The body of an HTTP request with the same meaning.

    Attributes:
        document: The JSON part.
        tensors: The binary data of each input.
    """

    document: dict[str, Any]
    tensors: list[bytes]

    def join(self) -> tuple[bytes, bytes]:
        """Return the body, and the value of Inference-Header-Content-Length."""
        text = orjson.dumps(self.document)
        return b"".join((text, *self.tensors)), b"%d" % len(text)


def translate_request(request: Message) -> InferBody:
    """Return the body of a request.

    Raises:
        MalformedError: The request contradicts itself.
        UnacceptableError: An input has contents that are not of its datatype.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise MalformedError(
            f"The request has {len(raw)} raw_input_contents for {len(request.inputs)} inputs; send one for each."
        )
    inputs, tensors = [], []
    for number, tensor in enumerate(request.inputs):
        data = raw[number] if raw else _contents(tensor)
        if raw and tensor.HasField("contents"):
            raise MalformedError("An input may not have contents beside raw_input_contents; send one of them.")
        _check_size(tensor, len(data))
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(data)},
            }
        )
        tensors.append(data)
    document: dict[str, Any] = {"id": request.id, "inputs": inputs, "parameters": {"binary_data_output": True}}
    if request.outputs:
        document["outputs"] = [_output(output) for output in request.outputs]
    return InferBody(document, tensors)


def _output(output: Message) -> dict[str, Any]:
    """Return the JSON form of a requested output; of its parameters `classification` alone has a meaning."""
    if "classification" not in output.parameters:
        return {"name": output.name}
    parameter = output.parameters["classification"]
    kind = parameter.WhichOneof("parameter_choice")
    return {
        "name": output.name,
        "parameters": {"classification": None if kind is None else getattr(parameter, kind)},
    }


def _check_size(tensor: Message, size: int) -> None:
    """Raise MalformedError if an input of numbers has not as many bytes as its shape needs."""
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None or not tensor.shape or min(tensor.shape) < 1:
        return  # the handler refuses it
    expected = np.dtype(dtype).itemsize
    for length in tensor.shape:
        expected *= length
    if size != expected:
        raise MalformedError(f"The contents of an input must have {expected} bytes for its shape and datatype.")


def _contents(tensor: Message) -> bytes:
    """Return the contents of an input as binary data."""
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        if tensor.datatype in _DTYPES:
            raise UnacceptableError(f"{tensor.datatype} has no field of contents; send it in raw_input_contents.")
        return b""  # the handler refuses the datatype
    if any(one.name != field for one, _ in tensor.contents.ListFields()):
        raise UnacceptableError(f"The contents of a {tensor.datatype} input must be in {field}.")
    values = getattr(tensor.contents, field)
    if field == "bytes_contents":
        return b"".join(part for text in values for part in (struct.pack("<I", len(text)), text))
    dtype = np.dtype(_DTYPES[tensor.datatype])
    try:
        return np.array(values, dtype).tobytes()
    except OverflowError:
        raise UnacceptableError(f"The contents of a {tensor.datatype} input have a value out of its range.") from None


def translate_response(response: HttpResponse) -> bytes:
    """Return the framed message of a response with status 200, all of whose outputs are binary."""
    header = dict(response.headers)[TENSOR_HEADER]
    start = int(header)
    document = orjson.loads(response.body[:start])
    message = InferResponse(
        model_name=document["model_name"], model_version=document["model_version"], id=document["id"]
    )
    for name, value in document["parameters"].items():
        message.parameters[name].int64_param = value
    for output in document["outputs"]:
        message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        stop = start + output["parameters"]["binary_data_size"]
        message.raw_output_contents.append(response.body[start:stop])
        start = stop
    return frame_message(message.SerializeToString())
