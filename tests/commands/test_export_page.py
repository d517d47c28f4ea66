"""docs/export.md shows what the commands print, and its Python runs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.data_directories import run_command
from tests.support.pages import sessions
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "export.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# The rounding of onnxruntime depends on the processor.
DIFFERENCE = re.compile(r"difference \S+")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory of the page: with models, and the scripts."""
    shutil.copytree(ROOT / "models" / "penguins", tmp_path / "models" / "penguins")
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(line: str) -> str:
    """Return what a command of the page prints."""
    program, *words = shlex.split(line)
    if program == "softstep":
        return run_command(*words).stdout
    assert program == "python"
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


def test_the_page_shows_what_its_commands_print(folder: Path) -> None:
    """All but the installation; then the Python of the page reads the file and the model."""
    shown = [(line, output) for line, output in sessions(PAGE) if not line.startswith("pip ")]
    printed = [(line, run_line(line)) for line, _ in shown]
    without = [
        [(line, DIFFERENCE.sub("difference", text).strip()) for line, text in pairs] for pairs in (printed, shown)
    ]
    assert without[0] == without[1]
    from_graph, from_files = CODE.findall(PAGE.read_text())
    compare = "import json; print(json.dumps({}))"
    graph = from_graph + compare.format("[label.tolist(), probabilities.shape]")
    files = from_files + compare.format("[labels, P.shape]")
    for code, path in ((graph, folder), (files, folder / "docs" / "examples")):
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == '[["Adelie"], [1, 3]]\n'
