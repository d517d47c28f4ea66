"""Why a model says what it says, from request to answer: at once where that is quick, else in a thread.

why.py reads the bodies of `:explain` and writes its answers; v2 clients ask for the same matrices as outputs of
`/infer`, which tensors.py writes.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import perf_counter_ns
from typing import Final

from service.errors import InputError, UnacceptableError
from service.serve.handlers.explain_format import ExplainBody, ExplainFormat
from service.serve.handlers.predict import PredictHandler
from service.serve.metrics.counters import FAILURES, count_prediction
from service.serve.models.served_model import Endpoint, ServedModel
from service.serve.responses import BINARY, TENSOR_HEADER, V1, V2, HttpResponse, refusal
from service.serve.wire.oip_tensors import InferenceBody

NO_SUM: Final = "The logits of a network are no sums over features, so it has no contributions; ask for sensitivities."


class ExplainHandler:
    """Explains the answers of one worker's models; used on the event loop's thread.

    Args:
        answers: What answers predictions; it waits for a seq here as well.
        executor: Where long work is done: a thread of its own, so that no prediction waits for explanations.
    """

    def __init__(self, answers: PredictHandler, executor: Executor) -> None:
        self._answers: Final = answers
        self._executor: Final = executor

    def explained(self, served: ServedModel) -> ExplainFormat:
        """What explains a served state."""
        if served.explained is None:
            served.explained = ExplainFormat(served, self._answers.settings)
        explained: ExplainFormat = served.explained
        return explained

    def explain(self, endpoint: Endpoint, body: bytes) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer the body of a request to explain."""
        started, served = perf_counter_ns(), endpoint.served
        try:
            explained: ExplainFormat = served.explained or self.explained(served)
            why = explained.read(body)
        except InputError as reason:
            return _failed(served, reason, V1)
        if why.min_seq > served.seq:
            return asyncio.ensure_future(self._answers.wait(endpoint, why.min_seq, body))
        X = why.X
        if len(X) <= explained.inline_rows:
            return self._answered(served, V1, len(X), started, partial(_explanations, explained, why))
        if len(X) == 1:  # it stands in a buffer that the next request reuses
            why = why._replace(X=X.copy())
        return self._later(served, V1, len(X), started, partial(_explanations, explained, why))

    def infer(self, served: ServedModel, request: InferenceBody) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer a v2 request that asks for more than probabilities and labels.

        Raises:
            UnacceptableError: The model has no such output.
            TooLargeError: The outputs would have more numbers than the limit.
        """
        started, explained, X = perf_counter_ns(), self.explained(served), request.X
        wanted = {output.name for output in request.outputs}
        if "contributions" in wanted and explained.deep:
            raise UnacceptableError(NO_SUM)
        explained.check_outputs(len(X), wanted)
        make = partial(_tensors, explained, served, request)
        if len(X) <= explained.inline_rows:
            return self._answered(served, V2, len(X), started, make)
        if len(X) == 1:  # as above
            make = partial(_tensors, explained, served, request._replace(X=X.copy()))
        return self._later(served, V2, len(X), started, make)

    def _answered(
        self, served: ServedModel, protocol: int, rows: int, started: int, make: Callable[[], HttpResponse]
    ) -> HttpResponse:
        """Answer now."""
        try:
            answer, taken = _timed(make)
        except InputError as reason:
            return _failed(served, reason, protocol)
        return self._counted(served, protocol, rows, started, answer, taken)

    def _later(
        self, served: ServedModel, protocol: int, rows: int, started: int, make: Callable[[], HttpResponse]
    ) -> asyncio.Future[HttpResponse]:
        """Answer when a thread has made the answer; it is counted on the event loop, as all is."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[HttpResponse] = loop.create_future()

        def made(call: asyncio.Future[tuple[HttpResponse, int]]) -> None:
            # A thread pool that shuts down calls off what it has not begun.
            reason = asyncio.CancelledError() if call.cancelled() else call.exception()
            if told.done():
                return
            if isinstance(reason, InputError):
                told.set_result(_failed(served, reason, protocol))
            elif reason is not None:
                told.set_exception(reason)
            else:
                answer, taken = call.result()
                told.set_result(self._counted(served, protocol, rows, started, answer, taken))

        loop.run_in_executor(self._executor, _timed, make).add_done_callback(made)
        return told

    def _counted(  # noqa: PLR0917  # what is counted of an answer
        self, served: ServedModel, protocol: int, rows: int, started: int, answer: HttpResponse, taken: int
    ) -> HttpResponse:
        """An answer, counted as a prediction is."""
        self._answers.meter.count_kernel_call(served.counters, taken)
        count_prediction(served.counters, protocol, rows, perf_counter_ns() - started)
        return answer


def _timed(make: Callable[[], HttpResponse]) -> tuple[HttpResponse, int]:
    """What is made, and the nanoseconds that took."""
    before = perf_counter_ns()
    return make(), perf_counter_ns() - before


def _failed(served: ServedModel, reason: InputError, protocol: int) -> HttpResponse:
    served.counters[FAILURES] += 1
    return refusal(reason, protocol)


def _explanations(explained: ExplainFormat, why: ExplainBody) -> HttpResponse:
    return HttpResponse(200, explained.body(why))


def _tensors(explained: ExplainFormat, served: ServedModel, request: InferenceBody) -> HttpResponse:
    """The outputs of a v2 request, each whole."""
    wanted = {output.name for output in request.outputs}
    P, labels, more = explained.whole(request.X, wanted)
    classified = labels.tolist() if served.thresholds is None else served.thresholds <= P
    body, json_bytes = served.tensors.encode_inference(request, P, classified, more)
    if json_bytes is None:
        return HttpResponse(200, body)
    return HttpResponse(200, body, BINARY, ((TENSOR_HEADER, b"%d" % json_bytes),))
