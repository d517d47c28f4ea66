"""ModelInfer answers as `/infer` over HTTP does, to the bit, whether its request is remembered or not."""

import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from google.protobuf.internal.encoder import _VarintBytes
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.grpc.call_status import STATUS_OF_CODE, STATUS_OF_HTTP
from service.serve.grpc.grpc_messages import InferRequest, Message
from service.serve.grpc.infer_messages import CONTENTS
from tests.support.budgets import examples
from tests.support.grpc_service import GrpcAnswer, GrpcCalls, GrpcService, grpc_calls
from tests.support.running_service import NO_TLS

WIDTHS = {"iris": 4, "digits": 64, "double": 3, "ovr": 4, "tags": 3, "network": 3, "platt": 4}
DTYPES = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "BOOL": "|u1",
}  # fmt: skip
OUTPUTS = ("probabilities", "labels", "logits")
ROW = np.array([[5.1, 3.5, 1.4, 0.2]], "<f4")
HEADER = "inference-header-content-length"
CLIENT = httpx.Client(verify=NO_TLS)


def infer_request(X: Any, datatype: str = "FP32", model: str = "iris", *, raw: bool = True, **fields: Any) -> Message:
    """Return a request with the numbers of one input, as raw contents or one by one."""
    request = InferRequest(model_name=model, **fields)
    tensor = request.inputs.add(name="features", datatype=datatype, shape=X.shape)
    if raw:
        request.raw_input_contents.append(X.tobytes())
    else:
        getattr(tensor.contents, CONTENTS[datatype]).extend(X.ravel().tolist())
    return request


def ask_http(url: str, request: Message) -> httpx.Response:
    """Send the same request over HTTP, its numbers as binary data."""
    document: dict[str, Any] = {"id": request.id, "parameters": {"binary_data_output": True}, "inputs": []}
    parts = []
    for number, tensor in enumerate(request.inputs):
        if request.raw_input_contents:
            parts.append(request.raw_input_contents[number])
        else:
            values = getattr(tensor.contents, CONTENTS[tensor.datatype])
            if tensor.datatype == "BYTES":
                parts.append(b"".join(struct.pack("<I", len(text)) + text for text in values))
            else:
                parts.append(np.array(list(values), DTYPES[tensor.datatype]).tobytes())
        document["inputs"].append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(parts[-1])},
            }
        )
    if request.outputs:
        document["outputs"] = [
            {
                "name": output.name,
                "parameters": {name: value.int64_param for name, value in output.parameters.items()},
            }
            for output in request.outputs
        ]
    text = orjson.dumps(document)
    version = f"/versions/{request.model_version}" if request.model_version else ""
    path = f"{url}/v2/models/{request.model_name}{version}/infer"
    return CLIENT.post(path, content=text + b"".join(parts), headers={HEADER: str(len(text))})


def check_equal(answer: GrpcAnswer, response: httpx.Response) -> None:
    """Fail unless an answer has the tensors, or the error, of a response over HTTP."""
    if response.status_code != 200:
        error = response.json()
        assert (answer.sentence, answer.code) == (error["error"], error["code"])
        expected = STATUS_OF_CODE.get(error["code"]) or STATUS_OF_HTTP[response.status_code]
        assert answer.status.value[0] == expected
        return
    assert answer.message is not None, answer
    start = int(response.headers[HEADER])
    document = orjson.loads(response.content[:start])
    message = answer.message
    assert (message.model_name, message.model_version) == (document["model_name"], document["model_version"])
    assert message.id == document["id"]
    assert {name: value.int64_param for name, value in message.parameters.items()} == document["parameters"]
    assert len(message.outputs) == len(document["outputs"]) == len(message.raw_output_contents)
    for output, raw, expected in zip(message.outputs, message.raw_output_contents, document["outputs"], strict=True):
        stop = start + expected["parameters"]["binary_data_size"]
        assert (output.name, output.datatype, list(output.shape)) == tuple(
            expected[name] for name in ("name", "datatype", "shape")
        )
        assert raw == response.content[start:stop]
        start = stop


@st.composite
def requests(draw: st.DrawFn) -> Message:
    """Draw a request: mostly valid, with numbers of any datatype, of which some are not finite or do not fit."""
    model = draw(st.sampled_from(sorted(WIDTHS)))
    datatype = draw(st.sampled_from(["FP32", *sorted(DTYPES)]))
    width = draw(st.sampled_from([WIDTHS[model]] * 9 + [WIDTHS[model] + 1]))
    shape = (draw(st.sampled_from([1, 1, 2, 7])), width)
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    dtype = np.dtype(DTYPES[datatype])
    if datatype == "BOOL":
        X = random.integers(0, 2, shape).astype(dtype)
    elif dtype.kind == "f":
        X = random.normal(0, draw(st.sampled_from([1.0, 100.0])), shape).astype(dtype)
        X[0, 0] = draw(st.sampled_from([X[0, 0]] * 9 + [np.nan]))
    else:
        X = random.integers(0, 100, shape).astype(dtype)
    raw = draw(st.booleans()) or datatype not in CONTENTS
    request = infer_request(X, datatype, model, raw=raw, id=draw(st.sampled_from(["", "", "seven", "ü"])))
    request.model_version = draw(st.sampled_from(["", "", "1", "9", "x"]))
    for name in draw(st.lists(st.sampled_from([*OUTPUTS, "unknown"]), max_size=3)):
        output = request.outputs.add(name=name)
        if name == "probabilities" and draw(st.booleans()):
            output.parameters["classification"].int64_param = draw(st.integers(-1, 3))
    return request


@pytest.fixture(scope="module", autouse=True)
def _http_client() -> Iterator[None]:
    """Close the connections of all tests at their end."""
    with CLIENT:
        yield


@pytest.fixture(scope="module")
def channel(grpc_service: GrpcService) -> Iterator[GrpcCalls]:
    """One channel for all examples."""
    with grpc_calls(grpc_service.target) as made:
        yield made


@given(drawn=requests())
@settings(max_examples=examples(2000), deadline=None)
def test_answers_are_those_of_http(grpc_service: GrpcService, channel: GrpcCalls, drawn: Message) -> None:
    """Tensors, state, ids and errors are equal; so are they when the request comes again with other numbers."""
    for _ in range(2):
        check_equal(channel.ask("ModelInfer", drawn), ask_http(grpc_service.service.url, drawn))
        if drawn.raw_input_contents and drawn.inputs[0].datatype != "BOOL":
            raw = np.frombuffer(drawn.raw_input_contents[0], DTYPES[drawn.inputs[0].datatype])
            drawn.raw_input_contents[0] = (raw[::-1] / 2).astype(raw.dtype).tobytes()


def test_a_row_with_names_is_answered_as_over_http(grpc_service: GrpcService, calls: GrpcCalls) -> None:
    """A model with fields takes one tensor for each, texts among them, raw or one by one."""
    metadata = httpx.get(f"{grpc_service.service.url}/v2/models/penguins").json()["inputs"]
    values = {"BYTES": b"Biscoe", "FP64": 40.5, "BOOL": True, "INT64": 3}
    request = InferRequest(model_name="penguins")
    raw = InferRequest(model_name="penguins")
    for one in metadata:
        value = values[one["datatype"]]
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=[1, 1])
        getattr(tensor.contents, CONTENTS[one["datatype"]]).append(value)
        raw.inputs.add(name=one["name"], datatype=one["datatype"], shape=[1, 1])
        packed = struct.pack("<I", 6) + b"Biscoe" if isinstance(value, bytes) else struct.pack("<d", value)
        raw.raw_input_contents.append(packed)
    answer = calls.ask("ModelInfer", request)
    check_equal(answer, ask_http(grpc_service.service.url, request))
    assert calls.ask("ModelInfer", raw).message == answer.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one.raw_input_contents.append(b"12"), "has 2 raw_input_contents for 1 inputs"),
        (lambda one: one.inputs[0].contents.fp32_contents.append(1), "may not have contents beside raw"),
        (lambda one: one.raw_input_contents.pop(), "must have 16 bytes"),
        (lambda one: one.inputs[0].shape.append(2), "must have 32 bytes"),
        (lambda one: one.inputs.pop(), "has 1 raw_input_contents for 0 inputs"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(calls: GrpcCalls, change: Any, sentence: str) -> None:
    """The sentence speaks of the fields of the message."""
    request = infer_request(ROW)
    change(request)
    answer = calls.ask("ModelInfer", request)
    assert answer.status.name == "INVALID_ARGUMENT"
    assert sentence in answer.sentence


@pytest.mark.parametrize(
    ("datatype", "field", "value", "sentence"),
    [
        ("FP32", "fp64_contents", 1.0, "must be in fp32_contents"),
        ("FP16", "fp32_contents", 1.0, "FP16 has no field of contents"),
        ("INT8", "int_contents", 300, "have a value out of its range"),
        ("nothing", "fp32_contents", 1.0, '"datatype" must be one of'),
    ],
)
def test_contents_of_another_type_are_refused(
    calls: GrpcCalls, datatype: str, field: str, value: float, sentence: str
) -> None:
    """Each datatype has its field, and its range."""
    request = InferRequest(model_name="iris")
    tensor = request.inputs.add(name="features", datatype=datatype, shape=[1, 4])
    getattr(tensor.contents, field).extend([value] * 4)
    answer = calls.ask("ModelInfer", request)
    assert answer.status.name == "INVALID_ARGUMENT"
    assert sentence in answer.sentence


def test_numbers_that_do_not_come_last_are_not_remembered(calls: GrpcCalls) -> None:
    """A message may end with a field that looks like its numbers, but is another one; then those before it count."""
    other = np.array([[6.7, 3.1, 5.6, 2.4]], "<f4")
    usual = infer_request(ROW).SerializeToString()
    expected = [calls.ask("ModelInfer", infer_request(X)).message for X in (ROW, other)]
    assert expected[0] != expected[1]
    for X in (ROW, other, other):
        tail = b"\x3a\x10" + X.tobytes()
        message = usual + b"\xa2\x06" + _VarintBytes(len(tail)) + tail  # an unknown field, 100
        assert calls.ask("ModelInfer", message).message == expected[0]


def test_a_request_with_an_id_gets_its_id_back(calls: GrpcCalls) -> None:
    """Also if the same request without an id is remembered."""
    for _ in range(3):
        assert calls.ask("ModelInfer", infer_request(ROW)).message.id == ""
        assert calls.ask("ModelInfer", infer_request(ROW, id="a")).message.id == "a"
