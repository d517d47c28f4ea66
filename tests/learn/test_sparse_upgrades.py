"""A release with another fold takes over a stream of sparse rows: it begins from what was learned, to the bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ArtifactError
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import take_over
from service.learn.follow import Follower
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_weights
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, parse
from service.store.log.events import Draft, Event, Kind
from service.store.states.snapshots import read_snapshot
from tests.support.history_machine import contents_hash, fold_by_definition, restore_fold_version, set_fold_version
from tests.support.learner_states import has_same_bits
from tests.support.memory_log import MemoryLog
from tests.support.sparse_streams import N, few_columns, sparse_artifact, sparse_payload

CALIBRATED = {"calibration": {"kind": "temperature", "learn": True, "temperature": 0.5}}
SHADOW = dump({"shadow": True})


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """Become this release again after the test."""
    yield
    restore_fold_version()


class Rig:
    """A stream of sparse rows, and followers of releases with other folds."""

    def __init__(self, path: Path, artifact: Artifact) -> None:
        self.artifact, self.log, self.folder = artifact, MemoryLog(), StreamFolder(path)
        self.stream = self.log.open_stream("m", 1, compute_genesis(artifact), len(artifact.manifest.classes))
        self.rng = np.random.default_rng(0)

    @property
    def last(self) -> int:
        """The last seq."""
        return self.log.stream_state(self.stream.number).seq

    def add(self, kind: Kind, payload: bytes) -> None:
        """Append an event whose id is its seq."""
        self.log.append([Draft(self.stream.number, kind, b"%d" % (self.last + 1), payload, 0)])

    def teach(self, events: int, classes: int = 3) -> None:
        """Append feedback."""
        for _ in range(events):
            self.add(Kind.FEEDBACK, sparse_payload(self.rng, classes=classes))

    def follow(self, *, checkpoint: bool = True) -> EventFold:
        """Fold everything as a learner that starts, write a checkpoint, and return the fold."""
        follower = Follower(self.stream, self.artifact, self.log, self.folder)
        while events := follower.read_next(7):
            follower.fold_batch(events)
        if checkpoint:
            follower.write_checkpoint()
        return follower.fold

    def upgrade(self, version: int) -> int | None:
        """Become a later release, and take the stream over."""
        set_fold_version(version)
        return take_over(self.stream, self.artifact, self.log, self.folder.checkpoints, 0)

    def base(self) -> Event:
        """Return the last BASE event."""
        return [event for event in self.log.read_admin_events(self.stream.number) if event.kind == Kind.BASE][-1]


def served_hash(state: LearnerState) -> str:
    """Return the hash of the served weights and calibration."""
    return hash_weights(state.served_parameters())


@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_takeover_begins_from_what_was_learned(tmp_path: Path, *, support: bool, calibrated: bool) -> None:
    """Served, candidate, pause and rule are those of the checkpoint; later events and a later release go on from it."""
    rig = Rig(tmp_path, sparse_artifact(support=support, **(CALIBRATED if calibrated else {})))
    rig.teach(6)
    rig.add(Kind.CLASSES, dump_classes(["d"]))
    rig.teach(4, classes=4)
    rig.add(Kind.CONFIGURE, SHADOW)
    rig.teach(3, classes=4)
    rig.add(Kind.CLASSES, dump_classes(["e", "f"]))
    rig.teach(2, classes=6)
    rig.add(Kind.CONFIGURE, dump({"paused": True, "rule": "ftrl", "constants": {"rate": 0.25}}))
    old = rig.follow().state
    for version in (3, 4):
        assert rig.upgrade(version) == rig.last - 1  # the BASE follows
        new = rig.follow(checkpoint=False).state
        assert served_hash(new) == served_hash(old)
        assert hash_weights(new.candidate_parameters()) == hash_weights(old.candidate_parameters())
        assert served_hash(new) != hash_weights(new.candidate_parameters())
        assert (new.paused, new.shadow, new.n_classes) == (True, True, 6)
        assert new.rule_settings == old.rule_settings
        rig.add(Kind.CONFIGURE, dump({"paused": False}))
        rig.teach(3, classes=6)
        fold = rig.follow()
        expected = fold_by_definition(rig.artifact, rig.log, rig.stream.number, rig.last)
        assert contents_hash(fold) == contents_hash(expected) == contents_hash(rig.follow())
        rig.add(Kind.CONFIGURE, dump({"paused": True}))
        old = rig.follow().state
    rig.add(Kind.CONFIGURE, dump({"shadow": False}))
    final = rig.follow().state
    assert served_hash(final) == hash_weights(final.candidate_parameters()) == hash_weights(old.candidate_parameters())


def test_an_event_in_the_state_of_a_base_is_forgotten(tmp_path: Path) -> None:
    """All others are folded again from the artifact."""
    rig = Rig(tmp_path, sparse_artifact())
    rig.teach(5)
    rig.follow()
    assert rig.upgrade(3) == 5
    rig.teach(2)
    rig.add(Kind.FORGET, dump_forget_ids([b"2"]))
    assert rig.base().payload is None
    fold = EventFold(rig.artifact)
    events = rig.log.read_events(rig.stream.number, 0, rig.last)
    fold.fold_events(event for event in events if event.kind == Kind.FEEDBACK and event.seq != 2)
    assert served_hash(rig.follow().state) == served_hash(fold.state)


def test_a_base_holds_the_columns_that_rows_had(tmp_path: Path) -> None:
    """Not the others, also in shadow mode; so it stays small for a model of any width."""
    rig = Rig(tmp_path, sparse_artifact())
    rig.teach(1)
    rig.add(Kind.CONFIGURE, SHADOW)
    rig.teach(1)
    touched = rig.follow().state.tensors()["columns"]
    rig.upgrade(3)
    state: Any = parse(rig.base().payload or b"")["state"]
    assert state["tensors"].keys() == {"columns", "weights"}
    assert state["tensors"]["weights"][1] == [len(touched) + 1, 3]
    assert state["frozen"]["arrays"].keys() == {"columns", "weights"}
    assert 0 < state["frozen"]["arrays"]["columns"][1][0] <= len(touched) < N


def test_a_checkpoint_in_shadow_mode_holds_columns(tmp_path: Path) -> None:
    """It restores the served parameters, whatever was learned and added since; so does a copy."""
    rig = Rig(tmp_path, sparse_artifact(**CALIBRATED))
    rig.teach(2)
    rig.add(Kind.CONFIGURE, SHADOW)
    rig.teach(2)
    rig.add(Kind.CLASSES, dump_classes(["d"]))
    rig.teach(4, classes=4)
    state = rig.follow().state
    arrays = read_snapshot(rig.folder.checkpoints / str(rig.last)).arrays
    assert {name for name in arrays if name.startswith("frozen.")} == {
        "frozen.columns", "frozen.weights", "frozen.calibration",
    }  # fmt: skip
    assert len(arrays["frozen.columns"]) < len(arrays["columns"]) < N
    restored = LearnerState.from_tensors(rig.artifact, state.tensors(), state.scalars())
    for one in (restored, restored.copy()):
        assert has_same_bits(one, state)
        assert served_hash(one) == served_hash(state)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("columns", lambda columns: columns[::-1]),
        ("columns", lambda columns: columns + N),
        ("columns", lambda columns: columns.astype(np.int64)),
        ("weights", lambda weights: weights[1:]),
        ("weights", lambda weights: weights[:, 1:]),
    ],
)
def test_columns_that_contradict_each_other_are_refused(name: str, change: Any) -> None:
    """In place of the parameters of shadow mode."""
    state, rng = LearnerState(sparse_artifact()), np.random.default_rng(1)
    state.fold_rows(few_columns(rng, 9), rng.integers(0, 3, 9))
    state.configure({"shadow": True})
    tensors = state.tensors()
    assert len(tensors["frozen.columns"]) > 1
    tensors[f"frozen.{name}"] = np.ascontiguousarray(change(tensors[f"frozen.{name}"]))
    with pytest.raises(ArtifactError):
        LearnerState.from_tensors(state.artifact, tensors, state.scalars())


@pytest.mark.parametrize("field", ["manifest", "tensors", "paused", "frozen", "added_classes"])
def test_an_incomplete_base_is_refused(tmp_path: Path, field: str) -> None:
    """The error is an ArtifactError."""
    rig = Rig(tmp_path, sparse_artifact())
    rig.teach(2)
    rig.follow()
    rig.upgrade(3)
    fields: Any = parse(rig.base().payload or b"")
    del fields["state"][field]
    set_fold_version(4)
    rig.log.append([Draft(rig.stream.number, Kind.BASE, b"\xffbase 1 4", dump(fields), 0)])
    with pytest.raises(ArtifactError, match="cannot start from the state of the base"):
        Follower(rig.stream, rig.artifact, rig.log, rig.folder)
