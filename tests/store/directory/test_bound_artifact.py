"""A stream's artifact is the one that it began with."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.errors import ArtifactError
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory, StreamFolder
from tests.support.artifact_files import BYTES_MAX, MakeArtifact
from tests.support.artifacts import ones


def test_the_artifact_is_bound_once(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    """Another artifact under the same name later changes nothing but `differs`."""
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


def test_workers_that_bind_at_once_are_bound_to_the_same(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    """Also if the version in models/ changes meanwhile: the first copy stays."""
    for number in range(20):
        folder, barrier = data.stream_folder("iris", number), Barrier(4)

        def bind(bias: float, folder: StreamFolder = folder, barrier: Barrier = barrier) -> float:
            barrier.wait()
            return float(bind_artifact(folder, make_artifact(bias), BYTES_MAX).artifact.bias[0])

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(bind, (1.0, 2.0, 1.0, 2.0)))) == 1


def test_other_widths_are_another_artifact(data: DataDirectory) -> None:
    """Networks whose concatenated tensors have the same bytes but other widths are different artifacts."""
    folder = data.stream_folder("net", 1)
    assert not bind_artifact(folder, ones(1, 4), BYTES_MAX).differs
    assert bind_artifact(folder, ones(3, 2), BYTES_MAX).differs


def test_a_damaged_copy_is_reported(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    folder = data.stream_folder("iris", 1)
    bind_artifact(folder, make_artifact(), BYTES_MAX)
    (folder.artifact / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError):
        bind_artifact(folder, make_artifact(), BYTES_MAX)
