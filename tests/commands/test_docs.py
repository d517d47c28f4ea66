"""docs/commands.md shows the real output of its commands, and names every command."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.data_directories import History, run_command
from tests.support.pages import sessions
from tests.support.paths import ROOT, SHIPPED

PAGE = ROOT / "docs" / "commands.md"


def test_the_page_shows_what_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page, run in order, print what it shows on every processor."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    monkeypatch.chdir(tmp_path)
    history = History(Path("data"))
    history.add_feedback(*range(60))
    history.forget(3)
    history.close()
    result = []
    for line, _ in sessions(PAGE):
        done = run_command(*shlex.split(line)[1:])
        result.append((line, done.stdout + done.stderr))
    assert result == list(sessions(PAGE))


def test_the_page_names_every_command() -> None:
    """The table lists exactly the modules of service/commands/."""
    modules = {path.stem for path in (ROOT / "service" / "commands").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"^\| `(\w+)", PAGE.read_text(), re.MULTILINE)) == modules
