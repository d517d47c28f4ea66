"""Remembered requests of ModelInfer: the bytes before the numbers, what they mean, and the bytes before the answer's.

    request   frame | model, input, tag and length of raw_input_contents | numbers of one input
    answer    frame | model, state, output, tag and length of raw_output_contents | probabilities

A client sends the same bytes before the numbers again and again, so they are parsed once. A request is remembered if it
has no id, the numbers of one input come last, and it asks for probabilities alone. Its sender has no limits.
"""

import sys
from time import perf_counter_ns
from typing import Final, cast

from service.access.principal import NO_LIMITS
from service.errors import MalformedError
from service.serve.grpc.grpc_messages import InferRequest, InferResponse, Message, parse_message
from service.serve.grpc.infer_messages import InferBody
from service.serve.grpc.message_framing import FRAME_BYTES, frame_message
from service.serve.handlers.classify import REFUSALS, classify, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.models.batcher import Classification
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import BINARY, V2, HttpResponse, RequestHead
from service.serve.wire.oip_request import BINARY_PROBABILITIES, parse_inference_header
from service.serve.wire.oip_response import DATATYPE_OF
from service.serve.wire.table_rows import TableParser

# The longest bytes that are remembered, and how many of them for one head; a client asks few models.
PREFIX_BYTES_MAX: Final = 1024
PLANS_MAX: Final = 16
# A larger request waits for its turn, and a plan waits for none.
PLANNED_BYTES_MAX: Final = 1 << 16
IS_LITTLE: Final = sys.byteorder == "little"
OTHER_BYTE: Final = bytes(range(255, -1, -1))


class InferPlan:
    """A remembered request.

    Args:
        prefix: Its bytes before the numbers, with the frame.
        size: The bytes of such a request.
        endpoint: The model that answers.
        dtype: The little-endian NumPy name of the numbers.
        n_rows: The number of rows.

    Attributes:
        prefix: As above.
        size: As above.
    """

    __slots__ = ("_dtype", "_endpoint", "_n_rows", "_served", "_start", "prefix", "size")

    def __init__(self, prefix: bytes, size: int, endpoint: Endpoint, dtype: str, n_rows: int) -> None:
        self.prefix: Final = prefix
        self.size: Final = size
        self._endpoint: Final = endpoint
        self._dtype: Final = dtype
        self._n_rows: Final = n_rows
        self._served: ServedModel | None = None
        self._start = b""

    def respond(self, data: bytes) -> PendingResponse:
        """Respond to a request that begins with the prefix; the body of the response is the framed message."""
        started = perf_counter_ns()
        served = self._endpoint.served
        try:
            rows = cast("TableParser", served.tables).rows
            X = rows.convert_binary(memoryview(data)[len(self.prefix) :], self._dtype, self._n_rows)
            return classify(served, V2, X, started, _encode, self)
        except REFUSALS as reason:
            return failed(served, reason, V2)

    def start_of(self, served: ServedModel) -> bytes:
        """Return the bytes of an answer before its probabilities."""
        if served is not self._served:
            self._served, self._start = served, _answer_start(served, self._n_rows)
        return self._start


def _encode(served: ServedModel, classified: Classification, plan: InferPlan) -> HttpResponse:
    P = classified[0]
    numbers = P.tobytes() if IS_LITTLE else P.astype(P.dtype.newbyteorder("<")).tobytes()
    return HttpResponse(200, plan.start_of(served) + numbers, BINARY)


def _answer_start(served: ServedModel, n_rows: int) -> bytes:
    """Return the bytes of an answer of so many rows before its probabilities."""
    fields, state = served.tensors.model_fields, served.tensors.state_fields
    message = InferResponse(**fields)
    for name, value in state.items():
        message.parameters[name].int64_param = value
    model = served.model
    message.outputs.add(name="probabilities", datatype=DATATYPE_OF[model.dtype.name], shape=[n_rows, model.n_classes])
    size = n_rows * model.n_classes * model.dtype.itemsize
    message.raw_output_contents.append(bytes(size))
    framed: bytes = frame_message(message.SerializeToString())
    return framed[:-size]


def make_plan(
    data: bytes, request: Message, body: InferBody, endpoint: Endpoint, head: RequestHead
) -> InferPlan | None:
    """Return a plan for requests like one that was accepted, or None if it is unusual.

    Args:
        data: The framed request.
        request: Its message.
        body: The body of the same HTTP request.
        endpoint: The model that answers.
        head: The checked head.
    """
    served = endpoint.served
    usual = (
        len(data) < PLANNED_BYTES_MAX
        and not request.id
        and len(request.raw_input_contents) == 1
        and head.principal.limits is NO_LIMITS
        and isinstance(served.tables, TableParser)
    )
    if not usual:
        return None
    tables = cast("TableParser", served.tables)
    header = parse_inference_header(body.document, {}, tables.columns, tables.rows)
    size = len(body.tensors[0])
    prefix = data[: len(data) - size]
    if not header.inputs.whole or header.outputs is not BINARY_PROBABILITIES or len(prefix) > PREFIX_BYTES_MAX:
        return None
    # Only if the numbers come last, other numbers in their place are the contents of an otherwise equal request.
    other = body.tensors[0].translate(OTHER_BYTE)
    try:
        changed = parse_message(InferRequest, prefix[FRAME_BYTES:] + other)
    except MalformedError:
        return None
    if list(changed.raw_input_contents) != [other]:
        return None
    changed.raw_input_contents[0] = body.tensors[0]
    if changed != request:
        return None
    return InferPlan(prefix, len(data), endpoint, header.inputs.whole, header.inputs.n_rows)


class InferPlans:
    """The remembered requests of one head, by their size.

    Args:
        generation: The number of the state of models and keys that they belong to.

    Attributes:
        generation: As above.
        request: The checked head.
        newest: The plan that was used last, or None.
    """

    __slots__ = ("_plans", "generation", "newest")

    def __init__(self, generation: int) -> None:
        self.generation: Final = generation
        self.newest: InferPlan | None = None
        self._plans: Final[dict[int, list[InferPlan]]] = {}

    def find(self, data: bytes) -> InferPlan | None:
        """Return the plan of a framed request, or None."""
        for plan in self._plans.get(len(data), ()):
            if data.startswith(plan.prefix):
                self.newest = plan
                return plan
        return None

    def add(self, plan: InferPlan) -> None:
        """Remember a request."""
        if sum(map(len, self._plans.values())) >= PLANS_MAX:
            self._plans.clear()
        self._plans.setdefault(plan.size, []).append(plan)
