"""Run the model on the rows of a request and count it: at once, or shared with other requests."""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, TypeVar

import numpy as np

from service.errors import InputError, OverloadedError, SoftstepError
from service.limit_errors import LimitError
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.metrics.counters import FAILURES, SHED, SHED_PREDICTIONS, count_prediction, count_prediction_and_call
from service.serve.models.batcher import Classification, usual_rows
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse, overloaded, refusal
from service.softmax.sparse_rows import Rows, count_rows

T = TypeVar("T")
# The errors for which a handler refuses a request.
REFUSALS: Final = (InputError, LimitError, OverloadedError)
# Writes the response from the served state, probabilities with labels, and the handler's own context.
Encode = Callable[[ServedModel, Classification, T], HttpResponse]


def failed(served: ServedModel, reason: SoftstepError, protocol: int) -> HttpResponse:
    """Count a refused request and return its response."""
    served.counters[FAILURES] += 1
    return refusal(reason, protocol)


def classify(  # noqa: PLR0917  # keywords cost a tenth of a fast request
    served: ServedModel, protocol: int, X: Rows, started: int, encode: Encode[T], context: T
) -> PendingResponse:
    """Respond with probabilities and labels of B rows: at once if that is quick, else later.

    Args:
        served: The served state.
        protocol: V1 or V2.
        X: The rows, in the model's dtype.
        started: When the request was complete, in nanoseconds of `perf_counter_ns`.
        encode: Writes the response.
        context: The last argument of `encode`.

    Raises:
        InputError: The model cannot accept a row.
        OverloadedError: As for `classify_later`.
    """
    if usual_rows(X) > served.inline_rows:
        return classify_later(served, protocol, X, started, encode, context)
    before = perf_counter_ns()
    classified = served.classify(X)
    after = perf_counter_ns()
    response = encode(served, classified, context)
    elapsed = perf_counter_ns() - started
    count_prediction_and_call(served.counters, protocol, count_rows(X), elapsed, after - before, served.now_ms[0])
    return response


def classify_later(  # noqa: PLR0917  # as above
    served: ServedModel, protocol: int, X: Rows, started: int, encode: Encode[T], context: T
) -> asyncio.Future[HttpResponse]:
    """Classify like `classify`, by the batcher: the kernel call is shared with other requests or runs in a thread.

    Raises:
        OverloadedError: Requests for this model have waited for too long already.
    """
    if served.batcher.oldest_seconds() > served.queue_seconds:
        served.counters[SHED + SHED_PREDICTIONS] += 1
        raise overloaded()
    # A single dense row is in a buffer that the next request reuses.
    rows = X.copy() if isinstance(X, np.ndarray) and len(X) == 1 else X
    response: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

    def on_classified(call: asyncio.Future[Classification]) -> None:
        reason = call.exception()
        if response.done():
            return
        if isinstance(reason, InputError):
            response.set_result(failed(served, reason, protocol))
        elif reason is not None:
            response.set_exception(reason)
        else:
            classified = call.result()
            encoded = encode(served, classified, context)
            count_prediction(served.counters, protocol, len(classified[1]), perf_counter_ns() - started)
            response.set_result(encoded)

    served.batcher.submit(rows).add_done_callback(on_classified)
    return response
