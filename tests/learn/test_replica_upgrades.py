"""Replicas of two releases share a log: the first one with a new fold takes a stream over, for all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import ArtifactError
from service.learn.fold_upgrade import take_over
from service.learn.follow import Follower
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Kind, Stream
from tests.support.history_machine import contents_hash, restore_fold_version, set_fold_version
from tests.support.memory_streams import N, feedback
from tests.support.model_artifacts import make_artifact
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
