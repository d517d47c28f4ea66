"""Replicas of two releases share a log: the first one with a new fold takes a stream over, for all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.errors import ArtifactError
from service.learn.fold_upgrade import LaterReleaseError, take_over
from service.learn.follow import Follower
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Draft, Kind, Outcome, Stream
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.history_machine import contents_hash, fold_by_definition, restore_fold_version, set_fold_version
from tests.support.memory_streams import N, feedback
from tests.support.model_artifacts import make_artifact
from tests.support.shared_log_rig import SharedLogRig
from tests.support.shared_memory_log import SharedMemoryLog

EVENTS = 12


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """Begin with the release whose fold has version 1."""
    set_fold_version(1)
    yield
    restore_fold_version()


@pytest.fixture
def shared() -> tuple[Artifact, SharedMemoryLog, Stream]:
    """A stream that the old release has begun."""
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    log = SharedMemoryLog()
    stream = log.open_stream("m", 1, compute_genesis(artifact, 1), 3)
    log.append([feedback(stream, number) for number in range(EVENTS)])
    return artifact, log, stream


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedLogRig:
    """A learner of the old release."""
    return SharedLogRig(tmp_path, monkeypatch)


def catch_up(follower: Follower) -> None:
    while events := follower.read_next(5):
        follower.fold_batch(events)


def kinds(log: SharedMemoryLog, stream: Stream) -> list[int]:
    return [event.kind for event in log.read_events(stream.number, EVENTS, 100)]


def test_the_first_new_replica_takes_over_for_all(
    shared: tuple[Artifact, SharedMemoryLog, Stream], tmp_path: Path
) -> None:
    """Others find its BASE. The old release keeps what it has learned, and nobody refuses feedback."""
    artifact, log, stream = shared
    old, first, second = (
        Follower(stream, artifact, log, StreamFolder(tmp_path / name)) for name in ("old", "first", "second")
    )
    for follower in (old, first, second):
        catch_up(follower)
        follower.write_checkpoint()
    learned = contents_hash(old.fold)
    set_fold_version(2)
    assert take_over(stream, artifact, log, first.folder.checkpoints, 0) == EVENTS
    assert take_over(stream, artifact, log, second.folder.checkpoints, 0) is None
    log.append([feedback(stream, number) for number in range(EVENTS, EVENTS + 5)])
    assert kinds(log, stream) == [Kind.BASE, *[Kind.FEEDBACK] * 5]
    upgraded = [Follower(stream, artifact, log, replica.folder) for replica in (first, second)]
    for follower in upgraded:
        catch_up(follower)
    assert contents_hash(upgraded[0].fold) == contents_hash(upgraded[1].fold)
    assert upgraded[1].seq == EVENTS + 6
    set_fold_version(1)
    with pytest.raises(ArtifactError, match="later release"):
        catch_up(old)
    assert contents_hash(old.fold) == learned


def test_replicas_that_take_over_at_one_moment_write_one_base(
    shared: tuple[Artifact, SharedMemoryLog, Stream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second append is the duplicate of the first, although neither has seen the other's."""
    artifact, log, stream = shared
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    catch_up(follower)
    follower.write_checkpoint()
    set_fold_version(2)
    append = log.append
    nested: list[Any] = []

    def append_after_another(drafts: Any) -> Any:
        monkeypatch.setattr(log, "append", append)
        nested.append(take_over(stream, artifact, log, follower.folder.checkpoints, 0))
        return append(drafts)

    monkeypatch.setattr(log, "append", append_after_another)
    assert take_over(stream, artifact, log, follower.folder.checkpoints, 0) == EVENTS
    assert nested == [EVENTS]
    assert kinds(log, stream) == [Kind.BASE]


def test_a_replica_that_takes_over_second_starts_from_the_base_of_the_first(
    rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both have seen none, and their states are at different events: the second starts again at once."""
    rig.append(rig.stream, 0, EVENTS)
    rig.learn(lambda: rig.is_published(EVENTS))
    # What the process does at its end.
    rig.process._learners.pop(rig.stream.number).write_last([])
    set_fold_version(2)
    append = rig.log.append

    def append_after_another(drafts: Sequence[Draft]) -> list[Outcome]:
        monkeypatch.setattr(rig.log, "append", append)
        assert take_over(rig.stream, make_artifact("softmax", N, ["a", "b", "c"]), rig.log, rig.path / "none", 0) == 0
        return append(drafts)

    monkeypatch.setattr(rig.log, "append", append_after_another)
    rig.learn(lambda: rig.is_published(EVENTS + 1))
    assert kinds(rig.log, rig.stream) == [Kind.BASE]
    assert "held" not in caplog.text


def test_an_older_follower_folds_what_it_reads_before_the_base(
    shared: tuple[Artifact, SharedMemoryLog, Stream], tmp_path: Path
) -> None:
    artifact, log, stream = shared
    old = Follower(stream, artifact, log, StreamFolder(tmp_path))
    expected = contents_hash(fold_by_definition(artifact, log, stream.number, EVENTS))
    set_fold_version(2)
    assert take_over(stream, artifact, log, tmp_path / "none", 0) == 0
    log.append([feedback(stream, EVENTS)])
    set_fold_version(1)
    old.fold_batch(old.read_next(100))
    with pytest.raises(LaterReleaseError):
        old.fold_batch(old.read_next(100))
    assert old.seq == EVENTS
    assert contents_hash(old.fold) == expected


def test_an_older_replica_publishes_what_came_before_the_base(rig: SharedLogRig) -> None:
    """It folds the events that it reads with the BASE, publishes them, and stays ready; a later start keeps that."""
    rig.append(rig.stream, 0, EVENTS)
    rig.learn(lambda: rig.is_published(EVENTS))
    rig.append(rig.stream, EVENTS, EVENTS + 9)
    take_over_elsewhere(rig)
    rig.append(rig.stream, EVENTS + 9, EVENTS + 12)
    check_held(rig)
    assert rig.is_published(EVENTS + 9)
    again = SharedLogRig(rig.path, rig.monkeypatch, rig.log)
    check_held(again)
    assert again.is_published(EVENTS + 9)


def test_an_older_replica_without_a_state_is_not_ready(rig: SharedLogRig) -> None:
    """It could serve the model as it was trained alone, while those of the later release serve what was learned."""
    rig.append(rig.stream, 0, EVENTS)
    take_over_elsewhere(rig)
    check_held(rig)
    assert not rig.memory.is_caught_up
    assert list_seqs(rig.folder.snapshots) == []
    set_fold_version(2)
    upgraded = SharedLogRig(rig.path, rig.monkeypatch, rig.log)
    upgraded.learn(lambda: upgraded.is_published(EVENTS + 1))


def check_held(rig: SharedLogRig) -> None:
    """Check that an older replica holds the stream because of the later release."""
    rig.learn(lambda: read_status(rig.folder.path).get("state") == "held")
    rig.look()
    assert "a later release has taken over" in read_status(rig.folder.path)["reason"]


def take_over_elsewhere(rig: SharedLogRig) -> None:
    """Let another replica, of the release with fold 2, take over the stream."""
    set_fold_version(2)
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    assert take_over(rig.stream, artifact, rig.log, rig.folder.path / "none", 0) is not None
    set_fold_version(1)
