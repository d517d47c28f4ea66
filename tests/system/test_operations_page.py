"""docs/operations.md: its drill works, and its exit codes are those of the commands."""

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from service.command_line import INTERRUPTED
from tests.support.data_directories import run_command
from tests.support.learning_client import IRIS, metadata, post
from tests.support.pages import sessions
from tests.support.paths import ROOT, SHIPPED
from tests.support.running_service import serving

PAGE = ROOT / "docs" / "operations.md"
COMMANDS = ROOT / "service" / "commands"
ROW = re.compile(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)


def run_line(line: str) -> str:
    """Run a line of a shell and return what it prints; a `softstep` at its start runs in this process."""
    text = ""
    if line.startswith("softstep "):
        command, _, line = line.partition(" | ")
        done = run_command(*shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
        text = done.stdout
    shell = ["sh", "-c", line or "cat"]
    return subprocess.run(shell, input=text, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def test_the_drill_restores_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page print what it shows, and a service on the copy answers as the first one does."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    monkeypatch.chdir(tmp_path)
    shown = [(command, output.strip()) for command, output in sessions(PAGE)]
    with serving(tmp_path / "models", tmp_path) as service:
        address = service.url.removeprefix("http://")
        printed = [(command, run_line(command.replace("localhost:8000", address))) for command, _ in shown]
        weights = metadata(service, "iris")["weights_sha256"]
        answer = post(service, "iris:predict", {"instances": [IRIS]}).content
    assert printed == shown
    with serving(tmp_path / "models", tmp_path / "drill") as restored:
        again = post(restored, "iris:predict", {"instances": [IRIS], "min_seq": 1})
        assert metadata(restored, "iris")["weights_sha256"] == weights
        assert again.content == answer


def returned_codes(command: str) -> set[int]:
    """Return the exit codes that are constants in the source of a command."""
    functions = [
        node
        for node in ast.parse((COMMANDS / f"{command}.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "int"
    ]
    values = [part.value for function in functions for part in ast.walk(function) if isinstance(part, ast.Return)]
    branches = [[value.body, value.orelse] if isinstance(value, ast.IfExp) else [value] for value in values]
    return {value.value for values in branches for value in values if isinstance(value, ast.Constant)}


def test_the_page_has_every_exit_code() -> None:
    """The table has a line for each command, with a meaning for each exit code that its source returns."""
    rows = {name: cells for name, *cells in ROW.findall(PAGE.read_text())}
    assert rows.keys() == {path.stem for path in COMMANDS.glob("[a-z]*.py")}
    for command, cells in rows.items():
        meanings = {code for code, cell in enumerate(cells) if cell.strip()}
        # A command may also raise: an error of the service has code 1, and settings that it refuses have code 2. The
        # docstring names the second one, which another module may raise.
        refuses = "\n        InvalidSettingsError: " in (COMMANDS / f"{command}.py").read_text()
        codes = returned_codes(command) | ({2} if refuses else set())
        assert codes <= meanings <= codes | {1}, command
    assert f"with {INTERRUPTED} if SIGINT" in PAGE.read_text()
