"""Calls of one request and one answer: predictions, probes, and what the application answers."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from service.access.scopes import Scope
from service.errors import MalformedError, SoftstepError
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.grpc_messages import INFERENCE, InferRequest, MessageClass, message_class, parse_message
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.health_answers import HEALTH_CALLS
from service.serve.grpc.infer_messages import translate_request, translate_response
from service.serve.grpc.infer_plan import make_plan
from service.serve.grpc.message_framing import FRAME_BYTES, frame_message
from service.serve.grpc.route_calls import ROUTE_CALLS, RouteCall, ask_application, translate_answer
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.handlers.turns import LARGE_BINARY_BYTES
from service.serve.models.endpoint import INFER, Endpoint
from service.serve.responses import BINARY, OVERLOADED, V2, HttpResponse, RequestHead, refusal

MODEL_INFER: Final = f"/{INFERENCE}/ModelInfer".encode()
SERVER_LIVE: Final = f"/{INFERENCE}/ServerLive".encode()
SERVER_READY: Final = f"/{INFERENCE}/ServerReady".encode()
SUCCESS: Final = 200

# The probes of gRPC, and the classes of their requests.
PROBES: Final[Mapping[bytes, MessageClass]] = {
    SERVER_LIVE: message_class("inference.ServerLiveRequest"),
    SERVER_READY: message_class("inference.ServerReadyRequest"),
    **{path: call.request for path, call in HEALTH_CALLS.items()},
}
# The methods of one request and one answer.
UNARY_PATHS: Final = frozenset((MODEL_INFER, *PROBES, *ROUTE_CALLS))
_LIVE: Final = frame_message(message_class("inference.ServerLiveResponse")(live=True).SerializeToString())
_READY: Final = [
    frame_message(message_class("inference.ServerReadyResponse")(ready=ready).SerializeToString())
    for ready in (False, True)
]


class UnaryCalls:
    """Answers the calls of one connection's client.

    Args:
        state: The state that connections share.
        tasks: The tasks of the application, where those of calls are noted.

    The body of each response is the framed message, unless it is an error.
    """

    def __init__(self, state: GrpcState, tasks: set[asyncio.Task[Any]]) -> None:
        self._state: Final = state
        self._tasks: Final = tasks

    def respond(self, head: CallHead, data: bytes, client: tuple[str, int] | None) -> PendingResponse:
        """Respond to a call whose request is complete.

        Args:
            head: The head of the call.
            data: The framed request.
            client: The address of the client, if it is known.
        """
        worker, path = self._state.worker, head.path
        if path in PROBES:
            return self._respond_probe(path, data[FRAME_BYTES:])
        if worker.is_full(0, len(self._tasks)):
            return OVERLOADED
        if path == MODEL_INFER:
            if len(data) < LARGE_BINARY_BYTES:
                return self._infer(head, data)
            return worker.dispatcher.turns.call(partial(self._infer, head, data))
        return self._ask(ROUTE_CALLS[path], head, data[FRAME_BYTES:], client)

    def _respond_probe(self, path: bytes, message: bytes) -> HttpResponse:
        """Answer a probe, for which there is always room."""
        health = self._state.health
        is_ready = health.ready().status == SUCCESS
        try:
            request = parse_message(PROBES[path], message)
        except MalformedError as reason:
            return refusal(reason, V2)
        if path in HEALTH_CALLS:
            return HEALTH_CALLS[path].answer(request, is_ready=is_ready)
        answer = _LIVE if path == SERVER_LIVE else _READY[is_ready]
        return HttpResponse(200, answer)

    def _infer(self, head: CallHead, data: bytes) -> PendingResponse:
        """Respond to a request of ModelInfer that is not remembered."""
        try:
            return self._infer_or_raise(head, data)
        except SoftstepError as reason:
            return refusal(reason, V2)

    def _infer_or_raise(self, head: CallHead, data: bytes) -> PendingResponse:
        dispatcher = self._state.worker.dispatcher
        request = parse_message(InferRequest, data[FRAME_BYTES:])
        endpoint = self._find(head.request, request.model_name, request.model_version)
        checked = dispatcher.check(endpoint, head.request, len(data))
        if isinstance(checked, HttpResponse):
            return checked
        body = translate_request(request)
        text, length = body.join()
        asked = checked._replace(tensor_header=length)
        limited = dispatcher.limit(endpoint, checked)
        response = dispatcher.respond(limited, asked, text)
        if isinstance(response, HttpResponse) and response.status == SUCCESS and head.plans is not None:
            plan = make_plan(data, request, body, endpoint, checked)
            if plan is not None:
                head.plans.add(plan)
        return translated(response, _translate_inference)

    def _find(self, head: RequestHead, name: str, version: str) -> Endpoint:
        """Return the endpoint of a model.

        Raises:
            AccessError: The sender may not make calls for it, whether it exists or not.
            ModelNotFoundError: No model has that name, or the model no such version.
            ModelNotReadyError: It is not served now.
        """
        worker = self._state.worker
        now = worker.registry.now
        path = f"/v2/models/{name}/versions/{version}/infer" if version else f"/v2/models/{name}/infer"
        endpoint = now.fast_endpoints.get(path.encode())
        if endpoint is not None and endpoint.kind == INFER and endpoint.served.name == name:
            return endpoint
        worker.dispatcher.authorizer.authorize(head, Scope.PREDICT, name)
        return Endpoint(INFER, now.find_served(name, version or None))

    def _ask(self, call: RouteCall, head: CallHead, message: bytes, client: tuple[str, int] | None) -> PendingResponse:
        """Have the application answer a call."""
        state = self._state
        try:
            http = call.translate(parse_message(call.request, message), state.worker.registry.now)
        except SoftstepError as reason:
            return refusal(reason, V2)
        asking = ask_application(state.app, http, head, client, state.scheme, is_public=state.is_public)
        task = asyncio.get_running_loop().create_task(asking)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return translated(task, partial(translate_answer, call))


def _translate_inference(response: HttpResponse) -> HttpResponse:
    """Return a response of ModelInfer whose body is the framed message; an error stays as it is."""
    return HttpResponse(SUCCESS, translate_response(response), BINARY) if response.status == SUCCESS else response


def translated(pending: PendingResponse, translate: Callable[[HttpResponse], HttpResponse]) -> PendingResponse:
    """Return a response translated, now or when it is made; if the caller cancels it, it is no longer made."""
    if isinstance(pending, HttpResponse):
        return translate(pending)
    later: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

    def forward(done: asyncio.Future[HttpResponse]) -> None:
        if later.done():
            return
        if done.cancelled():
            later.cancel()
            return
        reason = done.exception()
        if reason is not None:
            later.set_exception(reason)
        else:
            later.set_result(translate(done.result()))

    pending.add_done_callback(forward)
    later.add_done_callback(lambda done: pending.cancel() if done.cancelled() else None)
    return later
