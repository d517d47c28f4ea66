"""Find out when a replica serves what its shared log had at the start: it is ready then."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from service.errors import StreamGoneError
from service.learn.stream_delays import StreamDelays
from service.learn.stream_learner import StreamLearner
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.states.state_folder import list_seqs


class CatchUp:
    """The last event of each stream at the start, as far as it is not published yet.

    Args:
        log: The log.
        data: The data directory.
    """

    def __init__(self, log: FeedbackLog, data: DataDirectory) -> None:
        self._log: Final = log
        self._data: Final = data
        self._targets: dict[int, int] | None = None

    def is_done(
        self, streams: Mapping[int, Stream], learners: Mapping[int, StreamLearner], delays: StreamDelays
    ) -> bool:
        """Return whether all is published. Once this was true, do not call it again.

        A stream whose learning is held or stalled counts, because other replicas have no more of it. One that a later
        release has taken over counts only if a state of it is served: replicas of that release have more.

        Args:
            streams: The streams that exist, by number.
            learners: The learner of each stream, by its number.
            delays: Those of the streams whose learning is held.

        Raises:
            LogError: The log cannot be used now.
        """
        if self._targets is None:
            targets = {}
            for number in streams:
                with suppress(StreamGoneError):
                    targets[number] = self._log.stream_state(number).seq
            self._targets = targets
        held = delays.held
        for number, seq in list(self._targets.items()):
            stream, learner = streams.get(number), learners.get(number)
            is_published = learner is not None and (learner.publisher.published_seq >= seq or learner.is_stalled)
            if stream is None or seq == 0 or is_published or (number in held and self._is_last(stream, delays)):
                del self._targets[number]
        return not self._targets

    def _is_last(self, stream: Stream, delays: StreamDelays) -> bool:
        """Return whether no more can be served of a stream whose learning is held."""
        is_served = bool(list_seqs(self._data.stream_folder(stream.model, stream.version).snapshots))
        return is_served or stream.number not in delays.taken_over
