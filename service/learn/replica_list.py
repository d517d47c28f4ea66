"""Tell the other replicas of a shared log what this one has erased, and find out what they have and do."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from service.errors import LogError
from service.process.shared_memory import LEARNERS
from service.store.log.events import SEQ_MAX
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_facts import Replica

# Between two reports.
REPORT_SECONDS: Final = 1.0
# A replica that has not reported for so long is not running; it erases what was forgotten when it starts again.
LIVE_SECONDS: Final = 15.0
WORKER: Final = "worker"
Learners = Sequence[Replica] | None


class ErasableStream(Protocol):
    """The files of one stream in this replica.

    Attributes:
        erased_elsewhere: The number of FORGET events whose rows are in no file of any other replica.
    """

    erased_elsewhere: int

    @property
    def erased_epoch(self) -> int:
        """The number of FORGET events whose rows are in no file of this replica."""


class ReplicaList:
    """The replicas of a shared log; another log has none.

    Args:
        log: The log.
        role: The role of this replica.
        cells: The cells of the learner's slot, where the number of learners is noted.

    Attributes:
        learners: The other replicas that fold events and run now; None until the first exchange.
        has_workers: Whether a replica runs that takes what learners have folded.
    """

    def __init__(self, log: FeedbackLog, role: str, cells: memoryview) -> None:
        self._facts: Final = log.facts
        self._role: Final = role
        self._cells: Final = cells
        # The same name again after a crash of the learner: its parent is the one of before.
        self._name: Final = f"{socket.gethostname()}-{os.getppid()}"
        self._due = 0.0
        self.learners: Learners = None
        self.has_workers = False
        self._seen: dict[str, float] = {}  # when each of the others was seen last, by the clock of this process

    def is_due(self, now: float) -> bool:
        """Return whether to call `exchange` at a time, in seconds of a monotonic clock."""
        return self._facts is not None and now >= self._due

    def exchange(self, now: float, streams: Mapping[int, ErasableStream], halted: Iterable[int] = ()) -> None:
        """Report what this replica has erased, and tell its streams what the others have.

        Args:
            now: The time.
            streams: Each stream, by its number.
            halted: The numbers of the streams that cannot be folded further now.
        """
        if self._facts is None:
            return
        self._due = now + REPORT_SECONDS
        with suppress(LogError):  # what is known of the others stays
            erased = {number: stream.erased_epoch for number, stream in streams.items()}
            self._facts.report_replica(self._name, erased, self._role, halted)
            others = self._select_live([one for one in self._facts.list_replicas() if one.name != self._name], now)
            self.learners = [replica for replica in others if replica.role != WORKER]
            self.has_workers = any(replica.role == WORKER for replica in others)
            self._cells[LEARNERS] = len(self.learners) + (self._role != WORKER)
            if self._role == WORKER and not self.learners:
                return  # learners alone erase from the log
            for number, stream in streams.items():
                epochs = [replica.erased.get(number, 0) for replica in others]
                stream.erased_elsewhere = min(epochs, default=SEQ_MAX)

    def _select_live(self, replicas: Sequence[Replica], now: float) -> list[Replica]:
        """Return those of the replicas that were seen lately.

        After a failover, the age of each is the difference of two servers' clocks until it reports again. So one that
        was seen counts for as long, whatever its age is meanwhile. An age is not negative: it may be that difference.
        """
        seen = {one.name: now - max(0.0, one.seconds) for one in replicas}
        self._seen = {name: max(at, self._seen.get(name, at)) for name, at in seen.items()}
        return [one for one in replicas if now - self._seen[one.name] < LIVE_SECONDS]
