"""Answer the administrative calls: each becomes an event in the log."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from service.errors import SoftstepError
from service.log_events import logger
from service.serve.handlers.admin_requests import AdminRequest, forget_everywhere, in_version
from service.serve.handlers.append_outcomes import kept, refusal_of
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback_context import FeedbackContext, FeedbackContexts, now_ms
from service.serve.log.writer import Writer
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse
from service.store.artifact.fingerprint import FOLD_VERSION, fold_version_of
from service.store.log.events import EventLocation, Outcome

Check = Callable[[ServedModel, int], None]
"""Raise an error unless a served model, whose stream began with a version of the fold, can accept an event."""


class AdminHandler:
    """Appends admin events; used on the event loop's thread.

    Args:
        registry: The models that are served.
        contexts: The stream of each served state.
        writer: The writer of the log.
        responses: Describes stored events.
    """

    def __init__(
        self, registry: ModelRegistry, contexts: FeedbackContexts, writer: Writer, responses: EventResponses
    ) -> None:
        self._registry: Final = registry
        self._context_of: Final = contexts.context_of
        self._writer: Final = writer
        self._responses: Final = responses

    async def append(
        self, served: ServedModel, request: AdminRequest, *, wait: bool, check: Check | None = None
    ) -> HttpResponse:
        """Append an admin event and respond: 202 when it is on disk, or with `wait` 200 when this worker serves it.

        `check` raises an error if the served model cannot accept a new event; the retry of a stored one is not checked.
        """
        context = self._context_of(served)
        if check is not None:
            await self._check_new(served, request, check)
        kind, event, if_seq, actor = request
        place = kept(await self._writer.submit_event(context.source, event, kind, if_seq, actor))
        self._log_stored(served.name, request, place)
        if wait:
            (place,) = await self._responses.wait_until_served(served.name, [(event.id, place)])
        event_body = self._responses.event_body(context, event, kept(place))
        return HttpResponse(200 if wait else 202, orjson.dumps({**context.names, **event_body}))

    async def forget(self, served: ServedModel, request: AdminRequest, *, wait: bool) -> HttpResponse:
        """Forget feedback of a model in every version that holds it; respond as `append`, or with all events."""
        context, name = self._context_of(served), served.name
        outcomes = await self._writer.call_with_log(
            lambda log: forget_everywhere(log, name, request, now_ms()), appends=True
        )
        if len(outcomes) == 1:
            kept(outcomes[0])
        events = [self._describe(context, request, number, outcome) for number, outcome in enumerate(outcomes)]
        response = refusal_of(outcomes, events)
        if response is not None:
            return response
        places = [(event["id"].encode(), kept(outcome)) for event, outcome in zip(events, outcomes, strict=True)]
        for _, place in places:
            self._log_stored(name, request, place)
        if wait:
            now = self._registry.now.served
            served_places = [one for one in places if (name, self._responses.version_of(one[1])) in now]
            await self._responses.wait_until_served(name, served_places)
        rest = events[0] if len(events) == 1 else {"events": events}
        return HttpResponse(200 if wait else 202, orjson.dumps({**context.names, **rest}))

    async def _check_new(self, served: ServedModel, request: AdminRequest, check: Check) -> None:
        """Check an event that is not in the log yet: its own effect may be what the served model refuses now."""
        try:
            check(served, await self._fold_version(served))
        except SoftstepError:
            id_ = request.event.id
            if id_ not in await self._writer.call_with_log(lambda log: log.find_ids(served.name, [id_])):
                raise

    async def _fold_version(self, served: ServedModel) -> int:
        """Return the version of the fold with which the stream of a model began, or begins with its first event."""
        if served.learned is None:  # a snapshot names its rule, whatever the version
            for stream in await self._writer.call_with_log(lambda log: log.list_streams()):
                if (stream.model, stream.version) == served.key:
                    return fold_version_of(served.artifact, stream.genesis) or FOLD_VERSION
        return FOLD_VERSION

    def _log_stored(self, name: str, request: AdminRequest, place: EventLocation) -> None:
        version = self._responses.version_of(place)
        kind = request.kind.name.lower()
        logger.event("admin_event", kind=kind, model=name, version=version, seq=place.seq, duplicate=place.duplicate)

    def _describe(
        self, context: FeedbackContext, request: AdminRequest, number: int, outcome: Outcome
    ) -> dict[str, Any]:
        """Return the members that describe event `number` of a call for several versions; of a refused one nothing."""
        if not isinstance(outcome, EventLocation):
            return {}
        version = self._responses.version_of(outcome)
        event = in_version(request.event, version) if number else request.event
        return self._responses.event_body(context, event, outcome)
