"""Answer `/invocations` and Vertex AI's route: rows in any form in, probabilities and labels out as JSON or CSV."""

from time import perf_counter_ns
from typing import Final

from service.errors import UnacceptableError
from service.serve.handlers.classify import REFUSALS, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.handlers.min_seq import MinSeqWaiter
from service.serve.handlers.predict import PredictHandler
from service.serve.handlers.predict_format import encode_csv, encode_predictions
from service.serve.limits.limiter import Limiters
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, RequestHead
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import InvocationForm, read_invocation_form
from service.serve.wire.predict_body import PredictBody
from service.softmax.sparse_rows import count_rows

JSON_ALONE: Final = "A CSV response has no place for feedback tokens; ask for application/json."


class InvokeHandler:
    """Answers prediction requests in the forms of MLflow, SageMaker and Vertex AI.

    Args:
        predict: Answers a request once it is parsed.
        waiter: Delays requests with `min_seq`.
        limiters: The limits of rows.
        extra_fields: Whether unknown fields of a JSON body are ignored.
    """

    def __init__(
        self, predict: PredictHandler, waiter: MinSeqWaiter, limiters: Limiters, *, extra_fields: bool
    ) -> None:
        self._predict: Final = predict
        self._waiter: Final = waiter
        self._limiters: Final = limiters
        self._extra_fields: Final = extra_fields

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a prediction request."""
        started = perf_counter_ns()
        served = endpoint.served
        try:
            form = read_invocation_form(head)
            parsed = self._parse(served, form, body)
            if self._waiter.must_wait(served, parsed.min_seq):
                return self._waiter.respond_at(parsed.min_seq, self.respond, endpoint, head, body)
            self._limiters.take_rows(head.principal, count_rows(parsed.X))
            served.tables.count_values()
            encode = encode_csv if form.prefers_csv else encode_predictions
            return self._predict.respond_parsed(served, parsed, started, encode)
        except REFUSALS as reason:
            return failed(served, reason, V1)

    def _parse(self, served: ServedModel, form: InvocationForm, body: bytes) -> PredictBody:
        """Parse a body.

        Raises:
            InputError: The body is not a request to this model.
        """
        X = served.tables.parse_usual(body) if form.is_plain_json else None
        if X is not None:
            return PredictBody(X)
        parsed = parse_invocation(body, form, served.tables, extra_fields=self._extra_fields)
        if parsed.tokens and form.prefers_csv:
            raise UnacceptableError(JSON_ALONE)
        return parsed
