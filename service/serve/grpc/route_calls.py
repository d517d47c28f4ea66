"""Calls that the application answers: the HTTP request of the same meaning, and its response as a message.

The application authorizes, limits, counts and records such a call as it does over HTTP.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson
from google.protobuf.json_format import ParseDict
from starlette.types import ASGIApp, Message

from service.errors import ModelNotFoundError, VersionNotFoundError
from service.serve.asgi import CERTIFICATE, IS_PUBLIC
from service.serve.grpc import grpc_messages
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.grpc_messages import INFERENCE, MessageClass, message_class
from service.serve.grpc.message_framing import frame_message
from service.serve.models.live_models import LiveModels
from service.serve.responses import Header, HttpResponse

# A segment of a path that a model can have as its name.
SEGMENT: Final = re.compile(r"[^/:]+")
NOT_HTTP: Final = frozenset((b"host", b"te", b"content-type", b"content-length", b"connection"))
MISSING: Final = frozenset(("model_not_found", "version_not_found", "model_not_ready"))
# The path segment of statistics, which a model's name could be too.
STATS: Final = "stats"


class HttpCall(NamedTuple):
    """The HTTP request of the same meaning: method, path and body."""

    method: str
    path: str
    body: bytes = b""


Translate = Callable[[grpc_messages.Message, LiveModels], HttpCall]


class RouteCall(NamedTuple):
    """A method that a route of the application answers.

    Attributes:
        request: The class of its requests.
        answer: The class of its answers.
        translate: Makes the HTTP request.
        field: The field of the answer that has the whole JSON document; "" if the document is the answer.
    """

    request: MessageClass
    answer: MessageClass
    translate: Translate
    field: str = ""


def _of_model(end: str) -> Translate:
    """Return the translation of a call about a model, whose path ends so."""

    def translate(request: grpc_messages.Message, now: LiveModels) -> HttpCall:
        return HttpCall("GET", _model_path(request.name, request.version, now) + end)

    return translate


def _model_path(name: str, version: str, now: LiveModels) -> str:
    """Return the path of a model; raise ModelNotFoundError if no path can have its name or version."""
    if not SEGMENT.fullmatch(name):
        raise ModelNotFoundError("Request for unknown model: no model has that name.")
    if not version and name == STATS:
        latest = now.find_latest(name)
        version = "1" if latest is None else latest.version
    if not version:
        return f"/v2/models/{name}"
    if not SEGMENT.fullmatch(version):
        raise VersionNotFoundError("Request for unknown model version: the model has no such version.")
    return f"/v2/models/{name}/versions/{version}"


def _statistics(request: grpc_messages.Message, now: LiveModels) -> HttpCall:
    return _of_model("/stats")(request, now) if request.name else HttpCall("GET", "/v2/models/stats")


def _index(request: grpc_messages.Message, _now: LiveModels) -> HttpCall:
    return HttpCall("POST", "/v2/repository/index", orjson.dumps({"ready": request.ready}))


def _repository(end: str) -> Translate:
    """Return the translation of a load or an unload, whose path ends so."""

    def translate(request: grpc_messages.Message, _now: LiveModels) -> HttpCall:
        if not SEGMENT.fullmatch(request.model_name):
            raise ModelNotFoundError("Request for unknown model: the name is not valid for a model.")
        # The values do not matter: a load accepts no parameter, and an unload ignores them.
        body = orjson.dumps({"parameters": dict.fromkeys(request.parameters, True)})
        return HttpCall("POST", f"/v2/repository/models/{request.model_name}{end}", body)

    return translate


def _messages(name: str) -> tuple[MessageClass, MessageClass]:
    return message_class(f"inference.{name}Request"), message_class(f"inference.{name}Response")


ROUTE_CALLS: Final = {
    f"/{INFERENCE}/{name}".encode(): RouteCall(*_messages(name), translate, field)
    for name, translate, field in (
        ("ServerMetadata", lambda _request, _now: HttpCall("GET", "/v2"), ""),
        ("ModelReady", _of_model("/ready"), ""),
        ("ModelMetadata", _of_model(""), ""),
        ("ModelConfig", _of_model("/config"), "config"),
        ("ModelStatistics", _statistics, ""),
        ("RepositoryIndex", _index, "models"),
        ("RepositoryModelLoad", _repository("/load"), ""),
        ("RepositoryModelUnload", _repository("/unload"), ""),
    )
}


def translate_answer(call: RouteCall, response: HttpResponse) -> HttpResponse:
    """Return a response whose body is the framed message, with the headers of the application's; an error as it is.

    A model that is unknown or not served is an error of most calls, and the answer of ModelReady.
    """
    answer = call.answer()
    if response.status != 200:  # noqa: PLR2004  # the status of every success
        if "ready" not in answer.DESCRIPTOR.fields_by_name or response.code not in MISSING:
            return response
        return response._replace(status=200, body=frame_message(answer.SerializeToString()), code="")
    document: Any = orjson.loads(response.body)
    ParseDict({call.field: document} if call.field else document, answer, ignore_unknown_fields=True)
    return response._replace(body=frame_message(answer.SerializeToString()))


async def ask_application(  # the parts of a scope
    app: ASGIApp, call: HttpCall, head: CallHead, client: tuple[str, int] | None, scheme: str, *, is_public: bool
) -> HttpResponse:
    """Return the application's response to a request.

    Args:
        app: The application.
        call: The request.
        head: The head of the call, whose headers the request has.
        client: The address of the client, if it is known.
        scheme: The scheme of the port.
        is_public: Whether the calls of feedback and administration are on another port.
    """
    headers: list[Header] = [
        header for header in head.headers if not header[0].startswith((b":", b"grpc-")) and header[0] not in NOT_HTTP
    ]
    headers += [(b"host", head.request.host or b""), (b"content-length", b"%d" % len(call.body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "2",
        "method": call.method, "scheme": scheme, "path": call.path, "raw_path": call.path.encode(),
        "query_string": b"", "root_path": "", "headers": headers, "client": client, "server": None,
        CERTIFICATE: head.request.certificate, IS_PUBLIC: is_public,
    }  # fmt: skip
    status, fields, parts = 0, dict[bytes, bytes](), list[bytes]()

    async def receive() -> Message:  # as ASGI has it
        return {"type": "http.request", "body": call.body, "more_body": False}

    async def send(message: Message) -> None:  # as ASGI has it
        nonlocal status, fields
        if message["type"] == "http.response.start":
            status, fields = message["status"], dict(message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    body = b"".join(parts)
    code = "" if status == 200 else orjson.loads(body)["code"]  # noqa: PLR2004  # as above
    return HttpResponse(status, body, fields[b"content-type"], tuple(fields.items()), code)
