"""Responses about stored events, and the wait until they are served."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from service.errors import LogDamagedError, NotReachedError, VersionNotServedError
from service.serve.handlers.feedback_context import FeedbackContext
from service.serve.log.writer import Writer
from service.serve.models.registry import ModelRegistry
from service.serve.wire.feedback_body import PostedEvent
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import EventLocation, Position
from service.store.log.feedback_log import FeedbackLog
from service.store.states.losses import LossReader

# Pause before it is asked again whether the served state is of the log's chain.
FORKED_SECONDS: Final = 0.05


class EventResponses:
    """Describes stored events; used on the event loop's thread.

    Args:
        registry: The models that are served.
        writer: The writer that stored them.
        data: The data directory.
        settings: How long a caller may wait.
    """

    def __init__(self, registry: ModelRegistry, writer: Writer, data: DataDirectory, settings: Settings) -> None:
        self._registry: Final = registry
        self._writer: Final = writer
        self._data: Final = data
        self._wait_seconds: Final = settings.wait_seconds
        self._losses: Final[dict[tuple[str, int], LossReader]] = {}

    def event_body(self, context: FeedbackContext, event: PostedEvent, place: EventLocation) -> dict[str, Any]:
        """Return the members that describe one event, with its version if that is not the one asked."""
        body: dict[str, Any] = {"id": event.id.decode(), "seq": place.seq, "duplicate": place.duplicate}
        version = self.version_of(place)
        if version != context.source.version:
            body["model_version"] = str(version)
        return body

    def version_of(self, place: EventLocation) -> int:
        """Return the version whose stream holds an event."""
        return self._writer.version_of(place.stream)

    def losses_of(self, name: str, place: EventLocation) -> list[float] | None:
        """Return the loss of each row of an event before its step, or None once they are discarded."""
        key = name, self.version_of(place)
        reader = self._losses.get(key)
        if reader is None:
            reader = self._losses[key] = LossReader(self._data.stream_folder(*key).path / "losses")
        return reader.read_losses(place.seq)

    def served_body(self, context: FeedbackContext, event: PostedEvent, place: EventLocation) -> dict[str, Any]:
        """Return the members that describe one served event, with the losses of its rows."""
        return {**self.event_body(context, event, place), "losses": self.losses_of(context.source.model, place)}

    async def wait_until_served(self, name: str, placed: Sequence[tuple[bytes, EventLocation]]) -> list[EventLocation]:
        """Wait until this worker serves states of a model that were made after its events.

        Args:
            name: The model's name.
            placed: The id and the location of each event.

        Returns:
            The location of each event, with what has removed it meanwhile.

        Raises:
            VersionNotServedError: A version is not served; its event is stored.
            NotReachedError: The time that a caller may wait is over; the event is stored.
        """
        seqs: dict[tuple[str, int], int] = {}
        for _, place in placed:
            key = name, self.version_of(place)
            seqs[key] = max(place.seq, seqs.get(key, 0))
        if not seqs.keys() <= self._registry.now.served.keys():
            raise VersionNotServedError(
                "The event is stored by a version of the model that is not served; load that version to wait for it."
            )
        until, pause = asyncio.get_running_loop().time() + self._wait_seconds, 0.0
        while True:
            try:
                async with asyncio.timeout_at(until):
                    if pause:
                        await asyncio.sleep(pause)
                    for key, seq in seqs.items():
                        await self._registry.wait_for_seq(key, seq)
            except TimeoutError:
                raise NotReachedError("The event is stored but not served yet; ask with min_seq in a moment.") from None
            found = await self._writer.call_with_log(partial(self._find_served, name, placed))
            if found is not None:
                return [place._replace(removed_by=found[id_].removed_by) for id_, place in placed]
            pause = FORKED_SECONDS

    def _find_served(
        self, name: str, placed: Sequence[tuple[bytes, EventLocation]], log: FeedbackLog
    ) -> dict[bytes, EventLocation] | None:
        """Return the events of a model by their ids; None if a state is served whose events the log lacks.

        After a fork of the log such a state has a seq that later events have too, until the learner has gone back.
        """
        if log.is_shared:
            for stream in {place.stream for _, place in placed}:
                served = self._registry.now.served.get((name, self._writer.version_of(stream)))
                if served is not None and served.learned is not None:
                    position = Position(served.seq, bytes.fromhex(served.learned.fields["hash"]))
                    try:
                        log.read_checked(stream, position, 0)
                    except LogDamagedError:
                        return None
        return log.find_ids(name, [id_ for id_, _ in placed])
