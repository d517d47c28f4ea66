"""Answer the administrative calls: each becomes an event in the log."""

from typing import Final

import orjson

from service.log_events import logger
from service.serve.handlers.admin_requests import AdminRequest, forget_everywhere, in_version
from service.serve.handlers.append_outcomes import accepted, refusal_of
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback_context import FeedbackContexts, now_ms
from service.serve.log.writer import Writer
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse
from service.store.log.events import EventLocation


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

    async def append(self, served: ServedModel, request: AdminRequest, *, wait: bool) -> HttpResponse:
        """Append an admin event and respond: 202 when it is on disk, or with `wait` 200 when this worker serves it."""
        context = self._context_of(served)
        place = await self._writer.submit_event(context.source, request.event, request.kind, request.if_seq)
        self._log_stored(served.name, request, place)
        if wait:
            await self._responses.wait_until_served(served.name, {self._responses.version_of(place): place.seq})
        event = self._responses.event_body(context, request.event, place)
        return HttpResponse(200 if wait else 202, orjson.dumps({**context.names, **event}))

    async def forget(self, served: ServedModel, request: AdminRequest, *, wait: bool) -> HttpResponse:
        """Forget feedback of a model in every version that holds it; respond as `append`, or with all events."""
        context, name = self._context_of(served), served.name
        outcomes = await self._writer.call_with_log(
            lambda log: forget_everywhere(log, name, request, now_ms()), appends=True
        )
        response = refusal_of(outcomes)
        if response is not None:
            return response
        places = [accepted(outcome) for outcome in outcomes]
        for place in places:
            self._log_stored(name, request, place)
        seqs = {self._responses.version_of(place): place.seq for place in places}
        if wait:
            now = self._registry.now.served
            seqs_served = {version: seq for version, seq in seqs.items() if (name, version) in now}
            await self._responses.wait_until_served(name, seqs_served)
        posted = [request.event, *(in_version(request.event, version) for version in list(seqs)[1:])]
        events = [
            self._responses.event_body(context, event, place) for event, place in zip(posted, places, strict=True)
        ]
        rest = events[0] if len(events) == 1 else {"events": events}
        return HttpResponse(200 if wait else 202, orjson.dumps({**context.names, **rest}))

    def _log_stored(self, name: str, request: AdminRequest, place: EventLocation) -> None:
        version = self._responses.version_of(place)
        kind = request.kind.name.lower()
        logger.event("admin_event", kind=kind, model=name, version=version, seq=place.seq, duplicate=place.duplicate)
