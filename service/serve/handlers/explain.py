"""Answer `:explain` and the explaining outputs of v2 `/infer`: at once if that is quick, else in a thread.

explain_body.py parses the bodies of `:explain`, explain_format.py writes its responses, and wire/oip_response.py writes
the v2 outputs. For sparse rows, sparse_explain_body.py and sparse_explain_format.py do so.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Final, NamedTuple

from service.errors import InputError, OverloadedError, SoftstepError
from service.serve.handlers.classify import REFUSALS, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.handlers.explain_body import DenseExplainParser, ExplainBody, ExplainParser
from service.serve.handlers.explain_format import DenseExplainFormat, ExplainFormat
from service.serve.handlers.infer import tensor_response
from service.serve.handlers.long_work import LongWork
from service.serve.handlers.min_seq import MinSeqWaiter
from service.serve.handlers.past_states import PastStates, not_learned, state_pending
from service.serve.handlers.sparse_explain_body import SparseExplainParser
from service.serve.handlers.sparse_explain_format import SparseExplainFormat
from service.serve.limits.limiter import Limiters
from service.serve.metrics.counters import EXPLAIN, SHED, SHED_EXPLANATIONS, WorkerCounters, count_prediction
from service.serve.models.endpoint import Endpoint
from service.serve.models.per_model import PerModel
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, V2, HttpResponse, RequestHead, overloaded
from service.serve.wire.model_tables import detach_rows
from service.serve.wire.oip_response import InferenceBody
from service.settings import Settings
from service.softmax.sparse_rows import count_rows


class ExplainParts(NamedTuple):
    """The parts that explain one served state."""

    parser: ExplainParser
    format: ExplainFormat


class ExplainHandler:
    """Explains the predictions of one worker's models; used on the event loop's thread.

    Args:
        registry: The models that are served.
        settings: The limits of bodies and responses.
        counters: The worker's counters.
        waiter: Delays requests with `min_seq`.
        work: Makes long calls.
        limiters: The limits of rows.
        past_states: Finds states of the past, or None if the service does not learn.
    """

    def __init__(  # noqa: PLR0917  # the parts of a worker
        self,
        registry: ModelRegistry,
        settings: Settings,
        counters: WorkerCounters,
        waiter: MinSeqWaiter,
        work: LongWork,
        limiters: Limiters,
        past_states: PastStates | None,
    ) -> None:
        self._counters: Final = counters
        self._waiter: Final = waiter
        self._work: Final = work
        self._limiters: Final = limiters
        self._past_states: Final = past_states
        self._past_turn: Final = asyncio.Lock()  # a state of the past takes the memory of a model
        self._settings: Final = settings
        self._parts: Final[PerModel[ExplainParts]] = PerModel(registry, self._make_parts)

    def parts_of(self, served: ServedModel) -> ExplainParts:
        """Return the parser and the writer of a served state."""
        return self._parts.value_of(served)

    def _make_parts(self, served: ServedModel, _previous: ExplainParts | None) -> ExplainParts:
        if served.artifact.has_sparse_rows:
            return ExplainParts(SparseExplainParser(served, self._settings), SparseExplainFormat(served))
        parser = DenseExplainParser(served, self._settings)
        return ExplainParts(parser, DenseExplainFormat(served, parser.block_rows))

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a request to explain."""
        started, served = perf_counter_ns(), endpoint.served
        try:
            parser, explain_format = self.parts_of(served)
            parsed = parser.parse_explain(body)
            if self._waiter.must_wait(served, parsed.min_seq):
                return self._waiter.respond_at(parsed.min_seq, self.respond, endpoint, head, body)
            n_rows = count_rows(parsed.X)
            self._limiters.take_rows(head.principal, n_rows)
            served.tables.count_values()
        except REFUSALS as reason:
            return failed(served, reason, V1)
        if parsed.seq not in {None, served.seq}:
            return asyncio.ensure_future(self._respond_past(served, parsed.seq, n_rows, started, body))
        if n_rows <= parser.inline_rows:
            return self._respond_now(served, V1, n_rows, started, partial(_explanations, explain_format, parsed))
        parsed = parsed._replace(X=detach_rows(parsed.X))
        return self._respond_later(served, V1, n_rows, started, partial(_explanations, explain_format, parsed))

    async def _respond_past(self, served: ServedModel, seq: int, rows: int, started: int, body: bytes) -> HttpResponse:
        """Explain by a state of the past; 202 while it is folded. One such request after the other has its state."""
        if self._past_states is None:
            return failed(served, not_learned(), V1)
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await self._past_turn.acquire()
        except TimeoutError:
            return self._shed(served, V1)
        try:
            past = await self._past_states.find(served, seq)
            return state_pending() if past is None else await self._explain_by(past, served, rows, started, body)
        except SoftstepError as reason:
            return failed(served, reason, V1)
        finally:
            self._past_turn.release()

    async def _explain_by(
        self, past: ServedModel, served: ServedModel, rows: int, started: int, body: bytes
    ) -> HttpResponse:
        """Explain by a state of the past, whose classes may be fewer."""
        parts = self._make_parts(past, None)
        # Parsed here, not in the thread: all states of a version share the buffers that read a row of names.
        parsed = parts.parser.parse_explain(body)
        parsed = parsed._replace(X=detach_rows(parsed.X))
        response = self._respond_later(served, V1, rows, started, partial(_explanations, parts.format, parsed))
        return response if isinstance(response, HttpResponse) else await response

    def infer_explanations(self, served: ServedModel, request: InferenceBody) -> PendingResponse:
        """Respond to a v2 request for more than probabilities and labels.

        Raises:
            UnacceptableError: The model has no such output.
            TooLargeError: The outputs would have more numbers than the limit.
        """
        started, n_rows = perf_counter_ns(), count_rows(request.X)
        parser, explain_format = self.parts_of(served)
        parser.check_outputs(n_rows, {output.name for output in request.outputs})
        if n_rows <= parser.inline_rows:
            return self._respond_now(served, V2, n_rows, started, partial(_tensors, explain_format, served, request))
        request = request._replace(X=detach_rows(request.X))
        return self._respond_later(served, V2, n_rows, started, partial(_tensors, explain_format, served, request))

    def _respond_now(
        self, served: ServedModel, protocol: int, rows: int, started: int, make: Callable[[], HttpResponse]
    ) -> HttpResponse:
        try:
            response, nanoseconds = _timed(make)
        except InputError as reason:
            return failed(served, reason, protocol)
        self._count(served, protocol, rows, started, nanoseconds)
        return response

    def _respond_later(
        self, served: ServedModel, protocol: int, rows: int, started: int, make: Callable[[], HttpResponse]
    ) -> PendingResponse:
        """Make the response in a thread; it is counted on the event loop, like all others."""
        try:
            work = self._work.start(_timed, make)
        except OverloadedError:
            return self._shed(served, protocol)

        async def finish() -> HttpResponse:
            try:
                response, nanoseconds = await work
            except InputError as reason:
                return failed(served, reason, protocol)
            self._count(served, protocol, rows, started, nanoseconds)
            return response

        return asyncio.ensure_future(finish())

    @staticmethod
    def _shed(served: ServedModel, protocol: int) -> HttpResponse:
        """Refuse a request that has waited for too long."""
        served.counters[SHED + SHED_EXPLANATIONS] += 1
        return failed(served, overloaded(), protocol)

    def _count(self, served: ServedModel, protocol: int, rows: int, started: int, nanoseconds: int) -> None:
        """Count an explanation as a prediction."""
        self._counters.count_kernel_call(served.counters, nanoseconds)
        histogram = EXPLAIN if protocol == V1 else V2
        count_prediction(served.counters, histogram, rows, perf_counter_ns() - started)


def _timed(make: Callable[[], HttpResponse]) -> tuple[HttpResponse, int]:
    """Return a response and the nanoseconds that it took."""
    before = perf_counter_ns()
    return make(), perf_counter_ns() - before


def _explanations(explain_format: ExplainFormat, parsed: ExplainBody) -> HttpResponse:
    return HttpResponse(200, explain_format.encode_explanations(parsed))


def _tensors(explain_format: ExplainFormat, served: ServedModel, request: InferenceBody) -> HttpResponse:
    """Return the requested outputs, each whole."""
    wanted = {output.name for output in request.outputs}
    P, labels, more = explain_format.compute_outputs(request.X, wanted)
    classified = labels.tolist() if served.thresholds is None else served.thresholds <= P
    return tensor_response(*served.tensors.encode_inference(request, P, classified, more))
