"""The data directory: one instance uses it, and a stream's artifact is the one that it began with."""

import os
from pathlib import Path

import pytest

from service.errors import ArtifactError, LogUnavailableError
from service.store.data import DataDirectory
from service.store.marks import Marks
from tests.store.conftest import MakeArtifact

BYTES_MAX = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "new" / "data")


def test_one_instance_uses_it(data: DataDirectory) -> None:
    """A second one is refused, also from another process, until the first one lets go."""
    held = data.lock()
    with pytest.raises(LogUnavailableError):
        DataDirectory(data.path).lock()
    held.close()
    data.lock().close()


def test_a_forked_child_keeps_the_lock(data: DataDirectory) -> None:
    """A parent that dies does not free the directory while its children write to it."""
    reading, writing = os.pipe()
    with data.lock():
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    with pytest.raises(LogUnavailableError):
        data.lock()
    os.close(writing)
    os.waitpid(pid, 0)
    data.lock().close()
    os.close(reading)


def test_marks_of_all_workers_are_found(data: DataDirectory) -> None:
    for slot in (1, 0):
        Marks(data.marks(slot), ()).close()
    (data.path / "marks" / ".2").touch()
    assert data.all_marks() == [data.marks(0), data.marks(1)]


def test_the_artifact_is_bound_once(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    """Another one under the same name later changes nothing but what is told."""
    folder = data.stream("iris", 1)
    first = folder.bind(make_artifact(0.5), BYTES_MAX)
    assert (float(first.artifact.bias[0]), first.differs) == (0.5, False)
    again = folder.bind(make_artifact(0.5), BYTES_MAX)
    assert (float(again.artifact.bias[0]), again.differs) == (0.5, False)
    for changed in (make_artifact(0.75), make_artifact(0.5, classes=["x", "y", "z"])):
        bound = folder.bind(changed, BYTES_MAX)
        assert (float(bound.artifact.bias[0]), bound.artifact.manifest.classes[0]) == (0.5, "a")
        assert bound.differs
    assert folder.artifact == data.path / "streams" / "iris" / "1" / "artifact"


def test_a_damaged_copy_is_told(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    folder = data.stream("iris", 1)
    folder.bind(make_artifact(), BYTES_MAX)
    (folder.artifact / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError):
        folder.bind(make_artifact(), BYTES_MAX)


def test_a_purged_streams_folder_goes(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    for version in (1, 2):
        data.stream("iris", version).bind(make_artifact(), BYTES_MAX)
    data.set_aside("iris", 1)
    data.set_aside("iris", 7)
    assert not data.stream("iris", 1).path.exists()
    assert data.stream("iris", 2).artifact.exists()
    data.set_aside("iris", 2)
    streams = data.path / "streams"
    assert len(list(streams.iterdir())) == 2
    DataDirectory(data.path).finish_removals()
    assert list(streams.iterdir()) == []
