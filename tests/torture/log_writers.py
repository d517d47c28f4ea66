"""Writers of a feedback log whose database fails: each appends a batch again, with the same ids, until it is stored."""

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from service.errors import LogError, OutcomeUnknownError
from service.store.log.events import Draft, EventLocation, Kind, Outcome, Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import Targets, encode_rows

# The seqs under which each id was acknowledged.
Acknowledged = dict[str, set[int]]
OpenLog = Callable[[], FeedbackLog]
# Of the streams: features, classes and genesis mean nothing here, because no event is folded.
GENESIS, K = bytes(32), 3
PAYLOAD = encode_rows(np.ones((1, 4), np.float32), np.array([1]), Targets.INDEX, K)
BATCH_MAX = 16
PAUSE_SECONDS = 0.02
PAGE_EVENTS = 4096


@dataclass
class WriterState:
    """Results that the writers share.

    Attributes:
        stop: Set at the end.
        acknowledged: The seqs under which each id was acknowledged.
        duplicates: How many events were acknowledged to a retry, because an earlier try had been stored.
        unknown: How many tries had no known outcome.
        unavailable: How many tries were refused because the database could not be used.
        failures: Errors that no writer expects.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: Acknowledged = field(default_factory=dict)
    duplicates: int = 0
    unknown: int = 0
    unavailable: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, drafts: Sequence[Draft], outcomes: Sequence[Outcome]) -> None:
        """Record the outcomes of one append; each must be a location, because the drafts are good."""
        with self.lock:
            for draft, outcome in zip(drafts, outcomes, strict=True):
                if isinstance(outcome, EventLocation):
                    self.acknowledged.setdefault(draft.id.decode(), set()).add(outcome.seq)
                    self.duplicates += outcome.duplicate
                else:
                    self.failures.append(f"a draft was refused: {outcome!r}")


class LogWriter(threading.Thread):
    """A thread that appends batches of random sizes to one stream.

    Args:
        state: The results.
        open_log: Opens the writer's log.
        stream: The stream's number.
        seed: Of the sizes.
        pause: Seconds between two tries of a batch.
        tries: How often a batch is tried before the next one; None: until it is stored.
    """

    def __init__(  # noqa: PLR0917  # all but the last two are always given
        self,
        state: WriterState,
        open_log: OpenLog,
        stream: int,
        seed: int,
        pause: float = PAUSE_SECONDS,
        tries: int | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._state, self._open_log, self._stream, self._pause = state, open_log, stream, pause
        self._tries = tries
        self._random = random.Random(seed)

    def run(self) -> None:
        try:
            with closing(self._open_log()) as log:
                while not self._state.stop.is_set():
                    self._append_until_stored(log, make_drafts(self._stream, self._random.randint(1, BATCH_MAX)))
        except Exception as error:  # noqa: BLE001  # any other error is a failure of the log
            self._state.failures.append(f"a writer failed: {type(error).__name__}: {error}")

    def _append_until_stored(self, log: FeedbackLog, drafts: list[Draft]) -> None:
        for _ in itertools.count() if self._tries is None else range(self._tries):
            if self._state.stop.is_set():
                return
            try:
                self._state.acknowledge(drafts, log.append(drafts))
            except OutcomeUnknownError:
                self._state.unknown += 1
            except LogError:
                self._state.unavailable += 1
            else:
                return
            time.sleep(self._pause * (0.5 + self._random.random()))


def make_drafts(stream: int, count: int) -> list[Draft]:
    """Return feedback events with ids of their own."""
    now = time.time_ns() // 1_000_000
    return [Draft(stream, Kind.FEEDBACK, uuid.uuid4().hex.encode(), PAYLOAD, now) for _ in range(count)]


def find_violations(log: FeedbackLog, stream: Stream, acknowledged: Acknowledged) -> list[str]:
    """Compare a stream with what was acknowledged; return a sentence for each difference.

    The chain is verified, and seqs are 1, 2, 3, …. Each acknowledged id is there once, at each seq under which it was
    acknowledged.
    """
    found, seq, stored = [], 0, dict[str, set[int]]()
    while events := log.read_events(stream.number, seq, PAGE_EVENTS):
        if [event.seq for event in events] != list(range(seq + 1, seq + 1 + len(events))):
            found.append(f"seqs after {seq} are not contiguous")
        seq = events[-1].seq
        for event in events:
            stored.setdefault(event.id.decode(), set()).add(event.seq)
    found += [f"{name} is stored twice" for name, seqs in stored.items() if len(seqs) > 1]
    for name, seqs in acknowledged.items():
        if name not in stored:
            found.append(f"{name} is lost")
        elif stored[name] != seqs:
            found.append(f"{name} has moved")
    checked = [0, *(end.seq for end in log.verify_chain(stream.number, Position(0, stream.genesis), PAGE_EVENTS))]
    if checked[-1] != seq:
        found.append("the chain ends before the last event")
    return found
