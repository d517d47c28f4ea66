"""Answer `:predict`: rows in, probabilities and labels out."""

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Final

from service.access.principal import NO_LIMITS
from service.errors import SoftstepError
from service.serve.handlers.classify import REFUSALS, Encode, classify, classify_later, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.handlers.min_seq import MinSeqWaiter
from service.serve.handlers.predict_format import encode_outputs, encode_predictions
from service.serve.limits.limiter import Limiters
from service.serve.metrics.counters import FAILURES
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, RequestHead, refusal
from service.serve.wire.predict_body import INPUTS, PredictBody, parse_predict_body
from service.settings import Settings
from service.softmax.sparse_rows import Rows, count_rows

# Seals each row of X (B, N) as a feedback token; raises LearningOffError if the service does not learn.
SealRows = Callable[[ServedModel, Rows], list[str]]


class PredictHandler:
    """Answers prediction requests of the native protocol.

    Args:
        settings: The limits of bodies.
        waiter: Delays requests with `min_seq`.
        seal_rows: Makes the tokens of requests with `feedback_tokens`.
        limiters: The limits of rows.
    """

    def __init__(self, settings: Settings, waiter: MinSeqWaiter, seal_rows: SealRows, limiters: Limiters) -> None:
        self._rows_max: Final = settings.rows_max
        self._waiter: Final = waiter
        self._seal_rows: Final = seal_rows
        self._take_rows: Final = limiters.take_rows

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a prediction request."""
        started = perf_counter_ns()
        served = endpoint.served
        try:
            tables = served.tables
            X = tables.parse_usual(body)
            if X is None:
                parsed = parse_predict_body(tables.parse_document(body, self._rows_max), tables)
                if self._waiter.must_wait(served, parsed.min_seq):
                    return self._waiter.respond_at(parsed.min_seq, self.respond, endpoint, head, body)
                encode = encode_outputs if parsed.form == INPUTS else encode_predictions
                self._take_rows(head.principal, count_rows(parsed.X))
                tables.count_values()
                return self.respond_parsed(served, parsed, started, encode)
            if head.principal.limits is not NO_LIMITS:  # as `take_rows`, without a call
                self._take_rows(head.principal, count_rows(X))
            tables.count_values()
            return classify(served, V1, X, started, encode_predictions, ())
        except REFUSALS as reason:
            return failed(served, reason, V1)

    def respond_parsed(
        self, served: ServedModel, parsed: PredictBody, started: int, encode: Encode[Sequence[str]]
    ) -> PendingResponse:
        """Respond to a request whose `min_seq` is served; `started` and `encode` are those of `classify`.

        Raises:
            InputError: The model cannot accept a row.
            OverloadedError: Requests for this model have waited for too long already.
        """
        if not parsed.tokens:
            return classify(served, V1, parsed.X, started, encode, ())
        try:
            tokens = self._seal_rows(served, parsed.X)
        except SoftstepError as reason:
            served.counters[FAILURES] += 1
            return refusal(reason, V1)
        return classify_later(served, V1, parsed.X, started, encode, tokens)
