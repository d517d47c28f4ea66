"""The folders that versions are written in: which of them the next writer removes."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.store.artifact.artifact import read_artifact, write_artifact
from service.store.artifact.temporary_folders import temporary_folder
from tests.support.paths import ROOT, SHIPPED
from tests.support.processes import SECONDS

LIMIT = 1 << 20
RANDOM = "0123456789abcdef"
# Write a version, and stop before its second file until a line arrives.
WRITER = """
import sys
from pathlib import Path
from service.store.artifact import artifact, artifact_folder

write = artifact_folder.write_synced_file

def write_slowly(path, content):
    if path.name == artifact.MANIFEST_NAME:
        print(path.parent.name, flush=True)
        sys.stdin.readline()
    write(path, content)

artifact_folder.write_synced_file = write_slowly
artifact.write_artifact(Path(sys.argv[1]), artifact.read_artifact(Path(sys.argv[2]), 1 << 20))
"""


def start_writer(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start writing a version in a process, and return it with its temporary folder, which has the first file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, target, SHIPPED / "iris" / "1"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    folder = target.with_name(process.stdout.readline().strip())
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    return process, folder


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """The folder of a writer that runs stays, and that one finishes its version."""
    artifact = read_artifact(SHIPPED / "iris" / "1", LIMIT)
    killed, abandoned = start_writer(tmp_path / "iris" / "1")
    running, used = start_writer(tmp_path / "iris" / "2")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=SECONDS)
    assert abandoned.exists()
    write_artifact(tmp_path / "iris" / "3", artifact)
    assert {path.name for path in (tmp_path / "iris").iterdir()} == {"3", used.name}
    running.communicate("\n", timeout=SECONDS)
    assert running.returncode == 0
    assert {path.name for path in (tmp_path / "iris").iterdir()} == {"2", "3"}
    assert read_artifact(tmp_path / "iris" / "2", LIMIT).weights_sha256 == artifact.weights_sha256


@pytest.mark.parametrize("target", ["7", "artifact"])
def test_nothing_else_is_removed(tmp_path: Path, target: str) -> None:
    """Files, links and folders of another name stay; those of this name and of versions go, with their content."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    parent = tmp_path / "parent"
    kept = {f".other.{RANDOM}", f".7.{RANDOM}0", f"7.{RANDOM}", f"..7.{RANDOM}", ".7", f".7{RANDOM}"}
    for name in (*kept, f".{target}.{RANDOM}", f".12.{RANDOM}"):
        (parent / name).mkdir(parents=True)
        (parent / name / "model.safetensors").touch()
    (parent / f".8.{RANDOM}").touch()
    (parent / f".9.{RANDOM}").symlink_to(elsewhere)
    with temporary_folder(parent / target) as folder:
        left = {path.name for path in parent.iterdir()}
        assert left == {*kept, f".8.{RANDOM}", f".9.{RANDOM}", folder.name}
    assert not folder.exists()
    assert (elsewhere / "kept").exists()


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer comes between the creation and the lock, once before the folder is opened and once after it."""
    made: list[str] = []
    lock, open_folder = fcntl.flock, os.open

    def remove(path: Path) -> None:
        made.append(path.name)
        path.rmdir()

    def open_late(path: Path, flags: int) -> int:
        if not made:
            remove(path)
        return open_folder(path, flags)

    def lock_late(descriptor: int, operation: int) -> None:
        if len(made) == 1:
            remove(next(tmp_path.iterdir()))
        lock(descriptor, operation)

    monkeypatch.setattr(os, "open", open_late)
    monkeypatch.setattr(fcntl, "flock", lock_late)
    with temporary_folder(tmp_path / "1") as folder:
        assert folder.is_dir()
        assert folder.name not in made
    assert len(made) == 2


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses locks on folders takes versions, and folders of killed writers stay there."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / f".1.{RANDOM}").mkdir()
    with temporary_folder(tmp_path / "1") as folder:
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [f".1.{RANDOM}"]
