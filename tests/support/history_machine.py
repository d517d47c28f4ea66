"""A state machine of random histories: events of all kinds, and a follower that is stopped and started."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.learn import fold_upgrade as upgrade_module
from service.learn import replay as replay_module
from service.learn import state as state_module
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import first_fold, take_over
from service.learn.follow import Follower
from service.learn.stream_history import History
from service.learn.timeline import timeline_corrections
from service.store.artifact import fingerprint as fingerprint_module
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, OLDEST_FOLD_VERSION, compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.correction_payload import correct_payload, encode_correction
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.lineage import lineage_change
from service.store.states.snapshots import read_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.memory_log import MemoryLog
from tests.support.model_artifacts import make_artifact
from tests.support.state_events import events_of_state

N = 3


def contents_hash(fold: EventFold) -> str:
    """Return a text that is equal for two folds with the same checkpoint contents."""
    fields, arrays = fold.checkpoint_contents()
    return hash_tensors(arrays.values()) + repr(fields)


def fold_by_definition(artifact: Artifact, log: FeedbackLog, stream: int, n: int) -> EventFold:
    """Make state(n) from its definition: fold the events of the lineage one by one, without the excluded ones.

    If the state starts from a base, only the events after it are folded.
    """
    lineage = read_lineage(log, stream)
    base = lineage.base_of_state(n)
    (opened,) = [each for each in log.list_streams() if each.number == stream]
    fold = first_fold(opened, artifact, log, lineage, base)
    for event in events_of_state(log, stream, n):
        if base is None or event.seq > base.target:
            fold.fold_events([event])
    return fold


def history_by_definition(artifact: Artifact, log: FeedbackLog, stream: int, n: int, origin: int) -> History:
    """Make the history up to n from its definition: one pass over all events, with a copy of each state on the way.

    The stream must have no base.
    """
    lineage = read_lineage(log, stream)
    (opened,) = [each for each in log.list_streams() if each.number == stream]
    fold, history = first_fold(opened, artifact, log, lineage, None), History(artifact, origin)
    states, removed = [fold.copy()], lineage.forgotten | lineage.skipped
    corrections = timeline_corrections(lineage, n)
    for event in log.read_events(stream, 0, n):
        if event.kind == Kind.ROLLBACK:
            fold = states[lineage_change(event).target].copy()
        elif event.seq not in removed:
            fold.history = history if event.seq > origin else None
            payload, correction = event.payload, corrections.get(event.seq)
            if correction is not None and payload is not None:
                payload = correct_payload(payload, log.read_events(stream, correction - 1, 1)[0].payload or b"")
            fold.fold_events([event._replace(payload=payload)])
        states.append(fold.copy())
    return history


def set_fold_version(version: int, oldest: int | None = None) -> None:
    """Become the release whose fold has that version; it computes no fold before `oldest`, by default no other one."""
    for module in (upgrade_module, fingerprint_module, replay_module, state_module):
        module.FOLD_VERSION = version  # type: ignore[attr-defined]
        module.OLDEST_FOLD_VERSION = version if oldest is None else oldest  # type: ignore[attr-defined]


def restore_fold_version() -> None:
    """Become this release again."""
    set_fold_version(FOLD_VERSION, OLDEST_FOLD_VERSION)


class FollowMachine(RuleBasedStateMachine):
    """A stream of random events, and a follower that is stopped and started at random."""

    @initialize(training=st.booleans(), hidden=st.sampled_from([(), (4,), (3, 5)]), calibrated=st.booleans())
    def begin(self, *, training: bool, hidden: tuple[int, ...], calibrated: bool) -> None:
        """Make a model with or without training statistics, hidden layers, and a calibration that learns."""
        more: dict[str, Any] = {"training": {"rows": 50, "mean": [0.0] * N, "scale": [1.0] * N}} if training else {}
        if calibrated:
            more["calibration"] = {"kind": "temperature", "learn": True, "temperature": 0.2}
        self.artifact = make_artifact("softmax", N, ["a", "b", "c"], hidden=hidden, **more)
        self.folder = tempfile.TemporaryDirectory()
        self.log = self.make_log()
        self.stream = self.log.open_stream("m", 1, compute_genesis(self.artifact), 3)
        self.random = np.random.default_rng(1)
        self.ids: list[bytes] = []
        self.start()

    def teardown(self) -> None:
        """Delete the folder."""
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def make_log(self) -> FeedbackLog:
        """Return a log; other machines return other ones."""
        return MemoryLog()

    def start(self) -> None:
        """Start a follower of the stream."""
        self.follower = Follower(self.stream, self.artifact, self.log, StreamFolder(Path(self.folder.name)))

    def append_event(self, kind: Kind, payload: bytes) -> bool:
        """Commit one event; return whether the log accepted it."""
        id_ = b"%d" % (self.log.stream_state(self.stream.number).seq + 1)
        (outcome,) = self.log.append([Draft(self.stream.number, kind, id_, payload, 0)])
        if isinstance(outcome, EventLocation) and kind == Kind.FEEDBACK:
            self.ids.append(id_)
        return isinstance(outcome, EventLocation)

    @property
    def last(self) -> int:
        """The last seq of the log."""
        return self.log.stream_state(self.stream.number).seq

    @rule(rows=st.integers(1, 3), soft=st.booleans(), events=st.integers(1, 5))
    def feedback(self, rows: int, events: int, *, soft: bool) -> None:
        """Append feedback."""
        classes = self.log.stream_state(self.stream.number).n_classes
        for _ in range(events):
            assert self.append_event(Kind.FEEDBACK, self.row_payload(rows, classes, soft=soft))

    def row_payload(self, rows: int, classes: int, *, soft: bool) -> bytes:
        """Return a payload of random rows with random labels."""
        X = self.random.standard_normal((rows, N)).astype(np.float32)
        kind, targets = self.random_targets(rows, classes, soft=soft)
        return encode_rows(X, targets, kind, classes)

    def random_targets(self, rows: int, classes: int, *, soft: bool) -> tuple[Targets, NDArray[Any]]:
        """Return random distributions, or random indices of classes."""
        if soft:
            return Targets.DISTRIBUTION, self.random.dirichlet(np.ones(classes), rows).astype(np.float32)
        return Targets.INDEX, self.random.integers(0, classes, rows)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Forget some events."""
        chosen = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3, unique=True))
        assert self.append_event(Kind.FORGET, dump_forget_ids(chosen))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        """Skip an event."""
        self.append_event(Kind.SKIP, dump({"seq": int(data.draw(st.sampled_from(self.ids)))}))

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        """Go back to an earlier state; a state of an earlier release is rejected."""
        seq = data.draw(st.integers(0, self.last))
        since = read_lineage(self.log, self.stream.number).newest_base_seq
        assert self.append_event(Kind.ROLLBACK, dump({"seq": seq})) is (seq == 0 or seq >= since)

    @rule()
    def classes(self) -> None:
        """Add a class, or add one again that was rolled back."""
        self.append_event(Kind.CLASSES, dump_classes([f"new{self.last}"]))

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), soft=st.booleans(), count=st.integers(1, 3))
    def correct(self, data: st.DataObject, count: int, *, soft: bool) -> None:
        """Correct some events, the same one several times too; the log refuses those that are not in the state."""
        lineage = read_lineage(self.log, self.stream.number)
        for seq in data.draw(st.lists(st.sampled_from([int(id_) for id_ in self.ids]), min_size=1, max_size=count)):
            payload = self.log.read_events(self.stream.number, seq - 1, 1)[0].payload
            is_learned = seq not in lineage.forgotten | lineage.skipped and lineage.contains(self.last, seq)
            layout = parse_layout(payload or self.row_payload(1, 3, soft=False))
            kind, targets = self.random_targets(layout.rows, layout.n_classes, soft=soft)
            assert self.append_event(Kind.CORRECT, encode_correction(seq, layout, kind, targets)) is is_learned

    @rule(rule_=st.sampled_from(["ftrl", "adagrad", "newton", "mixture"]), paused=st.booleans())
    def configure(self, rule_: str, *, paused: bool) -> None:
        """Change the rule, or pause; a network counts newton and mixture as unfit, and a mixture all other rules."""
        constants = {"features": 16} if rule_ == "mixture" else {}
        assert self.append_event(Kind.CONFIGURE, dump({"rule": rule_, "constants": constants, "paused": paused}))

    @rule(limit=st.integers(1, 7))
    def follow(self, limit: int) -> None:
        """Fold some events."""
        events = self.follower.read_next(limit)
        if events:
            self.follower.fold_batch(events)

    @precondition(lambda self: not self.follower.is_refolding and self.follower.seq > 0)
    @rule()
    def checkpoint(self) -> None:
        """Write a checkpoint."""
        self.follower.write_checkpoint()

    @rule()
    def restart(self) -> None:
        """Start another follower in place of this one."""
        self.start()

    @rule(data=st.data())
    def damage_a_checkpoint(self, data: st.DataObject) -> None:
        """Cut a checkpoint short."""
        folder = self.follower.folder.checkpoints
        if list_seqs(folder):
            path = folder / str(data.draw(st.sampled_from(list_seqs(folder))))
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[:-1])
            with pytest.raises(SnapshotError):
                read_snapshot(path)

    @invariant()
    def the_state_is_that_of_the_lineage(self) -> None:
        """Compare the state with its definition whenever the follower is not refolding."""
        if not hasattr(self, "follower") or self.follower.is_refolding:
            return
        # Events that a later event excludes are left out early only if the follower knows of that event already.
        known = {change.seq for change in self.follower.lineage.changes}
        if all(event.seq in known for event in self.log.read_admin_events(self.stream.number)):
            expected = fold_by_definition(self.artifact, self.log, self.stream.number, self.follower.seq)
            assert contents_hash(self.follower.fold) == contents_hash(expected)
            self.compare_history()

    def compare_history(self) -> None:
        """Compare the history with its definition, unless a release with another fold took the stream over."""
        follower, stream = self.follower, self.stream.number
        if not read_lineage(self.log, stream).bases:
            assert follower.history.origin == 0
            expected = history_by_definition(self.artifact, self.log, stream, follower.seq, 0)
            assert follower.history.sha256() == expected.sha256()

    @rule()
    def catch_up(self) -> None:
        """Fold all events."""
        while events := self.follower.read_next(4):
            self.follower.fold_batch(events)
        assert self.follower.seq == self.last
        expected = fold_by_definition(self.artifact, self.log, self.stream.number, self.last)
        assert contents_hash(self.follower.fold) == contents_hash(expected)
        self.compare_history()


class UpgradeMachine(FollowMachine):
    """The same with releases that each fold in another way."""

    def teardown(self) -> None:
        """Be this release again."""
        restore_fold_version()
        super().teardown()

    @rule()
    def upgrade(self) -> None:
        """Take the stream over with another fold; the served state does not change by that."""
        set_fold_version(fingerprint_module.FOLD_VERSION + 1)
        seq = take_over(self.stream, self.artifact, self.log, StreamFolder(Path(self.folder.name)).checkpoints, 0)
        assert seq is not None
        self.start()
