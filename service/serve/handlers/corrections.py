"""Answer `:correct`: new labels of feedback become CORRECT events in the log, one for each id."""

from typing import Any, Final

import orjson

from service.log_events import logger
from service.serve.handlers.append_outcomes import kept, refusal_of, refusal_reason
from service.serve.handlers.correction_requests import CorrectionCall, append_corrections
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback_context import FeedbackContext, FeedbackContexts, now_ms
from service.serve.log.writer import Writer
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse
from service.serve.wire.feedback_body import PostedEvent
from service.settings import Settings
from service.store.artifact.manifest import Manifest
from service.store.directory.bound_artifact import read_bound_manifest
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Outcome


class CorrectionHandler:
    """Corrects labels; used on the event loop's thread.

    Args:
        registry: The models that are served.
        contexts: The stream of each served state.
        writer: The writer of the log.
        responses: Describes stored events.
        data: The data directory.
        settings: The limits.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        contexts: FeedbackContexts,
        writer: Writer,
        responses: EventResponses,
        *,
        data: DataDirectory,
        settings: Settings,
    ) -> None:
        self._registry: Final = registry
        self._context_of: Final = contexts.context_of
        self._writer: Final = writer
        self._responses: Final = responses
        self._data: Final = data
        self._lag_events_max: Final = settings.lag_events_max

    async def correct(self, served: ServedModel, call: CorrectionCall, *, wait: bool) -> HttpResponse:
        """Append the events of a call and respond: 202 when they are on disk, or with `wait` 200 when they are served.

        With `wait` only the versions that are served are waited for.
        """
        context, name = self._context_of(served), served.name
        context.check_lag(served, self._lag_events_max)
        outcomes = await self._writer.call_with_log(
            lambda log: append_corrections(log, call, self._read_manifest, now_ms()), appends=True
        )
        events = [
            self._describe(context, event_id, outcome)
            for event_id, outcome in zip(call.event_ids, outcomes, strict=True)
        ]
        response = refusal_of(outcomes, events)
        if response is not None:
            return response
        places = [kept(outcome) for outcome in outcomes]
        last = {self._responses.version_of(place): place for place in sorted(places)}
        for version, place in last.items():
            logger.event(
                "admin_event", kind="correct", model=name, version=version, seq=place.seq, duplicate=place.duplicate
            )
        if wait:
            now = self._registry.now.served
            placed = [
                (event_id, place)
                for event_id, place in zip(call.event_ids, places, strict=True)
                if (name, self._responses.version_of(place)) in now
            ]
            found = await self._responses.wait_until_served(name, placed)
            later = {event_id: place for (event_id, _), place in zip(placed, found, strict=True)}
            places = [later.get(event_id, place) for event_id, place in zip(call.event_ids, places, strict=True)]
            response = refusal_of(places, events)
            if response is not None:
                return response
        return HttpResponse(200 if wait else 202, orjson.dumps({**context.names, "events": events}))

    def _describe(self, context: FeedbackContext, event_id: bytes, outcome: Outcome) -> dict[str, Any]:
        """Return the members that describe one event; of a refused one its id."""
        if refusal_reason(outcome) is not None:
            return {"id": event_id.decode()}
        return self._responses.event_body(context, PostedEvent(event_id, b"", 0), kept(outcome))

    def _read_manifest(self, model: str, version: int) -> Manifest:
        """Return the manifest that the stream of a version is bound to; called in the writer's thread."""
        return read_bound_manifest(self._data.stream_folder(model, version))
