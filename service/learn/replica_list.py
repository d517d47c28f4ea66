"""Tell the other replicas of a shared log what this one has erased, and find out what they have."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from service.errors import LogError
from service.learn.stream_learner import StreamLearner
from service.store.log.events import SEQ_MAX
from service.store.log.feedback_log import FeedbackLog

# Between two reports.
REPORT_SECONDS: Final = 1.0
# A replica that has not reported for so long is not running; it erases what was forgotten when it starts again.
LIVE_SECONDS: Final = 15.0


class ReplicaList:
    """The replicas of a shared log; another log has none.

    Args:
        log: The log.
    """

    def __init__(self, log: FeedbackLog) -> None:
        self._facts: Final = log.facts
        # The same name again after a crash of the learner: its parent is the one of before.
        self._name: Final = f"{socket.gethostname()}-{os.getppid()}"
        self._due = 0.0

    def exchange(self, now: float, learners: Mapping[int, StreamLearner]) -> None:
        """Report what the learners of this replica have erased, and tell them what the others have, if that is due.

        Args:
            now: The time, in seconds of a monotonic clock.
            learners: The learner of each stream, by its number.
        """
        if self._facts is None or now < self._due:
            return
        self._due = now + REPORT_SECONDS
        with suppress(LogError):  # what is known of the others stays
            erased = {number: learner.publisher.erased_epoch for number, learner in learners.items()}
            self._facts.report_replica(self._name, erased)
            others = [
                replica
                for replica in self._facts.list_replicas()
                if replica.name != self._name and replica.seconds < LIVE_SECONDS
            ]
            for number, learner in learners.items():
                if others:
                    learner.publisher.erased_elsewhere = min(replica.erased.get(number, 0) for replica in others)
                else:
                    learner.publisher.erased_elsewhere = SEQ_MAX
