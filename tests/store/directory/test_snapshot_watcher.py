"""The watcher finds every new snapshot, and lists no settled folder again."""

import os
import time

import pytest

from service.store.directory import snapshot_watcher
from service.store.directory.data_directory import DataDirectory
from service.store.directory.snapshot_watcher import SnapshotWatcher
from service.store.states.snapshots import write_snapshot


def publish(data: DataDirectory, model: str, version: int, seq: int) -> None:
    write_snapshot(data.stream_folder(model, version).snapshots, seq, {}, {}, durable=False)


def test_news_of_every_stream_are_reported_at_any_rate(data: DataDirectory) -> None:
    """Snapshots within one tick of the file system's clock are found, of old and new streams."""
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
    """A settled folder is listed again only if it changes or is rechecked."""
    listed = []
    seqs = snapshot_watcher.list_seqs
    monkeypatch.setattr(snapshot_watcher, "list_seqs", lambda folder: listed.append(folder.parent.name) or seqs(folder))
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


def test_a_stream_being_purged_is_not_reported(data: DataDirectory) -> None:
    publish(data, "iris", 1, 3)
    data.hide_stream("iris", 1)
    assert SnapshotWatcher(data).changed_snapshots() == {}
