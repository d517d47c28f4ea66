"""The data directory: one instance uses it, and a stream's artifact is the one that it began with."""

import os
import threading
import time
from pathlib import Path

import pytest

from service.errors import ArtifactError, LogUnavailableError
from service.store.directory import data_directory as directory
from service.store.directory.ack_marks import AckMarks
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.snapshot_watcher import SnapshotWatcher
from service.store.states.snapshots import write_snapshot
from tests.store.conftest import MakeArtifact
from tests.support.artifacts import ones

BYTES_MAX = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "new" / "data")


def test_one_instance_uses_it(data: DataDirectory) -> None:
    """A second one is refused, also from another process, until the first one lets go."""
    held = acquire_lock(data)
    with pytest.raises(LogUnavailableError):
        acquire_lock(DataDirectory(data.path))
    held.close()
    acquire_lock(data).close()


def test_an_instance_that_ends_is_waited_for(data: DataDirectory) -> None:
    """As one whose workers outlive it by a moment."""
    held = acquire_lock(data)
    closing = threading.Timer(0.2, held.close)
    closing.start()
    acquire_lock(DataDirectory(data.path), seconds=20).close()
    closing.join()


def test_a_forked_child_keeps_the_lock(data: DataDirectory) -> None:
    """A parent that dies does not free the directory while its children write to it."""
    reading, writing = os.pipe()
    with acquire_lock(data):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with pytest.raises(LogUnavailableError):
        acquire_lock(data)
    os.close(writing)
    os.waitpid(pid, 0)
    acquire_lock(data).close()
    os.close(reading)


def test_marks_of_all_workers_are_found(data: DataDirectory) -> None:
    for slot in (1, 0):
        AckMarks(data.mark_file(slot), ()).close()
    (data.path / "marks" / ".2").touch()
    assert data.mark_files() == [data.mark_file(0), data.mark_file(1)]


def test_the_artifact_is_bound_once(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    """Another one under the same name later changes nothing but what is told."""
    folder = data.stream_folder("iris", 1)
    first = bind_artifact(folder, make_artifact(0.5), BYTES_MAX)
    assert (float(first.artifact.bias[0]), first.differs) == (0.5, False)
    again = bind_artifact(folder, make_artifact(0.5), BYTES_MAX)
    assert (float(again.artifact.bias[0]), again.differs) == (0.5, False)
    for changed in (make_artifact(0.75), make_artifact(0.5, classes=["x", "y", "z"])):
        bound = bind_artifact(folder, changed, BYTES_MAX)
        assert (float(bound.artifact.bias[0]), bound.artifact.manifest.classes[0]) == (0.5, "a")
        assert bound.differs
    assert folder.artifact == data.path / "streams" / "iris" / "1" / "artifact"


def test_other_widths_are_another_artifact(data: DataDirectory) -> None:
    """Also where the tensors of two networks are the same bytes in a row."""
    folder = data.stream_folder("net", 1)
    assert not bind_artifact(folder, ones(1, 4), BYTES_MAX).differs
    assert bind_artifact(folder, ones(3, 2), BYTES_MAX).differs


def test_a_damaged_copy_is_told(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    folder = data.stream_folder("iris", 1)
    bind_artifact(folder, make_artifact(), BYTES_MAX)
    (folder.artifact / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError):
        bind_artifact(folder, make_artifact(), BYTES_MAX)


def test_a_purged_streams_folder_goes(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    for version in (1, 2):
        bind_artifact(data.stream_folder("iris", version), make_artifact(), BYTES_MAX)
    data.hide_stream("iris", 1)
    data.hide_stream("iris", 7)
    assert not data.stream_folder("iris", 1).path.exists()
    assert data.stream_folder("iris", 2).artifact.exists()
    data.hide_stream("iris", 2)
    streams = data.path / "streams"
    assert len(list(streams.iterdir())) == 2
    DataDirectory(data.path).delete_hidden_streams()
    assert list(streams.iterdir()) == []


def publish(data: DataDirectory, model: str, version: int, seq: int) -> None:
    write_snapshot(data.stream_folder(model, version).snapshots, seq, {}, {}, durable=False)


def test_news_are_told_of_every_stream_at_any_rate(data: DataDirectory) -> None:
    """Snapshots that come within one tick of the file system's clock too, of streams old and new."""
    news = SnapshotWatcher(data)
    assert news.changed_snapshots() == {}
    tick = time.time_ns() + 10**10  # one that is not over before the test is
    for seq in range(1, 20):
        publish(data, "iris", 1, seq)
        for folder in (data.stream_folder("iris", 1).snapshots, data.path / "streams", data.path / "streams" / "iris"):
            os.utime(folder, ns=(tick, tick))
        assert news.changed_snapshots()["iris", 1] == seq
        if seq == 10:
            publish(data, "iris", 2, 5)
            publish(data, "digits", 1, 7)
            assert news.changed_snapshots() == {("iris", 1): 10, ("iris", 2): 5, ("digits", 1): 7}


def test_a_folder_that_has_settled_is_not_listed_again(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes, or is asked for."""
    listed = []
    seqs = directory.list_seqs
    monkeypatch.setattr(directory, "list_seqs", lambda folder: listed.append(folder.parent.name) or seqs(folder))
    for version in (1, 2):
        publish(data, "iris", version, 3)
        os.utime(data.stream_folder("iris", version).snapshots, (1, version))
    news = SnapshotWatcher(data)
    assert news.changed_snapshots() == {("iris", 1): 3, ("iris", 2): 3}
    assert news.changed_snapshots() == {}
    assert sorted(listed) == ["1", "2"]
    publish(data, "iris", 2, 4)
    assert news.changed_snapshots() == {("iris", 2): 4}
    news.recheck("iris", 1)
    assert news.changed_snapshots()["iris", 1] == 3
    assert listed.count("1") == 2


def test_what_is_being_purged_is_no_news(data: DataDirectory) -> None:
    publish(data, "iris", 1, 3)
    data.hide_stream("iris", 1)
    assert SnapshotWatcher(data).changed_snapshots() == {}
