"""A machine of random histories: a stream of events of all kinds, and a follower that is stopped and started."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.errors import SnapshotError
from service.learn import fold_upgrade as base_module
from service.learn import replay as replay_module
from service.learn import state as step_module
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import first_fold, take_over
from service.learn.follow import Follower
from service.store.artifact import fingerprint as genesis_module
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.states.snapshots import read_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.memory_log import MemoryLog
from tests.support.servers import make_artifact

N = 3


def weights_of(fold: EventFold) -> str:
    """The hash of what a fold serves, with everything else that it keeps."""
    fields, arrays = fold.checkpoint_contents()
    return hash_tensors(arrays.values()) + repr(fields)


def scratch(artifact: Artifact, log: FeedbackLog, stream: int, n: int) -> EventFold:
    """state(n) from its definition: the events of the lineage, one by one, without those that are out for good.

    Where a base stands for the first of them, those behind it.
    """
    lineage = read_lineage(log, stream)
    base = lineage.base_of_state(n)
    (known,) = [known for known in log.list_streams() if known.number == stream]
    fold = first_fold(known, artifact, log, base)
    for seq in lineage.seqs(n):
        if base is None or seq > base.target:
            fold.fold_events(log.read_events(stream, seq - 1, 1))
    return fold


def set_fold(version: int) -> None:
    """Be the release whose fold has that version."""
    for module in (base_module, genesis_module, replay_module, step_module):
        module.FOLD_VERSION = version  # type: ignore[attr-defined]


class Following(RuleBasedStateMachine):
    """A stream of random events, and a follower that is stopped and started at random."""

    @initialize(training=st.booleans(), hidden=st.sampled_from([(), (4,), (3, 5)]), calibrated=st.booleans())
    def begin(self, *, training: bool, hidden: tuple[int, ...], calibrated: bool) -> None:
        """A model with or without statistics of its training, hidden layers, and a calibration that learns."""
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
        """Leave nothing behind."""
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def make_log(self) -> FeedbackLog:
        """A log; further machines bring others."""
        return MemoryLog()

    def start(self) -> None:
        """A new process takes the stream up."""
        self.follower = Follower(self.stream, self.artifact, self.log, StreamFolder(Path(self.folder.name)))

    def append(self, kind: Kind, payload: bytes) -> bool:
        """Commit one event; returns whether the log took it."""
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
        """Labelled rows come in."""
        classes = self.log.stream_state(self.stream.number).n_classes
        for _ in range(events):
            X = self.random.standard_normal((rows, N)).astype(np.float32)
            if soft:
                targets = self.random.dirichlet(np.ones(classes), rows)
                payload = encode_rows(X, targets.astype(np.float32), Targets.DISTRIBUTION, classes)
            else:
                payload = encode_rows(X, self.random.integers(0, classes, rows), Targets.INDEX, classes)
            assert self.append(Kind.FEEDBACK, payload)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Some events shall never have been."""
        chosen = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3, unique=True))
        assert self.append(Kind.FORGET, dump_forget_ids(chosen))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        """An event cannot be learnt."""
        self.append(Kind.SKIP, dump({"seq": int(data.draw(st.sampled_from(self.ids)))}))

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        """Back to a state of before, unless an earlier release made it."""
        seq = data.draw(st.integers(0, self.last))
        since = read_lineage(self.log, self.stream.number).newest_base_seq
        assert self.append(Kind.ROLLBACK, dump({"seq": seq})) is (seq == 0 or seq >= since)

    @rule()
    def classes(self) -> None:
        """A class is added, or one that was rolled back is added anew."""
        self.append(Kind.CLASSES, dump_classes([f"new{self.last}"]))

    @rule(rule_=st.sampled_from(["ftrl", "adagrad", "newton"]), paused=st.booleans())
    def configure(self, rule_: str, *, paused: bool) -> None:
        """Another rule, or a pause; a network cannot learn by newton, and counts that."""
        assert self.append(Kind.CONFIGURE, dump({"rule": rule_, "paused": paused}))

    @rule(limit=st.integers(1, 7))
    def follow(self, limit: int) -> None:
        """The learner has time for some events."""
        events = self.follower.read_next(limit)
        if events:
            self.follower.fold_batch(events)

    @precondition(lambda self: not self.follower.is_refolding and self.follower.seq > 0)
    @rule()
    def checkpoint(self) -> None:
        """The state is kept."""
        self.follower.write_checkpoint()

    @rule()
    def restart(self) -> None:
        """The learner's process ends, and another one takes over."""
        self.start()

    @rule(data=st.data())
    def lose_a_checkpoint(self, data: st.DataObject) -> None:
        """One is damaged or gone."""
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
        """Whenever the follower is not on its way, its state is the fold of what its lineage says."""
        if not hasattr(self, "follower") or self.follower.is_refolding:
            return
        # What later events put out is out at once where the follower knows of it, and is seen to when their turn comes.
        known = {turn.seq for turn in self.follower.lineage.changes}
        if all(event.seq in known for event in self.log.read_admin_events(self.stream.number)):
            expected = scratch(self.artifact, self.log, self.stream.number, self.follower.seq)
            assert weights_of(self.follower.fold) == weights_of(expected)

    @rule()
    def catch_up(self) -> None:
        """The learner folds all there is."""
        while events := self.follower.read_next(4):
            self.follower.fold_batch(events)
        assert self.follower.seq == self.last
        expected = scratch(self.artifact, self.log, self.stream.number, self.last)
        assert weights_of(self.follower.fold) == weights_of(expected)


class Upgrading(Following):
    """The same under releases that each fold in another way."""

    def teardown(self) -> None:
        """Be this release again."""
        set_fold(FOLD_VERSION)
        super().teardown()

    @rule()
    def upgrade(self) -> None:
        """A release with another fold takes over; what is served does not change by that."""
        set_fold(genesis_module.FOLD_VERSION + 1)
        seq = take_over(self.stream, self.artifact, self.log, StreamFolder(Path(self.folder.name)).checkpoints, 0)
        assert seq is not None
        self.start()
