"""The learner writes the first base of a version when it is loaded, before its stream begins."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.learn import first_bases as module
from service.learn.first_bases import FirstBases
from service.settings import Settings
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.directory.mapped_artifacts import MappedArtifacts, is_private
from service.store.states.bases import list_bases
from tests.support.data_directories import iris_artifact
from tests.support.field_artifacts import field_artifact
from tests.support.sparse_streams import sparse_artifact

KEY = "m", 1


class Rig:
    """A models directory, a data directory, and a clock."""

    def __init__(self, path: Path) -> None:
        self.models, self.data, self.now = path / "models", DataDirectory(path / "data"), 0.0
        self.settings = Settings(models=self.models, data=path / "data")
        self.first = FirstBases(self.settings, self.data)

    def load(self, artifact: Artifact, key: tuple[str, int] = KEY) -> None:
        """Put an artifact into the models directory."""
        write_artifact(self.models / key[0] / str(key[1]), artifact, overwrite=True)

    def look(self, seconds: float = 1.0) -> bool:
        """Let the learner look again after some time."""
        self.now += seconds
        return self.first.write_missing()

    def bases(self, key: tuple[str, int] = KEY) -> set[str]:
        """Return the bases of a version."""
        return list_bases(self.data.stream_folder(*key).bases)

    def is_shared(self, artifact: Artifact) -> bool:
        """Return whether a worker finds the first base of an artifact."""
        return not is_private(MappedArtifacts(self.data).share(KEY, artifact))


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Return a rig whose clock stands still but for `look`."""
    made = Rig(tmp_path)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


def test_a_version_gets_its_first_base_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the directory exists, at most once a second, and again once it is deleted."""
    assert not rig.look()
    rig.load(sparse_artifact())
    assert not rig.look(0.5)
    assert rig.look(0.5)
    assert rig.is_shared(sparse_artifact())
    with monkeypatch.context() as patched:
        patched.setattr(module, "read_artifact", None)  # it is not read again
        assert not rig.look()
    (name,) = rig.bases()
    (rig.data.stream_folder(*KEY).bases / name).unlink()
    assert rig.look()
    assert rig.bases() == {name}


def test_another_artifact_replaces_the_first_base(rig: Rig) -> None:
    """As long as the stream has not begun; from then on the learner of the stream is responsible."""
    for seed in (1, 2):
        rig.load(sparse_artifact(seed=seed))
        assert rig.look()
        assert len(rig.bases()) == 1
        assert rig.is_shared(sparse_artifact(seed=seed))
    bind_artifact(rig.data.stream_folder(*KEY), sparse_artifact(seed=2), 1 << 20)
    rig.load(sparse_artifact(seed=3))
    assert not rig.look()
    assert rig.is_shared(sparse_artifact(seed=2))


def test_others_need_none(rig: Rig) -> None:
    """Models of dense rows, and versions that cannot be read; they delay none that need one."""
    rig.load(iris_artifact(), ("iris", 1))
    rig.load(field_artifact(), ("dense", 1))
    rig.load(sparse_artifact(), ("broken", 1))
    (rig.models / "broken" / "1" / "model.safetensors").write_bytes(b"none")
    (rig.models / "odd" / "1").mkdir(parents=True)
    (rig.models / "odd" / "1" / "model.json").write_bytes(b"{")
    rig.load(sparse_artifact())
    assert rig.look()
    assert not rig.look()
    assert rig.is_shared(sparse_artifact())
    assert not any(rig.bases((name, 1)) for name in ("iris", "dense", "broken", "odd"))
    shutil.rmtree(rig.models)
    assert not rig.look()


def test_a_full_disk_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause; until then workers keep their copies."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    rig.load(sparse_artifact())
    with monkeypatch.context() as patched:
        patched.setattr("service.store.states.bases.write_whole_file", fail)
        assert not rig.look()
    assert not rig.look()
    assert not rig.is_shared(sparse_artifact())
    assert rig.look(30)
    assert rig.is_shared(sparse_artifact())
