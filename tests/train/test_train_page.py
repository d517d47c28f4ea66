"""docs/train.md shows what the command prints, and its file is that of the package palmerpenguins."""

import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.data_directories import run_command
from tests.support.pages import sessions
from tests.support.paths import ROOT

PENGUINS = ROOT / "docs" / "examples" / "penguins.csv"


def test_the_page_shows_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PENGUINS, tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = list(sessions(ROOT / "docs" / "train.md"))
    assert shown
    for line, output in shown:
        done = run_command(*shlex.split(line)[1:])
        assert done.returncode == 0
        assert done.stdout.strip() == output.strip()


def test_the_example_is_the_file_of_its_source() -> None:
    source = files("palmerpenguins").joinpath("data", "penguins.csv")
    assert PENGUINS.read_bytes() == source.read_bytes()
