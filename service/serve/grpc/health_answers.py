"""Answers of gRPC's health checking protocol: SERVING while the service takes predictions, for each of its services."""

from collections.abc import Callable
from typing import Final, NamedTuple

from service.serve.grpc.call_status import uncoded_error
from service.serve.grpc.grpc_messages import HEALTH, SERVICES, Message, MessageClass, message_class
from service.serve.grpc.message_framing import frame_message
from service.serve.responses import HttpResponse

CHECK: Final = f"/{HEALTH}/Check".encode()
LIST: Final = f"/{HEALTH}/List".encode()
WATCH: Final = f"/{HEALTH}/Watch".encode()

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
# The empty name is that of the whole server.
NAMES: Final = ("", *SERVICES)
CheckRequest: Final = message_class("grpc.health.v1.HealthCheckRequest")
CheckResponse: Final = message_class("grpc.health.v1.HealthCheckResponse")
ListResponse: Final = message_class("grpc.health.v1.HealthListResponse")
UNKNOWN: Final = uncoded_error(404, "No service has that name; leave it empty for the whole server.")


class HealthCall(NamedTuple):
    """A method of one request and one answer: the class of its requests, and its answer."""

    request: MessageClass
    answer: Callable[..., HttpResponse]


def status_of(service: str, *, is_ready: bool) -> int:
    """Return the status of a service."""
    if service not in NAMES:
        return SERVICE_UNKNOWN
    return SERVING if is_ready else NOT_SERVING


def frame_status(status: int) -> bytes:
    """Return a status as a framed message."""
    return frame_message(CheckResponse(status=status).SerializeToString())


def _check(request: Message, *, is_ready: bool) -> HttpResponse:
    """Return the response of Check."""
    status = status_of(request.service, is_ready=is_ready)
    return UNKNOWN if status == SERVICE_UNKNOWN else HttpResponse(200, frame_status(status))


def _list(_request: Message, *, is_ready: bool) -> HttpResponse:
    """Return the response of List."""
    answer = ListResponse()
    for name in NAMES:
        answer.statuses[name].status = status_of(name, is_ready=is_ready)
    return HttpResponse(200, frame_message(answer.SerializeToString()))


HEALTH_CALLS: Final = {
    CHECK: HealthCall(CheckRequest, _check),
    LIST: HealthCall(message_class("grpc.health.v1.HealthListRequest"), _list),
}
