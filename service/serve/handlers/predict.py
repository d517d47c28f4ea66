"""Answer `:predict`: rows in, probabilities and labels out."""

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Final

import numpy as np
import orjson

from service.errors import InputError, SoftstepError
from service.serve.handlers.classify import classify, classify_later, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.handlers.min_seq import MinSeqWaiter
from service.serve.metrics.counters import FAILURES
from service.serve.models.batcher import Classification
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, HttpResponse, RequestHead, refusal
from service.serve.wire.json_grammar import parse_object
from service.serve.wire.predict_body import parse_predict_body
from service.settings import Settings
from service.softmax.arrays import Floats

# Seals each row of X (B, N) as a feedback token; raises LearningOffError if the service does not learn.
SealRows = Callable[[ServedModel, Floats], list[str]]


class PredictHandler:
    """Answers prediction requests of the native protocol.

    Args:
        settings: The limits of bodies.
        waiter: Delays requests with `min_seq`.
        seal_rows: Makes the tokens of requests with `feedback_tokens`.
    """

    def __init__(self, settings: Settings, waiter: MinSeqWaiter, seal_rows: SealRows) -> None:
        self._depth_max: Final = settings.json_depth_max
        self._rows_max: Final = settings.rows_max
        self._waiter: Final = waiter
        self._seal_rows: Final = seal_rows

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a prediction request."""
        started = perf_counter_ns()
        served = endpoint.served
        try:
            X = served.rows.parse_usual(body)
            if X is None:
                parsed = parse_predict_body(parse_object(body, self._depth_max, self._rows_max), served.rows)
                if parsed.min_seq > served.seq:
                    return self._waiter.respond_at(parsed.min_seq, self.respond, endpoint, head, body)
                if parsed.tokens:
                    return self._with_tokens(served, parsed.X, started)
                X = parsed.X
            return classify(served, V1, X, started, _encode, ())
        except InputError as reason:
            return failed(served, reason, V1)

    def _with_tokens(self, served: ServedModel, X: Floats, started: int) -> PendingResponse:
        """Respond with one feedback token for each row beside its probabilities."""
        try:
            tokens = self._seal_rows(served, X)
        except SoftstepError as reason:
            served.counters[FAILURES] += 1
            return refusal(reason, V1)
        return classify_later(served, V1, X, started, _encode, tokens)


def _encode(served: ServedModel, classified: Classification, tokens: Sequence[str]) -> HttpResponse:
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
