"""Find out when a replica serves what its shared log had at the start: it is ready then."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from service.errors import StreamGoneError
from service.learn.stream_learner import StreamLearner
from service.store.log.feedback_log import FeedbackLog


class CatchUp:
    """The last event of each stream at the start, as far as it is not published yet.

    Args:
        log: The log.
    """

    def __init__(self, log: FeedbackLog) -> None:
        self._log: Final = log
        self._targets: dict[int, int] | None = None

    def is_done(self, streams: Collection[int], learners: Mapping[int, StreamLearner], held: Collection[int]) -> bool:
        """Return whether all is published. Once this was true, do not call it again.

        A stream whose learning is held or stalled counts, because other replicas have no more of it.

        Args:
            streams: The numbers of the streams that exist.
            learners: The learner of each stream, by its number.
            held: The numbers of the streams whose learning is held.

        Raises:
            LogError: The log cannot be used now.
        """
        if self._targets is None:
            targets = {}
            for number in streams:
                with suppress(StreamGoneError):
                    targets[number] = self._log.stream_state(number).seq
            self._targets = targets
        for number, seq in list(self._targets.items()):
            learner = learners.get(number)
            is_published = learner is not None and (learner.publisher.published_seq >= seq or learner.is_stalled)
            if seq == 0 or number in held or is_published or number not in streams:
                del self._targets[number]
        return not self._targets
