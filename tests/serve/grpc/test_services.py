"""The clients of Triton, and those of gRPC's health and reflection protocols, against a running service."""

import asyncio
import contextlib
import queue
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from service.serve.grpc.grpc_messages import FILES, HEALTH, INFERENCE, SERVICES, InferRequest, message_class
from service.serve.grpc.message_framing import frame_message
from tests.support.grpc_service import GrpcCalls, GrpcService
from tests.support.programs import program
from tests.support.running_service import NO_TLS
from tests.support.waiting import SECONDS

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ReflectionRequest = message_class("grpc.reflection.v1.ServerReflectionRequest")
ReflectionResponse = message_class("grpc.reflection.v1.ServerReflectionResponse")


@pytest.fixture
def client(grpc_service: GrpcService) -> Iterator[triton.InferenceServerClient]:
    """Triton's client."""
    with triton.InferenceServerClient(grpc_service.target) as made:
        yield made


@pytest.fixture
def channel(grpc_service: GrpcService) -> Iterator[grpc.Channel]:
    """A channel of grpcio."""
    with grpc.insecure_channel(grpc_service.target) as made:
        yield made


def infer_input(library: Any = triton) -> Any:
    """Return the input of one row."""
    tensor = library.InferInput("features", [1, 4], "FP32")
    tensor.set_data_from_numpy(ROW)
    return tensor


def test_tritons_client_makes_its_calls(client: triton.InferenceServerClient) -> None:
    """Probes, metadata, configuration, statistics, the repository, and inference with all outputs."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1")
    assert not client.is_model_ready("unknown")
    assert client.get_server_metadata().name == "softstep"
    metadata = client.get_model_metadata("iris")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [("features", "FP32", [-1, 4])]
    config = client.get_model_config("iris").config
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("iris", 65536, [4])
    outputs = [triton.InferRequestedOutput("labels"), triton.InferRequestedOutput("probabilities")]
    answer = client.infer("iris", [infer_input()], outputs=outputs, request_id="seven")
    assert answer.as_numpy("labels").tolist() == [b"setosa"]
    assert answer.as_numpy("probabilities").shape == (1, 3)
    assert (answer.get_response().id, answer.get_response().model_version) == ("seven", "1")
    before = client.get_inference_statistics("iris").model_stats[0].inference_count
    client.infer("iris", [infer_input()])
    assert client.get_inference_statistics("iris").model_stats[0].inference_count == before + 1
    assert len(client.get_inference_statistics().model_stats) > 3
    assert {one.state for one in client.get_model_repository_index().models} >= {"READY"}


def test_tritons_client_unloads_and_loads_a_model(client: triton.InferenceServerClient) -> None:
    """An unloaded model is not ready, and its inference unavailable, until it is loaded again."""
    client.unload_model("staged")
    assert not client.is_model_ready("staged")
    with pytest.raises(InferenceServerException, match="not ready") as refused:
        client.infer("staged", [infer_input()])
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("staged")
    assert client.is_model_ready("staged")
    with pytest.raises(InferenceServerException, match="parameters"):
        client.load_model("staged", config="{}")
    with pytest.raises(InferenceServerException, match="unknown model"):
        client.load_model("a/b")


def test_tritons_asynchronous_client_makes_many_calls_at_once(grpc_service: GrpcService) -> None:
    """All of them are answered, on one connection."""

    async def talk() -> list[Any]:
        async with triton_aio.InferenceServerClient(grpc_service.target) as client:
            inputs = [infer_input(triton_aio)]
            return await asyncio.gather(*(client.infer("iris", inputs, request_id=str(i)) for i in range(300)))

    answers = asyncio.run(talk())
    assert [answer.get_response().id for answer in answers] == [str(i) for i in range(300)]
    assert len({answer.as_numpy("probabilities").tobytes() for answer in answers}) == 1


def test_streams_of_inference_are_refused(client: triton.InferenceServerClient) -> None:
    """The error says what to call instead."""
    failures: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: failures.put((result, error)))
    with contextlib.suppress(InferenceServerException):  # the stream may have been refused already
        client.async_stream_infer("iris", [infer_input()])
    result, error = failures.get(timeout=SECONDS)
    client.stop_stream()
    assert result is None
    assert "call ModelInfer" in str(error)
    assert "UNIMPLEMENTED" in str(error) or error.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("method", ["/inference.GRPCInferenceService/TraceSetting", "/other/Method", "/"])
def test_other_methods_are_unimplemented(calls: GrpcCalls, method: str) -> None:
    """A client finds out which methods there are by reflection."""
    answer = calls.ask(method, b"", answer=InferRequest)
    assert (answer.status, answer.code) == (grpc.StatusCode.UNIMPLEMENTED, "not_found")


def test_a_health_client_gets_the_status(channel: grpc.Channel, calls: GrpcCalls) -> None:
    """Check and Watch know the server and its services; List has all."""
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICES):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
    with pytest.raises(grpc.RpcError) as refused:
        health.Check(health_pb2.HealthCheckRequest(service="iris"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    request, answer = (message_class(f"grpc.health.v1.HealthList{end}") for end in ("Request", "Response"))
    listed = calls.ask(f"/{HEALTH}/List", request(), answer=answer).message
    assert {name: one.status for name, one in listed.statuses.items()} == dict.fromkeys(("", *SERVICES), 1)


def test_a_health_client_watches(channel: grpc.Channel) -> None:
    """The first answer is the status now; the stream stays open until the client ends it."""
    health = health_pb2_grpc.HealthStub(channel)
    for name, status in (("", 1), ("unknown", 3)):
        watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
        assert next(watch).status == status
        watch.cancel()
    with pytest.raises(grpc.RpcError) as ended:
        list(health.Watch(health_pb2.HealthCheckRequest(), timeout=0.5))
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_reflection_client_finds_the_services(channel: grpc.Channel) -> None:
    """It makes the messages of an inference from what the service says, and makes the call."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert list(database.get_services()) == list(SERVICES)
    pool = DescriptorPool(database)
    method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    assert method.input_type.full_name == "inference.ModelInferRequest"
    assert {field.name for field in method.input_type.fields} == {
        field.name for field in InferRequest.DESCRIPTOR.fields
    }


def reflect(channel: grpc.Channel, questions: list[Any]) -> list[Any]:
    """Return the answers to questions on one stream."""
    call = channel.stream_stream(
        REFLECTION,
        lambda one: one if isinstance(one, bytes) else one.SerializeToString(),
        ReflectionResponse.FromString,
    )
    return list(call(iter(questions), timeout=SECONDS))


def test_each_question_of_reflection_has_its_answer(channel: grpc.Channel) -> None:
    """In their order; a question about what does not exist has an error of its own."""
    ask = partial(ReflectionRequest, host="here")
    answers = reflect(
        channel,
        [
            ask(list_services=""),
            ask(file_by_filename="health.proto"),
            ask(file_by_filename="nothing.proto"),
            ask(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
            ask(file_containing_symbol="nothing"),
            ask(all_extension_numbers_of_type="inference.ModelInferRequest"),
            ask(file_containing_extension={"containing_type": "inference.ModelInferRequest", "extension_number": 1}),
            ask(),
        ],
    )
    assert [one.name for one in answers[0].list_services_response.service] == list(SERVICES)
    assert answers[1].file_descriptor_response.file_descriptor_proto == [FILES["health.proto"]]
    assert answers[3].file_descriptor_response.file_descriptor_proto == [FILES["inference.proto"]]
    assert answers[5].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [0, 0, 5, 0, 5, 0, 5, 3]
    assert {answer.valid_host for answer in answers} == {"here"}


@pytest.mark.parametrize(
    ("questions", "status"),
    [
        ([ReflectionRequest(list_services="")] * 257, grpc.StatusCode.INVALID_ARGUMENT),
        ([b"\xff"], grpc.StatusCode.INVALID_ARGUMENT),
        ([ReflectionRequest(host="x" * 20_000)], grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_reflection_has_limits(channel: grpc.Channel, questions: list[Any], status: grpc.StatusCode) -> None:
    """Too many messages, a long one and bytes that are no message end the call."""
    with pytest.raises(grpc.RpcError) as refused:
        reflect(channel, questions)
    assert refused.value.code() == status


def test_a_stream_without_questions_has_no_answers(channel: grpc.Channel) -> None:
    """It ends well."""
    assert reflect(channel, []) == []


def predicted(service: GrpcService) -> int:
    """Return how many requests of v2 to iris were answered."""
    text = httpx.get(f"{service.service.url}/metrics", verify=NO_TLS).text
    labels = {"model": "iris", "version": "1", "protocol": "v2"}
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    name = "softstep_predict_requests_total"
    return int(next(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)))


def test_another_implementation_of_http2_gets_all_its_answers(
    grpc_service: GrpcService, calls: GrpcCalls, tmp_path: Path
) -> None:
    """h2load, with many calls at once on each connection; every one is counted."""
    request = InferRequest(model_name="iris")
    request.inputs.add(name="features", datatype="FP32", shape=ROW.shape)
    request.raw_input_contents.append(ROW.tobytes())
    assert calls.ask("ModelInfer", request).status == grpc.StatusCode.OK
    (tmp_path / "body").write_bytes(frame_message(request.SerializeToString()))
    before = predicted(grpc_service)
    command = [program("h2load"), "--requests", "2000", "--clients", "4", "--max-concurrent-streams", "16"]
    command += [
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
        "--data",
        str(tmp_path / "body"),
    ]
    url = f"http://{grpc_service.target}/{INFERENCE}/ModelInfer"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in done.stdout
    assert predicted(grpc_service) == before + 2000


def test_a_message_of_another_type_is_refused(calls: GrpcCalls) -> None:
    """Whatever answers the method."""
    for method in ("ModelInfer", "ServerLive", "ModelMetadata"):
        answer = calls.ask(method, b"\xff\xff")
        assert (answer.status, answer.code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed_body")


def test_compressed_messages_are_refused(client: triton.InferenceServerClient) -> None:
    """The error says how to send them; the answer is not compressed."""
    rows = np.zeros((1000, 4), np.float32)
    tensor = triton.InferInput("features", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows)
    with pytest.raises(InferenceServerException, match="without compression") as refused:
        client.infer("iris", [tensor], compression_algorithm="gzip")
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
