"""The folders that hold versions: their names, and which one counts."""

import shutil
from pathlib import Path

import pytest

from service.store.artifact.artifact import write_artifact
from tests.support.artifact_files import MakeArtifact, PutArtifact, open_repository, summarize


def test_versions_are_found_by_name_and_number(root: Path, put: PutArtifact) -> None:
    """Every models/<name>/<version>/ is served, in the order of names and numbers."""
    for folder in ("iris/10", "iris/9", "a.b_c-d/1", "7/3"):
        put(folder)
    view = open_repository(root).scan()
    assert list(view.versions) == [("7", 3), ("a.b_c-d", 1), ("iris", 9), ("iris", 10)]
    assert view.reason is None
    assert all(version.state == "READY" for version in view.versions.values())


OTHER_VERSIONS = ["01", "v1", "0", "-1", "1.0", ".1", "٣", "9" * 19, "1\n", "1/1"]
OTHER_NAMES = ["Iris", ".iris", "_iris", "i ris", "x" * 65, "iris\n", "__pycache__"]


@pytest.mark.parametrize("folder", [f"iris/{v}" for v in OTHER_VERSIONS] + [f"{name}/1" for name in OTHER_NAMES])
def test_other_folders_are_ignored(root: Path, put: PutArtifact, folder: str) -> None:
    """Other spellings of names and versions are ignored."""
    put(folder)
    (root / "train.py").touch()
    assert summarize(open_repository(root).scan()) == {}


def test_files_in_the_place_of_folders_are_ignored(root: Path, put: PutArtifact) -> None:
    """A script beside the models, or a file named like a version, is no model."""
    put("iris/1")
    (root / "train.py").touch()
    (root / "1").touch()
    (root / "iris" / "2").touch()
    view = open_repository(root).scan()
    assert (list(view.versions), view.reason) == ([("iris", 1)], None)


def test_a_root_that_is_one_model_is_served(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    """A mounted folder may hold the two files themselves; its own name is the model's."""
    write_artifact(tmp_path / "fraud", make_artifact())
    assert summarize(open_repository(tmp_path / "fraud").scan()) == {("fraud", 1): ("READY", 0.5, None)}


def test_a_root_of_versions_is_served(root: Path, put: PutArtifact) -> None:
    """A mounted folder may hold the versions of one model."""
    put("3")
    put("12", bias=1.0)
    view = open_repository(root).scan()
    assert summarize(view) == {("models", 3): ("READY", 0.5, None), ("models", 12): ("READY", 1.0, None)}


def test_a_root_whose_name_cannot_be_served_is_called_model(
    tmp_path: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upper case and the like do not become model names; a relative root has the name it stands for."""
    write_artifact(tmp_path / "My Model", make_artifact())
    assert list(open_repository(tmp_path / "My Model").scan().versions) == [("model", 1)]
    write_artifact(tmp_path / "here", make_artifact())
    monkeypatch.chdir(tmp_path / "here")
    assert list(open_repository(Path()).scan().versions) == [("here", 1)]


def test_named_folders_come_before_nameless_ones(root: Path, put: PutArtifact, make_artifact: MakeArtifact) -> None:
    """Of several folders of one version, the most explicit one with a manifest is used."""
    write_artifact(root, make_artifact(bias=3.0))
    (root / "1").mkdir()
    repository = open_repository(root)
    assert summarize(repository.scan())["models", 1] == ("READY", 3.0, None)
    put("1", bias=2.0)
    assert summarize(repository.scan())["models", 1] == ("READY", 2.0, None)
    put("models/1", bias=1.0)
    assert summarize(repository.scan())["models", 1] == ("READY", 1.0, None)
    shutil.rmtree(root / "models")
    assert summarize(repository.scan())["models", 1] == ("READY", 2.0, None)


def test_folders_may_be_links(root: Path, put: PutArtifact, tmp_path: Path) -> None:
    """An operator may lay a model's folder elsewhere; only files must not lead out of their folder."""
    put("iris/1").parent.rename(tmp_path / "elsewhere")
    (root / "iris").symlink_to(tmp_path / "elsewhere")
    assert summarize(open_repository(root).scan()) == {("iris", 1): ("READY", 0.5, None)}


def test_a_missing_root_gives_an_empty_view(root: Path, put: PutArtifact) -> None:
    """A missing root is an empty view, and its models are found once it exists."""
    repository = open_repository(root / "later")
    view = repository.scan()
    assert (dict(view.versions), view.reason) == ({}, "the models directory does not exist")
    put("later/iris/1")
    view = repository.scan()
    assert (list(view.versions), view.reason) == ([("iris", 1)], None)
    assert (
        open_repository(root / "later" / "iris" / "1" / "model.json").scan().reason
        == "the models directory does not exist"
    )


def test_a_version_without_a_manifest_does_not_exist_yet(root: Path, put: PutArtifact) -> None:
    """A version without a manifest is not listed."""
    manifest = put("iris/1") / "model.json"
    content = manifest.read_bytes()
    manifest.unlink()
    repository = open_repository(root)
    assert summarize(repository.scan()) == {}
    manifest.symlink_to("..data/model.json")
    assert summarize(repository.scan()) == {}
    manifest.unlink()
    manifest.write_bytes(content)
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 0.5, None)}
