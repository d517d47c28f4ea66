"""Usual requests of ModelInfer are remembered until models or keys change; unusual ones are not."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from ngh2 import Connection, Role
from ngh2.events import TrailersReceived
from uvicorn.server import ServerState

from service.access.principal import Limits, Principal
from service.access.scopes import ALL_SCOPES
from service.serve.grpc.grpc_connection import GrpcConnection
from service.serve.grpc.grpc_messages import InferRequest
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.infer_messages import translate_request
from service.serve.grpc.infer_plan import PLANS_MAX, InferPlan, InferPlans, make_plan
from service.serve.grpc.message_framing import frame_message
from service.serve.models.endpoint import Endpoint
from service.serve.responses import RequestHead
from tests.support.http2_client import call_headers
from tests.support.server_pair import Pair

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], "<f4")


def infer_request(model: str = "iris", X: Any = ROW, datatype: str = "FP32", **fields: Any) -> Any:
    """Return a request of some rows."""
    request = InferRequest(model_name=model, **fields)
    request.inputs.add(name="features", datatype=datatype, shape=X.shape)
    request.raw_input_contents.append(X.tobytes())
    return request


def endpoint_of(pair: Pair, model: str) -> Endpoint:
    """Return the endpoint of a model."""
    return pair.worker.registry.now.fast_endpoints[f"/v2/models/{model}/infer".encode()]


def plan_of(pair: Pair, request: Any, head: RequestHead | None = None, data: bytes | None = None) -> InferPlan | None:
    """Return the plan of a request, or None."""
    data = data or frame_message(request.SerializeToString())
    endpoint = endpoint_of(pair, request.model_name)
    return make_plan(data, request, translate_request(request), endpoint, head or RequestHead())


def test_a_usual_request_is_remembered_up_to_its_numbers(pair: Pair) -> None:
    """Of any datatype of numbers and with any number of rows; its parameters have no meaning."""
    for X, datatype in ((ROW, "FP32"), (np.zeros((7, 4), "<f8"), "FP64"), (np.ones((2, 4), "|u1"), "UINT8")):
        request = infer_request(X=X, datatype=datatype)
        request.parameters["priority"].int64_param = 1
        plan = plan_of(pair, request)
        assert plan is not None
        data = frame_message(request.SerializeToString())
        assert (plan.prefix + X.tobytes(), plan.size) == (data, len(data))


def test_an_unusual_request_is_not_remembered(pair: Pair) -> None:
    """Those with an id, with other outputs, with flags, with one input for each feature, large, or with a long name."""
    labels, probabilities, classes = infer_request(), infer_request(), infer_request()
    labels.outputs.add(name="labels")
    probabilities.outputs.add(name="probabilities")
    classes.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    assert plan_of(pair, probabilities) is not None
    several = InferRequest(model_name="iris")
    for name in pair.worker.registry.now.find_served("iris", None).artifact.column_names:
        several.inputs.add(name=name, datatype="FP32", shape=[1])
        several.raw_input_contents.append(bytes(4))
    long = infer_request()
    long.inputs[0].name = "x" * 2000
    unusual = [
        labels,
        classes,
        several,
        long,
        infer_request(id="7"),
        infer_request(X=np.ones((1, 4), "|u1"), datatype="BOOL"),
        infer_request(X=np.zeros((5000, 4), "<f4")),
    ]
    assert [plan_of(pair, request) for request in unusual] == [None] * len(unusual)
    limited = RequestHead(principal=Principal("key:a", ALL_SCOPES, limits=Limits(requests_per_second=5)))
    assert plan_of(pair, infer_request(), limited) is None
    tail = frame_message(infer_request().SerializeToString() + b"\xa2\x06\x12\x3a\x10" + ROW.tobytes())
    request = InferRequest.FromString(tail[5:])
    assert plan_of(pair, request, data=tail) is None


def test_few_plans_are_kept_for_one_head(pair: Pair) -> None:
    """A client that sends ever other sizes makes the table begin again."""
    plans = InferPlans(0)
    for rows in range(1, 4 * PLANS_MAX):
        request = infer_request(X=np.zeros((rows, 4), "<f4"))
        plan = plan_of(pair, request)
        assert plan is not None
        plans.add(plan)
        data = frame_message(request.SerializeToString())
        assert plans.find(data) is plan
        assert plans.find(data[:-1]) is None
        assert plans.find(b"\1" + data[1:]) is None


class Transport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default


class Rig:
    """A connection on the loop of a worker, and its client.

    Attributes:
        asked: How many calls were answered without a remembered request.
    """

    def __init__(self, pair: Pair) -> None:
        context = pair.worker.context
        self.state = GrpcState(pair.worker.shared, lambda *_: None, context.health)  # type: ignore[arg-type,return-value]
        self.connection = GrpcConnection(self.state, ServerState(), None)
        self.transport = Transport()
        self.client = Connection(Role.CLIENT)
        self.asked = 0
        respond = self.connection._unary.respond  # counted, so that a test sees which way a call takes

        def counted(*arguments: Any) -> Any:
            self.asked += 1
            return respond(*arguments)

        self.connection._unary.respond = counted  # type: ignore[method-assign]  # as above
        self.connection.connection_made(self.transport)
        self.client.initiate_connection()

    def ask(self, request: Any, *more: tuple[str, str]) -> bytes:
        """Make a call and return its status."""
        stream = self.client.send_request(call_headers("/inference.GRPCInferenceService/ModelInfer", *more))
        self.client.send_data(stream, frame_message(request.SerializeToString()), end_stream=True)
        self.connection.data_received(self.client.data_to_send())
        data, self.transport.written = self.transport.written, b""
        self.client.receive_data(data)
        events = [event for event in self.client.events() if isinstance(event, TrailersReceived)]
        return dict(events[-1].headers)[b"grpc-status"] if events else b""


Talk = Callable[[Callable[[Rig], None]], None]


@pytest.fixture
def talk(pair: Pair) -> Talk:
    """Runs a conversation with a connection on the worker's loop."""

    def run(conversation: Callable[[Rig], None]) -> None:
        async def on_loop() -> None:  # a connection needs the loop
            rig = Rig(pair)
            try:
                conversation(rig)
            finally:
                rig.connection.connection_lost(None)

        coroutine: Coroutine[Any, Any, None] = on_loop()
        pair.run(coroutine)

    return run


def test_a_remembered_request_is_answered_at_once(talk: Talk) -> None:
    """Whatever its id, its time and its trace; another key or another model is asked for once."""

    def conversation(rig: Rig) -> None:
        for number in range(5):
            assert rig.ask(infer_request()) == b"0"
            assert rig.ask(infer_request(X=ROW[:, ::-1].copy())) == b"0"
            assert rig.ask(infer_request(), ("x-request-id", str(number))) == b"0"
            assert rig.ask(infer_request(), ("grpc-timeout", f"{number + 1}S")) == b"0"
            assert rig.ask(infer_request(), ("traceparent", str(number))) == b"0"
        assert rig.asked == 1
        for _ in range(3):
            assert rig.ask(infer_request("ovr")) == b"0"
            assert rig.ask(infer_request(), ("x-api-key", "other")) == b"0"
        assert rig.asked == 3

    talk(conversation)


def test_nothing_is_remembered_once_models_or_keys_change(talk: Talk, pair: Pair) -> None:
    """Each change asks once more; while load is shed, every request is asked for."""

    def conversation(rig: Rig) -> None:
        worker = pair.worker
        for forgets in (worker.registry.on_change, worker.authorizer.on_change):
            rig.ask(infer_request())
            before = rig.asked
            forgets[-1]()
            rig.ask(infer_request())
            rig.ask(infer_request())
            rig.ask(infer_request())
            assert before < rig.asked <= before + 2
        before = rig.asked
        worker.authorizer.on_expiry[-1](0.0)
        rig.ask(infer_request())
        assert rig.asked == before + 1
        before, most = rig.asked, worker.shared.in_flight_max
        worker.shared.in_flight_max = 0
        rig.ask(infer_request())
        rig.ask(infer_request())
        worker.shared.in_flight_max = most
        assert rig.asked == before + 2

    talk(conversation)
