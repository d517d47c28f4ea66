"""Description of `/invocations` in the OpenAPI document: the only call with bodies of several media types."""

from service.serve.api.schemas import invocation_bodies, predict_bodies
from service.serve.api.schemas.call_docs import (
    CSV,
    JSON_LINES,
    SEQ_HEADER,
    Docs,
    call,
    request,
    response,
    text_content,
)


def describe_invocations(codes: tuple[str, ...]) -> Docs:
    """Return what the document says of the call, which can answer these error codes."""
    bodies = invocation_bodies
    body = request(
        bodies.InstancesInvocation,
        bodies.INVOCATION_REQUESTS,
        bodies.InputsInvocation,
        bodies.SplitInvocation,
        bodies.RecordsInvocation,
    )
    body["requestBody"]["content"] |= text_content(CSV, bodies.CSV_REQUESTS)
    body["requestBody"]["content"] |= text_content(JSON_LINES, bodies.JSON_LINES_REQUESTS)
    docs = call("predict", response(predict_bodies.PredictResponse, bodies.INVOCATION_RESPONSES), codes, body)
    success = docs["responses"][200]
    success["content"] |= text_content(CSV, bodies.CSV_RESPONSE)
    success["headers"] = {"X-Softstep-Seq": {"description": "The seq of a CSV response.", **SEQ_HEADER}}
    return docs
