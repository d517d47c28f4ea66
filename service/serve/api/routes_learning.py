"""Routes for feedback, weights and administration."""

from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api.dependencies import (
    Context,
    NamedModel,
    Served,
    With,
    head_of,
    include_for_models,
    read_json,
    respond,
)
from service.serve.api.schemas.admin_bodies import (
    AddClassesRequest,
    AdminCall,
    ConfigureRequest,
    CorrectRequest,
    ForgetRequest,
    RollbackRequest,
)
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute, principal_of
from service.serve.api.validation import BeforeQuery, ChoiceQuery, LimitQuery, SeqQuery, Wait, parse_body
from service.serve.asgi import COUNTED_BY_MODEL, Reply
from service.serve.handlers.admin_requests import (
    AdminRequest,
    check_classes,
    check_configuration,
    classes_payload,
    configure_payload,
    forget_payload,
    rollback_payload,
)
from service.serve.handlers.correction_requests import CorrectionCall
from service.serve.handlers.event_list import EventsQuery
from service.serve.handlers.learning import Learning
from service.serve.models.endpoint import FEEDBACK, Endpoint
from service.serve.responses import NDJSON, learning_off
from service.serve.wire.feedback_body import PostedEvent
from service.serve.wire.invocation_form import prefers
from service.store.log.events import Kind
from service.store.states.event_entries import EventChoice

learning = APIRouter(tags=["learning"], route_class=ScopedRoute)
# Calls of one model; the paths begin behind its name or version.
learning_models = APIRouter(route_class=ScopedRoute)

Call = TypeVar("Call", bound=AdminCall)


def _learning(context: Context) -> Learning:
    if context.learning is None:
        raise learning_off()
    return context.learning


async def _parse(request: Request, context: Context, model: type[Call]) -> Call:
    return parse_body(await read_json(request, context), context.settings, model)


def _admin_request(request: Request, call: AdminCall, kind: Kind, payload: bytes) -> AdminRequest:
    return AdminRequest(kind, PostedEvent(call.id.encode(), payload, 0), call.if_seq, principal_of(request).actor)


@learning_models.post(":feedback", **DOCS["feedback"])
async def feedback(
    path: NamedModel, served: Served, request: Request, context: With, *, wait: Wait = False
) -> Response:
    """Learn from rows with their labels: one step for each row, in order."""
    if not wait:
        return await respond(request, context, FEEDBACK, served)
    request.scope[COUNTED_BY_MODEL] = True
    body = await read_json(request, context)
    endpoint = Endpoint(FEEDBACK, served, any_version=path.version is None)
    principal = principal_of(request)
    return Reply(await _learning(context).feedback.respond_when_served(endpoint, principal, body))


@learning_models.get("/weights", **DOCS["weights"])
async def weights(served: Served, context: With, seq: SeqQuery = None) -> Response:
    """Return the served weights, or those at a seq, as a safetensors file."""
    return Reply(await context.weights.respond(served, seq))


@learning_models.get("/events", **DOCS["events"])
async def events(  # noqa: PLR0917  # the parameters of the query
    served: Served,
    request: Request,
    context: With,
    before: BeforeQuery = None,
    limit: LimitQuery = 50,
    kind: ChoiceQuery = EventChoice.ALL,
) -> Response:
    """List the events of a model without their features, newest first, or those with the largest losses.

    With `Accept: application/x-ndjson` each event is a line of its own.
    """
    as_lines = prefers(head_of(request).accept or b"", NDJSON)
    return Reply(await _learning(context).events.respond(served, EventsQuery(kind, before, limit, as_lines)))


@learning_models.post(":classes", **DOCS["classes"])
async def classes(served: Served, request: Request, context: With, *, wait: Wait = False) -> Response:
    """Add classes after the existing ones; no two others change their order, but for close ones of a mixture."""
    admin = _learning(context).admin
    call = await _parse(request, context, AddClassesRequest)
    event = _admin_request(request, call, Kind.CLASSES, classes_payload(call.add))
    return Reply(await admin.append(served, event, wait=wait, check=partial(check_classes, call.add)))


@learning_models.post(":correct", **DOCS["correct"])
async def correct(path: NamedModel, served: Served, request: Request, context: With, *, wait: Wait = False) -> Response:
    """Correct the labels of events: from then on the model is what it would be with the new labels.

    Without a version in the path they may be events of any version of the model.
    """
    corrections = _learning(context).corrections
    call = await _parse(request, context, CorrectRequest)
    version = None if path.version is None else int(served.version)
    ids, id_ = [one.encode() for one in call.ids], call.id.encode()
    correction = CorrectionCall(served.name, version, ids, call.labels, id_, call.if_seq, principal_of(request).actor)
    return Reply(await corrections.correct(served, correction, wait=wait))


@learning_models.post(":forget", **DOCS["forget"])
async def forget(path: NamedModel, served: Served, request: Request, context: With, *, wait: Wait = False) -> Response:
    """Forget events: the model becomes what it would be without them, and their rows are erased.

    Without a version in the path they may be events of any version of the model.
    """
    admin = _learning(context).admin
    call = await _parse(request, context, ForgetRequest)
    event = _admin_request(request, call, Kind.FORGET, forget_payload(call.ids))
    append = admin.forget if path.version is None else admin.append
    return Reply(await append(served, event, wait=wait))


@learning_models.post(":rollback", **DOCS["rollback"])
async def rollback(served: Served, request: Request, context: With, *, wait: Wait = False) -> Response:
    """Go back to the state at a seq; the later events stay in the log."""
    admin = _learning(context).admin
    call = await _parse(request, context, RollbackRequest)
    event = _admin_request(request, call, Kind.ROLLBACK, rollback_payload(call.seq))
    return Reply(await admin.append(served, event, wait=wait))


@learning_models.post(":configure", **DOCS["configure"])
async def configure(served: Served, request: Request, context: With, *, wait: Wait = False) -> Response:
    """Pause learning, learn without serving the result, or change the learning rule."""
    admin = _learning(context).admin
    call = await _parse(request, context, ConfigureRequest)
    event = _admin_request(request, call, Kind.CONFIGURE, configure_payload(call.changes()))
    return Reply(await admin.append(served, event, wait=wait, check=partial(check_configuration, call.changes())))


include_for_models(learning, learning_models, "/v1/models")
