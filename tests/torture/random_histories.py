"""Random histories, made by Hypothesis: feedback and admin calls, retries, crashes and restarts, in any order.

The machine of tests/support/history_machine.py drives the real log in SQLite, the real follower and the real
publisher. A list in plain Python holds what was accepted. After every step the log must hold that list, what is folded
must be the plain definition's state, and what is published must be what that state serves. A crash lets the disk fail
at one of an append's writes and drops every object; what the log holds of that append is found out by a retry.
"""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from service.errors import IdConflictError, LogError
from service.learn.publish import Publisher
from service.store.artifact.hashing import hash_tensors
from service.store.log.admin_payloads import dump_classes, dump_forget, parse_forget_ids
from service.store.log.audit import audit_log
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import delete_temporary_files, read_latest
from tests.support.disk_faults import Disk, Fault
from tests.support.history_machine import Following
from tests.torture.reference_state import out, state, weights_of
from tests.torture.results import Line

STEPS: Final = 5000
STEPS_OF_ONE: Final = 50
BYTES_MAX: Final = 1 << 20


class Histories(Following):
    """A stream on a disk, with what it must hold beside it."""

    steps = 0

    def make_log(self) -> FeedbackLog:
        """The log on a disk that can fail."""
        self.disk = Disk()
        self.drafts: list[Draft] = []
        self.seqs: dict[bytes, int] = {}
        self._steps = -1  # the invariant is looked at once before the first step
        return self.opened()

    def opened(self) -> SqliteLog:
        """As a process that starts now opens it."""
        return SqliteLog(Path(self.folder.name) / "log.sqlite", tail_events_max=5, vfs=self.disk.name)

    def start(self) -> None:
        """A learner's process takes the stream up."""
        super().start()
        delete_temporary_files(self.follower.folder.snapshots)
        delete_temporary_files(self.follower.folder.checkpoints)
        self.publisher = Publisher(self.follower, BYTES_MAX)

    def teardown(self) -> None:
        """Count, and leave nothing behind."""
        if hasattr(self, "log"):
            Histories.steps += max(0, self._steps)
            self.log.close()
        super().teardown()

    # What must be

    def append(self, kind: Kind, payload: bytes) -> bool:
        """Commit one event, and note it where it is accepted."""
        draft = Draft(self.stream.number, kind, b"%d" % (self.last + 1), payload, 0)
        (outcome,) = self.log.append([draft])
        if isinstance(outcome, EventLocation):
            assert (outcome.seq, outcome.duplicate) == (len(self.drafts) + 1, False)
            self.note(draft)
        return isinstance(outcome, EventLocation)

    def note(self, draft: Draft) -> None:
        """An event is in the log."""
        self.drafts.append(draft)
        self.seqs[draft.id] = len(self.drafts)
        if draft.kind == Kind.FEEDBACK:
            self.ids.append(draft.id)

    def events(self) -> list[Event]:
        """What the log must hold: forgotten events without their rows, forgets with seqs in place of ids."""
        events = []
        for seq, draft in enumerate(self.drafts, 1):
            payload = draft.payload
            if draft.kind == Kind.FORGET:
                payload = dump_forget([self.seqs[id_] for id_ in parse_forget_ids(payload)])
            events.append(Event(seq, draft.kind, draft.id, 0, payload, b""))
        gone = out([event for event in events if event.kind == Kind.FORGET])
        return [event._replace(payload=None) if event.seq in gone else event for event in events]

    @invariant()
    def the_log_holds_what_was_accepted(self) -> None:
        """Every event once, in the order of its acceptance."""
        if hasattr(self, "follower"):
            self._steps += 1
            events = self.log.read_events(self.stream.number, 0, 9999)
            assert [event._replace(hash=b"") for event in events] == self.events()

    @invariant()
    def the_state_is_that_of_the_lineage(self) -> None:
        """Whenever the follower is not on its way, and knows of all that is out."""
        if not hasattr(self, "follower") or self.follower.is_refolding:
            return
        events = self.events()
        if out(events) == self.follower.excluded:
            assert weights_of(self.follower.fold) == weights_of(state(self.artifact, events, self.follower.seq))

    @rule()
    def catch_up(self) -> None:
        """The learner folds all there is."""
        while events := self.follower.read_next(4):
            self.follower.fold_batch(events)
        assert self.follower.seq == len(self.drafts)
        expected = state(self.artifact, self.events(), len(self.drafts))
        assert weights_of(self.follower.fold) == weights_of(expected)

    # What else happens

    @precondition(lambda self: self.drafts)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """An event is sent again, and its id with other rows."""
        draft = data.draw(st.sampled_from(self.drafts))
        other = draft._replace(kind=Kind.CLASSES, payload=dump_classes(["other rows"]))
        again, conflict = self.log.append([draft, other])
        assert isinstance(again, EventLocation)
        assert (again.seq, again.duplicate) == (self.seqs[draft.id], True)
        assert isinstance(conflict, IdConflictError)

    @precondition(lambda self: not self.follower.is_refolding and self.follower.seq > 0)
    @rule()
    def publish(self) -> None:
        """What is folded is served, and what was forgotten is erased where that is due."""
        publisher, follower = self.publisher, self.follower
        publisher.publish_snapshot(0.0, time.process_time)
        newest = read_latest(follower.folder.snapshots, follower.seq)
        assert newest is not None
        assert newest[0] == follower.seq
        served = follower.fold.state.served_parameters()
        assert newest[1].fields["weights_sha256"] == hash_tensors(served.tensors())
        assert {name: array.tobytes() for name, array in newest[1].arrays.items()} == {
            name: array.tobytes() for name, array in served.arrays().items()
        }
        if publisher.needs_erasure:
            publisher.erase_forgotten()
            self.log.empty_wal()  # type: ignore[attr-defined]  # the log is SQLite's
            publisher.mark_erased()
        publisher.report_status(0.0)
        publisher.write_checkpoint_if_due(idle=True)

    @rule()
    def audit(self) -> None:
        """The chain, the ids and all that admin events led to are checked."""
        assert [seq for _, (seq, _) in audit_log(self.log, 9999)] == ([len(self.drafts)] if self.drafts else [])

    @rule()
    def restart(self) -> None:
        """Every process ends, and others take over."""
        self.log.close()
        self.log = self.opened()
        self.start()

    @rule(at=st.integers(0, 25), torn=st.booleans())
    def crash(self, at: int, *, torn: bool) -> None:
        """Every process dies while an event is written, and the learner while it writes a checkpoint."""
        folder = self.follower.folder.checkpoints
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{self.follower.seq}.left").write_bytes(b"SFSTSNAP")
        draft = Draft(self.stream.number, Kind.CLASSES, b"%d" % (self.last + 1), dump_classes([f"c{self.last}"]), 0)
        self.disk.fail(at, Fault.TORN if torn else Fault.IO, forever=True)
        outcome = None
        with suppress(LogError):
            (outcome,) = self.log.append([draft])
        self.disk.heal()
        self.log = self.opened()
        there = len(self.log.read_events(self.stream.number, 0, 9999)) > len(self.drafts)
        assert there or not isinstance(outcome, EventLocation)
        (again,) = self.log.append([draft])
        assert isinstance(again, EventLocation)
        assert (again.seq, again.duplicate) == (len(self.drafts) + 1, there)
        self.note(draft)
        self.start()


def histories(folder: Path, share: float = 1.0) -> Iterator[Line]:  # noqa: ARG001  # each history makes its own
    """The campaign."""
    wanted, violations, note, number = max(1, math.ceil(STEPS * share)), 0, "", 0
    Histories.steps = 0
    while Histories.steps < wanted and not violations:
        number += 1
        examples = max(1, math.ceil((wanted - Histories.steps) / STEPS_OF_ONE))
        try:
            run_state_machine_as_test(seed(number)(Histories), settings=_settings(examples))
        except Exception as wrong:  # noqa: BLE001  # whatever Hypothesis has found
            violations, note = 1, f"{type(wrong).__name__}: {wrong}".split("\n", maxsplit=1)[0]
    yield Line("steps of random histories", Histories.steps, STEPS, violations, note)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS_OF_ONE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
