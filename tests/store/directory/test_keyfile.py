"""The key file is created once, completely, for its owner alone; invalid key files are refused."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import KeyFileError
from service.store.directory.keyfile import create_key_file, parse_keys, read_or_create_keys
from tests.support.paths import ROOT

ONE, TWO = "0f" * 32, "AB" * 32


def test_a_key_is_made_and_stays(tmp_path: Path) -> None:
    """A key is created readable by its owner alone, and no other file is left."""
    path = tmp_path / "token.key"
    (key,) = read_or_create_keys(path)
    assert len(key) == 32
    assert read_or_create_keys(path) == [key]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert read_or_create_keys(tmp_path / "other.key") != [key]


def test_the_key_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before it gets its name, and the name before the key is used."""
    done: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(kind_of(fd)), fsync(fd)))
    monkeypatch.setattr(os, "link", lambda a, b: (done.append("link"), link(a, b)))
    read_or_create_keys(tmp_path / "token.key")
    assert done == ["file", "link", "folder"]


def kind_of(descriptor: int) -> str:
    """Return whether a descriptor is of a file or a folder."""
    return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"


def test_processes_that_race_get_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from service.store.directory.keyfile import read_or_create_keys\n"
        "sys.stdin.read(1); print(read_or_create_keys(Path(sys.argv[1]))[0].hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "token.key")]
    processes = [subprocess.Popen(command, stdin=-1, stdout=-1, cwd=ROOT, text=True) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    keys = [process.communicate()[0].strip() for process in processes]
    assert {len(key) for key in keys} == {64}
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["token.key"]


def test_the_later_process_reads_the_existing_key(tmp_path: Path) -> None:
    """A key file that appears during the creation stays."""
    path = tmp_path / "token.key"
    key = read_or_create_keys(path)
    create_key_file(path)
    assert read_or_create_keys(path) == key
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [ONE, f"{ONE}\n", f" {ONE} "])
def test_one_key_is_read(text: str) -> None:
    assert parse_keys(text) == [bytes([15] * 32)]


@pytest.mark.parametrize("text", [f"{ONE},{TWO}", f"{ONE}\n{TWO}\n", f"{ONE}, {TWO}"])
def test_several_keys_keep_their_order(text: str, tmp_path: Path) -> None:
    (tmp_path / "token.key").write_text(text)
    assert parse_keys(text) == read_or_create_keys(tmp_path / "token.key") == [bytes([15] * 32), bytes([0xAB] * 32)]


@pytest.mark.parametrize(
    "text", ["", " ", ",", "secret", ONE[1:], ONE + "0", "g" * 64, "é" * 64, f"{ONE},secret", "٣" * 64]
)
def test_an_invalid_key_is_refused(text: str, tmp_path: Path) -> None:
    """Invalid keys are refused without repeating them, and the file is not replaced."""
    path = tmp_path / "token.key"
    path.write_text(text)
    for read in (lambda: parse_keys(text), lambda: read_or_create_keys(path)):
        with pytest.raises(KeyFileError) as caught:
            read()
        assert "secret" not in str(caught.value)
    assert path.read_text() == text


def test_a_folder_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"token\.key cannot be read or created: No such file"):
        read_or_create_keys(tmp_path / "missing" / "token.key")
