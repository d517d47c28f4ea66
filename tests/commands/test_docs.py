"""docs/commands.md is true: its commands, run in order, say what stands there, and it names every command."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.data_directories import History, ran
from tests.support.pages import sessions
from tests.support.servers import ROOT, SHIPPED

PAGE = ROOT / "docs" / "commands.md"


def test_the_page_shows_what_commands_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a stream whose weights are the same on every processor."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    monkeypatch.chdir(tmp_path)
    history = History(Path("data"))
    history.teach(*range(60))
    history.forget(3)
    history.close()
    told = []
    for line, _ in sessions(PAGE):
        done = ran(*shlex.split(line)[1:])
        told.append((line, done.stdout + done.stderr))
    assert told == list(sessions(PAGE))


def test_the_page_names_every_command() -> None:
    """In its table."""
    modules = {path.stem for path in (ROOT / "service" / "commands").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"^\| `(\w+)", PAGE.read_text(), re.MULTILINE)) == modules
