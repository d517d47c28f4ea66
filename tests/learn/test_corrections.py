"""A corrected event counts with its new labels from the CORRECT on, to the bit, whatever else happens to the stream."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import LogDamagedError
from service.learn.event_fold import EventFold
from service.learn.follow import Follower
from service.learn.replay import ForgottenError, StreamReplay
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from tests.support.budgets import examples
from tests.support.history_machine import contents_hash, fold_by_definition
from tests.support.memory_log import MemoryLog
from tests.support.memory_streams import damage_event, feedback, memory_stream
from tests.support.model_artifacts import make_artifact

N = 3
ACTIONS = ["feedback"] * 6 + ["correct"] * 5 + ["rollback", "forget", "skip", "classes", "configure"]


@dataclass(frozen=True)
class Post:
    """A feedback event as it was posted, or as it is with other labels."""

    X: np.ndarray
    kind: Targets
    targets: np.ndarray
    classes: int
    weights: np.ndarray | None

    def payload(self) -> bytes:
        """Return its payload."""
        return encode_rows(self.X, self.targets, self.kind, self.classes, self.weights)


@dataclass
class PlainState:
    """A state as plain lists: the members of its lineage in order, and the labels of its feedback."""

    members: list[int] = field(default_factory=list)
    posts: dict[int, Post] = field(default_factory=dict)
    classes: int = 3


class PlainStream:
    """A stream as a list of states, one for each seq; the events that are left out are left out of all of them."""

    def __init__(self) -> None:
        self.states = [PlainState()]
        self.admin: dict[int, tuple[Kind, bytes]] = {}
        self.excluded: set[int] = set()
        self.forgets: list[tuple[int, int]] = []  # the seq of a FORGET, and that of its event

    @property
    def last(self) -> PlainState:
        """The last state."""
        return self.states[-1]

    def learned(self) -> list[int]:
        """Return the seqs of the feedback that the last state is made of."""
        return [seq for seq in self.last.posts if seq not in self.excluded]

    def append(self, state: PlainState) -> None:
        """Add the state of the next seq."""
        self.states.append(state)

    def extend(self, **changes: Any) -> None:
        """Add a state with one more member."""
        state = self.last
        members = [*state.members, len(self.states)]
        self.append(replace(state, members=members, **changes))

    def fold(self, artifact: Artifact, n: int) -> EventFold:
        """Fold state(n): every event by itself, as if it had been posted with the labels that it has there."""
        fold, state = EventFold(artifact), self.states[n]
        for seq in state.members:
            if seq not in self.excluded and (seq in state.posts or seq in self.admin):
                kind, payload = self.admin.get(seq) or (Kind.FEEDBACK, state.posts[seq].payload())
                fold.fold_events([Event(seq, kind, b"", 0, payload, b"")])
        return fold


class Stream:
    """A real log and a real follower beside the plain lists."""

    def __init__(self, artifact: Artifact, folder: Path, seed: int) -> None:
        self.artifact, self.folder, self.plain = artifact, StreamFolder(folder), PlainStream()
        self.multilabel = artifact.manifest.head == "multilabel"
        self.log, self.random = MemoryLog(), np.random.default_rng(seed)
        self.stream = self.log.open_stream("m", 1, compute_genesis(artifact), 3)
        self.restart()

    def restart(self) -> None:
        """Start another follower, as a learner that was killed."""
        self.follower = Follower(self.stream, self.artifact, self.log, self.folder)

    def commit(self, *events: tuple[Kind, bytes]) -> None:
        """Append events, which the log must accept; an event's id is its seq."""
        first = len(self.plain.states)
        drafts = [
            Draft(self.stream.number, kind, b"%d" % (first + at), one, 0) for at, (kind, one) in enumerate(events)
        ]
        assert all(isinstance(outcome, EventLocation) for outcome in self.log.append(drafts))

    def labels(self, rows: int, classes: int) -> tuple[Targets, np.ndarray]:
        """Return random labels."""
        if self.multilabel:
            return Targets.SET, self.random.integers(0, 2, (rows, classes)).astype(np.uint8)
        if self.random.random() < 0.5:
            return Targets.DISTRIBUTION, self.random.dirichlet(np.ones(classes), rows)
        return Targets.INDEX, self.random.integers(0, classes, rows)

    def act(self, action: str) -> None:
        """Append events of one kind to the log and to the plain lists."""
        getattr(self, action)()

    def feedback(self) -> None:
        """Append an event of up to three rows, with or without weights."""
        rows, classes = int(self.random.integers(1, 4)), self.plain.last.classes
        X = self.random.standard_normal((rows, N)).astype(np.float32)
        weights = self.random.uniform(0.5, 2, rows).astype(np.float32) if self.random.random() < 0.3 else None
        post = Post(X, *self.labels(rows, classes), classes, weights)
        self.commit((Kind.FEEDBACK, post.payload()))
        self.plain.extend(posts={**self.plain.last.posts, len(self.plain.states): post})

    def correct(self) -> None:
        """Correct up to three events in one append, one of them perhaps twice."""
        learned = self.plain.learned()
        chosen = self.random.choice(learned, int(self.random.integers(1, 4))).tolist() if learned else []
        posts = []
        for post in (self.plain.last.posts[seq] for seq in chosen):
            kind, targets = self.labels(len(post.X), post.classes)
            posts.append(replace(post, kind=kind, targets=targets))
        self.commit(
            *(
                (Kind.CORRECT, encode_correction(seq, parse_layout(post.payload()), post.kind, post.targets))
                for seq, post in zip(chosen, posts, strict=True)
            )
        )
        for seq, post in zip(chosen, posts, strict=True):
            self.plain.extend(posts={**self.plain.last.posts, seq: post})

    def rollback(self) -> None:
        """Go back to an earlier state."""
        seq = int(self.random.integers(0, len(self.plain.states)))
        self.commit((Kind.ROLLBACK, dump_seq(seq)))
        self.plain.append(self.plain.states[seq])

    def forget(self) -> None:
        """Forget an event, whether the state contains it or not."""
        self.exclude(Kind.FORGET)

    def skip(self) -> None:
        """Skip an event."""
        self.exclude(Kind.SKIP)

    def exclude(self, kind: Kind) -> None:
        """Leave an event out of all states."""
        posted = sorted({seq for state in self.plain.states for seq in state.posts})
        if posted:
            seq = int(self.random.choice(posted))
            self.commit((kind, dump_forget_ids([b"%d" % seq]) if kind == Kind.FORGET else dump_seq(seq)))
            self.plain.excluded.add(seq)
            if kind == Kind.FORGET:
                self.plain.forgets.append((len(self.plain.states), seq))
            self.plain.append(self.plain.last)

    def classes(self) -> None:
        """Add a class."""
        self.admin(Kind.CLASSES, dump_classes([f"new {len(self.plain.states)}"]), classes=self.plain.last.classes + 1)

    def configure(self) -> None:
        """Change the rule, or pause."""
        rule = str(self.random.choice(["ftrl", "adagrad"]))
        self.admin(Kind.CONFIGURE, dump({"rule": rule, "paused": bool(self.random.random() < 0.3)}))

    def admin(self, kind: Kind, payload: bytes, **changes: Any) -> None:
        """Append an event that changes the fold from there on."""
        self.commit((kind, payload))
        self.plain.admin[len(self.plain.states)] = kind, payload
        self.plain.extend(**changes)

    # The learner

    def follow(self) -> None:
        """Fold some events; now and then write a checkpoint, or start another follower."""
        events = self.follower.read_next(int(self.random.integers(1, 9)))
        if events:
            self.follower.fold_batch(events)
        chance = self.random.random()
        if chance < 0.3 and not self.follower.is_refolding and self.follower.seq:
            self.follower.write_checkpoint()
        elif chance > 0.9:
            self.restart()

    def check(self) -> None:
        """Fold everything, and compare the last state, and three states of the past, with the plain lists."""
        while events := self.follower.read_next(4):
            self.follower.fold_batch(events)
        last = len(self.plain.states) - 1
        assert self.follower.seq == last
        assert contents_hash(self.follower.fold) == contents_hash(self.plain.fold(self.artifact, last))
        replay_states = StreamReplay(self.stream, self.artifact, self.log)
        for n in (last, *self.random.integers(0, last + 1, 3).tolist()):
            if any(at > n and seq in self.plain.states[n].posts for at, seq in self.plain.forgets):
                with pytest.raises(ForgottenError):
                    list(replay_states.fold_to(n))
                continue
            list(replay_states.fold_to(n))
            assert contents_hash(replay_states.fold) == contents_hash(self.plain.fold(self.artifact, n))


@settings(max_examples=examples(220), deadline=None)
@given(
    actions=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=30),
    head=st.sampled_from(["softmax", "softmax", "multilabel"]),
    hidden=st.sampled_from([(), (), (4,)]),
    seed=st.integers(0, 2**32),
)
def test_a_corrected_event_counts_with_its_new_labels(
    actions: list[str], head: str, hidden: tuple[int, ...], seed: int
) -> None:
    """The learner's weights equal the fold of the posts with corrected labels, in any history."""
    with tempfile.TemporaryDirectory() as folder:
        stream = Stream(make_artifact(head, N, ["a", "b", "c"], hidden=hidden), Path(folder), seed)
        for action in actions:
            stream.act(action)
            stream.follow()
        stream.check()


def correct(stream: int, name: str, seq: int, label: int, payload: bytes) -> Draft:
    """Return a draft that gives an event of one row another label."""
    correction = encode_correction(seq, parse_layout(payload), Targets.INDEX, np.array([label]))
    return Draft(stream, Kind.CORRECT, name.encode(), correction, 0)


def test_one_refolding_applies_all_corrections_that_wait(tmp_path: Path) -> None:
    """The follower moves to the last CORRECT, and returns the losses of rows that it folds for the first time."""
    artifact, log, stream = memory_stream(20)
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(20))
    payloads = [event.payload or b"" for event in log.read_events(stream.number, 0, 20)]
    log.append([correct(stream.number, "x", 3, 1, payloads[2]), feedback(stream, 50), feedback(stream, 51, 2)])
    log.append([correct(stream.number, "y", 8, 2, payloads[7]), feedback(stream, 52)])
    assert follower.fold_batch(follower.read_next(1)) == []
    assert (follower.seq, follower.is_refolding, follower.read_after) == (24, True, 0)
    seqs: list[int] = []
    while follower.is_refolding:
        seqs += [seq for rows in follower.fold_batch(follower.read_next(7)) for seq in rows.seqs.tolist()]
    assert seqs == [22, 23, 23]
    (rows,) = follower.fold_batch(follower.read_next(7))
    assert rows.seqs.tolist() == [25]


def test_a_correction_of_an_event_that_is_not_in_the_state_changes_nothing(tmp_path: Path) -> None:
    """A CORRECT whose event was forgotten later starts no refolding."""
    artifact, log, stream = memory_stream(5)
    payload = log.read_events(stream.number, 2, 1)[0].payload or b""
    log.append([correct(stream.number, "x", 3, 1, payload)])
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"2"]), 0)])
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(5))
    assert (follower.seq, follower.is_refolding) == (5, False)
    follower.fold_batch(follower.read_next(5))
    assert (follower.seq, follower.is_refolding) == (6, False)


@pytest.mark.parametrize("by_rollback", [True, False])
def test_other_labels_are_a_way_around_labels_that_cannot_be_folded(tmp_path: Path, *, by_rollback: bool) -> None:
    """A rollback past the CORRECT, or a later CORRECT of the event, leads on; one of another event does not."""
    artifact, log, stream = memory_stream(5)
    payload = log.read_events(stream.number, 2, 1)[0].payload or b""
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(5))
    log.append([correct(stream.number, "x", 3, 1, payload)])
    follower.fold_batch(follower.read_next(1))
    log.append([correct(stream.number, "y", 4, 1, payload), feedback(stream, 9)])
    assert not follower.bypass(3)
    if by_rollback:
        log.append([Draft(stream.number, Kind.ROLLBACK, b"r", dump_seq(5), 0)])
    else:
        log.append([correct(stream.number, "z", 3, 2, payload)])
    assert follower.bypass(3)
    assert (follower.seq, follower.is_refolding, follower.cause_of(3)) == (9, True, 3 if by_rollback else 9)
    fold_all(follower)
    assert contents_hash(follower.fold) == contents_hash(fold_by_definition(artifact, log, stream.number, 9))


@pytest.mark.parametrize("follows", [True, False])
def test_a_damaged_correction_is_rejected(tmp_path: Path, *, follows: bool) -> None:
    """Neither a follower that refolds nor a replay folds the labels of a CORRECT that was altered."""
    artifact, log, stream = memory_stream(5)
    payload = log.read_events(stream.number, 2, 1)[0].payload or b""
    draft, other = (correct(stream.number, "x", 3, label, payload) for label in (1, 2))
    log.append([draft])
    machine = (
        Follower(stream, artifact, log, StreamFolder(tmp_path)) if follows else StreamReplay(stream, artifact, log)
    )
    damage_event(log, stream, 6, other.payload)
    with pytest.raises(LogDamagedError):
        fold_all(machine)


def fold_all(machine: Follower | StreamReplay) -> None:
    """Fold everything."""
    if isinstance(machine, StreamReplay):
        list(machine.fold_to(machine.last))
        return
    while events := machine.read_next(4):
        machine.fold_batch(events)
