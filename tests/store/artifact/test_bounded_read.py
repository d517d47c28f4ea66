"""Files of a model folder that are refused before they are parsed."""

import json
import os
from pathlib import Path

import pytest

from service.store.artifact.artifact import read_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX
from tests.support.artifact_files import BYTES_MAX, refusal


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """A folder without one of the two files is refused."""
    (folder / name).unlink()
    assert refusal(folder) == f"{name} is missing"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """So is a folder that is not there."""
    assert refusal(tmp_path / "nowhere") == "model.json is missing"


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_file_that_is_not_regular_is_refused(folder: Path, name: str) -> None:
    """A directory or a named pipe in a file's place is refused, at once."""
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder) == f"{name} is not a regular file"
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert refusal(folder) == f"{name} is not a regular file"


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """Even where it leads to good content."""
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert refusal(folder) == f"{name} is a link that leads out of its folder"


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    """Kubernetes mounts files as links to a hidden folder beside them."""
    (folder / "..2024").mkdir()
    for name in ("model.json", "model.safetensors"):
        (folder / name).rename(folder / "..2024" / name)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to("..2024")
    assert read_artifact(folder, BYTES_MAX).n_features == 2


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    """A link to itself is refused in a sentence like everything else."""
    (folder / "model.json").unlink()
    (folder / "model.json").symlink_to("model.json")
    assert refusal(folder).startswith("model.json cannot be read: ")


def test_files_above_their_limits_are_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is compared before a byte is read."""
    size = (folder / "model.safetensors").stat().st_size
    assert read_artifact(folder, size).n_features == 2
    assert refusal(folder, size - 1) == f"model.safetensors has {size} bytes, more than the limit of {size - 1}"
    os.truncate(folder / "model.json", MANIFEST_BYTES_MAX + 1)
    monkeypatch.setattr(json, "loads", lambda *_arguments, **_options: pytest.fail("it was parsed"))
    assert "more than the limit of 16777216" in refusal(folder)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_size_while_it_is_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    """The measured size and the size that was read must be equal."""
    fstat = os.fstat

    def as_before(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[6] += change
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", as_before)
    assert refusal(folder) == "model.json changed while it was read"


def test_no_refusal_keeps_a_file_open(folder: Path) -> None:
    """The repository asks again and again; descriptors must not run out."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    os.close(descriptor)
    refusal(folder)
    assert os.open(folder, os.O_RDONLY) == descriptor
    os.close(descriptor)
