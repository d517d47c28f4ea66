"""Folders that hold a model but are not served."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.artifact import unserved_folders as module
from service.store.artifact.unserved_folders import WRONG_PLACE, find_unserved
from tests.support.artifact_files import PutArtifact, on_disk, open_repository


def touch(path: Path) -> None:
    """Make an empty file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("file", "folder", "part"),
    [
        ("Fraud/1/model.json", "Fraud/1", "the folder is not <name>/<version>"),
        ("fraud/01/model.json", "fraud/01", "the folder is not <name>/<version>"),
        ("fraud/v1/model.json", "fraud/v1", "the folder is not <name>/<version>"),
        ("fraud/model.json", "fraud", "the folder is not <name>/<version>"),
        ("team/fraud/1/model.json", "team/fraud/1", "the folder is not <name>/<version>"),
        ("fraud/model.safetensors", "fraud", "the folder is not <name>/<version>"),
        ("fraud/1/model.onnx", "fraud/1", "an ONNX model"),
        ("fraud/model.PKL", "fraud", "a pickle"),
        ("fraud.joblib", ".", "a pickle of joblib"),
        ("fraud/1/MLmodel", "fraud/1", "an MLflow model"),
        ("fraud/config.pbtxt", "fraud", "a Triton model"),
    ],
)
def test_a_model_that_is_not_served_is_reported(
    root: Path, put: PutArtifact, file: str, folder: str, part: str
) -> None:
    """Each is reported once with its reason, and the versions beside it are served."""
    put("iris/1")
    touch(root / file)
    view = open_repository(root).scan()
    assert [found.path for found in view.unserved] == [folder]
    assert part in view.unserved[0].reason
    assert view.versions["iris", 1].state == "READY"


@pytest.mark.parametrize(
    "file", ["fraud/1/model.safetensors", "fraud/1/notes.txt", ".hidden/model.json", "a/b/c/d/model.json"]
)
def test_other_files_are_not_reported(root: Path, file: str) -> None:
    """A version that is being written, hidden folders, deep folders and files of no model are passed over."""
    touch(root / file)
    assert open_repository(root).scan().unserved == ()


def test_a_version_is_not_reported(root: Path, put: PutArtifact) -> None:
    """A version that is served or refused is listed by itself, whatever else is in its folder."""
    touch(put("iris/1") / "model.onnx")
    (put("iris/2") / "model.safetensors").unlink()
    assert open_repository(root).scan().unserved == ()


def test_the_search_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root with many folders costs a bounded time, and the report is short."""
    monkeypatch.setattr(module, "LISTED_MAX", 20)
    monkeypatch.setattr(module, "REPORTED_MAX", 5)
    for number in range(100):
        touch(root / f"Model{number}" / "model.json")
    assert len(find_unserved(root, ())) == 5
    monkeypatch.setattr(module, "ENTRIES_MAX", 3)
    assert len(find_unserved(root, ())) == 3


def test_a_loop_of_links_ends(root: Path) -> None:
    """A link to a folder above is followed no deeper than the search goes."""
    touch(root / "A" / "model.json")
    (root / "A" / "loop").symlink_to(root)
    paths = [found.path for found in find_unserved(root, ())]
    assert paths == ["A", "A/loop/A"]


def test_a_folder_that_cannot_be_read_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing folder does not hide the others."""
    touch(root / "A" / "model.json")
    touch(root / "B" / "model.json")
    scandir = os.scandir

    def fail(path: Path) -> object:
        if path == root / "A":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    assert find_unserved(root, ()) == (("B", WRONG_PLACE),)


@on_disk
@given(name=st.binary(min_size=1, max_size=80).filter(lambda name: not {0, 47} & set(name) and name[:1] != b"."))
def test_any_name_becomes_printable_text(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    """Names of any bytes are reported as text that logs and responses can hold."""
    root = tmp_path_factory.mktemp("names")
    touch(root / "x" / os.fsdecode(name) / "model.onnx")
    for found in find_unserved(root, ()):
        assert found.path.isprintable()
        found.path.encode()
