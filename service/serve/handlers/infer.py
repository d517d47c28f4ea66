"""Answer v2 `/infer`: a tensor in, the requested outputs out."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from service.access.principal import NO_LIMITS
from service.serve.handlers.classify import REFUSALS, classify, failed
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.limits.limiter import Limiters
from service.serve.models.batcher import Classification
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import BINARY, TENSOR_HEADER, V2, HttpResponse, RequestHead
from service.serve.wire.oip_request import requests_explanation
from service.serve.wire.oip_response import InferenceBody
from service.softmax.sparse_rows import count_rows

# Responds to a request for outputs that explain the probabilities.
InferExplanations = Callable[[ServedModel, InferenceBody], PendingResponse]


class InferHandler:
    """Answers inference requests of the Open Inference Protocol v2.

    Args:
        infer_explanations: Responds if an output is part of an explanation.
        limiters: The limits of rows.
    """

    def __init__(self, infer_explanations: InferExplanations, limiters: Limiters) -> None:
        self._infer_explanations: Final = infer_explanations
        self._limiters: Final = limiters

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to an inference request."""
        started = perf_counter_ns()
        served = endpoint.served
        try:
            request = served.tensors.parse_inference(body, head.tensor_header)
            if head.principal.limits is not NO_LIMITS:  # as `take_rows`, without a call
                self._limiters.take_rows(head.principal, count_rows(request.X))
            served.tables.count_values()
            if requests_explanation(request.outputs):
                return self._infer_explanations(served, request)
            return classify(served, V2, request.X, started, _encode, request)
        except REFUSALS as reason:
            return failed(served, reason, V2)


def _encode(served: ServedModel, classified: Classification, request: InferenceBody) -> HttpResponse:
    P, labels = classified
    body, json_bytes = served.tensors.encode_inference(
        request, P, labels if served.thresholds is None else served.thresholds <= P
    )
    return tensor_response(body, json_bytes)


def tensor_response(body: bytes, json_bytes: int | None) -> HttpResponse:
    """Return a v2 response; `json_bytes` is the size of its JSON part, or None if no binary data follows."""
    if json_bytes is None:
        return HttpResponse(200, body)
    return HttpResponse(200, body, BINARY, ((TENSOR_HEADER, b"%d" % json_bytes),))
