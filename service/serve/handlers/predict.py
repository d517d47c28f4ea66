"""Bytes in, bytes out: what a prediction request is answered with, whichever way it came.

`http/protocol.py` calls `PredictHandler.respond` on the fast path and the FastAPI routes call it too, so both give the
same bytes.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InputError, NotReachedError
from service.serve.log.writer import resolve_future
from service.serve.metrics.counters import FAILURES, WorkerCounters, count_prediction, count_prediction_and_call
from service.serve.models.batcher import Classification
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import Endpoint, ServedModel
from service.serve.responses import (
    BINARY,
    TENSOR_HEADER,
    V1,
    HttpResponse,
    RequestHead,
    check_head,
    learning_off,
    refusal,
)
from service.serve.wire.json_grammar import parse_object
from service.serve.wire.oip_request import requests_explanation
from service.serve.wire.oip_tensors import InferenceBody
from service.serve.wire.predict_body import PredictBody, parse_predict_body
from service.settings import Settings

Floats = NDArray[np.floating[Any]]

# Takes feedback for a model version: an answer, or None where it is told when the feedback is on disk.
Teach = Callable[[ServedModel, bytes, Callable[[HttpResponse], None]], HttpResponse | None]


class Explains(Protocol):
    """Answers why a model says what it says (explaining.py)."""

    def explain(self, endpoint: Endpoint, body: bytes) -> "HttpResponse | asyncio.Future[HttpResponse]":
        """Answer the body of a request to explain."""

    def infer(self, served: ServedModel, request: InferenceBody) -> "HttpResponse | asyncio.Future[HttpResponse]":
        """Answer a v2 request that asks for more than probabilities and labels."""


class PredictHandler:
    """Answers prediction requests from the models that are live.

    Args:
        live: The models that are served.
        meter: Where this worker counts.
        settings: The limits.

    Attributes:
        explaining: What answers why; put in place where a worker is put together.
    """

    explaining: Explains

    def __init__(self, live: ModelRegistry, meter: WorkerCounters, settings: Settings) -> None:
        self.live = live
        self.meter = meter
        self.settings = settings
        # Answers feedback; put in place where the service learns (feedback.py).
        self.teach: Teach = lambda _served, _body, _tell: refusal(learning_off(), V1)
        self.seal: Callable[[ServedModel, Floats], list[str]] | None = None

    def respond(
        self, endpoint: Endpoint, head: RequestHead, body: bytes
    ) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer a prediction request: at once, or by a future where its kernel call is shared or runs in a thread."""
        tensor_header = check_head(head)
        if isinstance(tensor_header, HttpResponse):
            return _failed(endpoint.served, tensor_header)
        return self.predict(endpoint, tensor_header, body)

    def predict(
        self, endpoint: Endpoint, tensor_header: bytes | None, body: bytes
    ) -> HttpResponse | asyncio.Future[HttpResponse]:
        """As `respond`, for a request whose head has passed `check_head` with that size of its JSON part."""
        started = perf_counter_ns()
        protocol, served = endpoint.protocol, endpoint.served
        if endpoint.teaches or endpoint.explains:
            return self._instead(endpoint, body)
        try:
            request = None if protocol == V1 else served.tensors.parse_inference(body, tensor_header)
            if request is not None and requests_explanation(request.outputs):
                return self.explaining.infer(served, request)
            X = served.rows.parse_usual(body) if request is None else request.X
            if X is None:
                asked = parse_predict_body(
                    parse_object(body, self.settings.json_depth_max, self.settings.rows_max), served.rows
                )
                if asked.tokens or asked.min_seq > served.seq:
                    return self._as_asked(endpoint, asked, body, started)
                X = asked.X
            if len(X) > served.inline_rows:
                return _later(protocol, served, request, X, started)
            before = perf_counter_ns()
            classified = served.model.classify(X)
            after = perf_counter_ns()
        except InputError as reason:
            return _failed(served, refusal(reason, protocol))
        answer = _v1_answer(served, classified) if request is None else _v2_answer(served, request, classified)
        taken = perf_counter_ns() - started
        count_prediction_and_call(served.counters, protocol, len(X), taken, after - before, self.meter.now_ms[0])
        return answer

    def _instead(self, endpoint: Endpoint, body: bytes) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer a path that takes feedback, or tells why, instead of predicting."""
        if endpoint.explains:
            return self.explaining.explain(endpoint, body)
        told: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        return self.teach(endpoint.served, body, partial(resolve_future, told)) or told

    def _as_asked(
        self, endpoint: Endpoint, asked: PredictBody, body: bytes, started: int
    ) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer once a seq is served, or with one sealed token for each row beside its probabilities."""
        served = endpoint.served
        if asked.min_seq > served.seq:
            return asyncio.ensure_future(self.wait(endpoint, asked.min_seq, body))
        if self.seal is None:
            return _failed(served, refusal(learning_off(), V1))
        return _later(V1, served, None, asked.X, started, self.seal(served, asked.X))

    async def wait(self, endpoint: Endpoint, min_seq: int, body: bytes) -> HttpResponse:
        """Answer once the version serves a state that holds an event; not for longer than a caller may wait."""
        served = endpoint.served
        try:
            async with asyncio.timeout(self.settings.min_seq_seconds):
                await self.live.reached((served.name, int(served.version)), min_seq)
        except TimeoutError:
            reason = NotReachedError("The model has not learned as far as min_seq yet; ask again in a moment.")
            return _failed(served, refusal(reason, V1))
        now = self.live.now.served.get((served.name, int(served.version)))
        answer = self.predict(endpoint if now is None else Endpoint(V1, now, explains=endpoint.explains), None, body)
        return answer if isinstance(answer, HttpResponse) else await answer


def _later(  # noqa: PLR0917  # what an answer is made of
    protocol: int,
    served: ServedModel,
    request: InferenceBody | None,
    X: Floats,
    started: int,
    tokens: Sequence[str] = (),
) -> asyncio.Future[HttpResponse]:
    rows = X.copy() if len(X) == 1 else X  # a single row stands in a buffer that the next request reuses
    answer: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

    def computed(call: asyncio.Future[Classification]) -> None:
        reason = call.exception()
        if answer.done():
            return
        if isinstance(reason, InputError):
            answer.set_result(_failed(served, refusal(reason, protocol)))
        elif reason is not None:
            answer.set_exception(reason)
        else:
            classified = call.result()
            told = (
                _v1_answer(served, classified, tokens) if request is None else _v2_answer(served, request, classified)
            )
            count_prediction(served.counters, protocol, len(classified[1]), perf_counter_ns() - started)
            answer.set_result(told)

    served.batcher.submit(rows).add_done_callback(computed)
    return answer


def _failed(served: ServedModel, answer: HttpResponse) -> HttpResponse:
    served.counters[FAILURES] += 1
    return answer


def _v1_answer(served: ServedModel, classified: Classification, tokens: Sequence[str] = ()) -> HttpResponse:
    P, labels = classified
    numbers = orjson.dumps(P, None, orjson.OPT_SERIALIZE_NUMPY)
    if served.thresholds is not None:
        rows = (np.flatnonzero(flags) for flags in served.thresholds <= P)
        names = b",".join([b"[" + b",".join([served.class_json[k] for k in row]) + b"]" for row in rows])
    elif len(labels) == 1 and not tokens:
        return HttpResponse(200, b'{"predictions":' + numbers + served.v1_single[labels[0]])
    else:
        names = b",".join([served.class_json[label] for label in labels])
    if tokens:
        names += b'],"feedback_tokens":[' + orjson.dumps(tokens)[1:-1]
    return HttpResponse(200, b'{"predictions":' + numbers + b',"labels":[' + names + served.v1_tail)


def _v2_answer(served: ServedModel, request: InferenceBody, classified: Classification) -> HttpResponse:
    P, labels = classified
    body, json_bytes = served.tensors.encode_inference(
        request, P, labels if served.thresholds is None else served.thresholds <= P
    )
    if json_bytes is None:
        return HttpResponse(200, body)
    return HttpResponse(200, body, BINARY, ((TENSOR_HEADER, b"%d" % json_bytes),))
