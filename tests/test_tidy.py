"""The source keeps its shape: sizes, late imports, promises left behind, and addresses that do not belong."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = sorted((ROOT / "service").rglob("*.py"))
TRACKED = [
    ROOT / name
    for name in subprocess.run(  # git, with fixed arguments
        ["git", "-C", str(ROOT), "ls-files"],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()
]  # fmt: skip
TEXT_ENDINGS = {".py", ".md", ".toml", ".lock", ".yaml", ".txt", ".lua", ".json", ""}

LINES_MAX = 300
FUNCTION_LINES_MAX = 70
# Files that are longer than that today, each with a bound of its own.
LONGER = {"protocol.py": 340, "lanes.py": 400, "registry.py": 320}


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    """A module fits in a head: 300 lines, but for those named here."""
    assert len(path.read_text().splitlines()) <= LONGER.get(path.name, LINES_MAX)


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_short_and_import_nothing(path: Path) -> None:
    """A function has at most 70 lines, and what it imports stands at the top of its file."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno > FUNCTION_LINES_MAX]
    late = [f.name for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert (long, late) == ([], [])


def test_nothing_is_left_for_later() -> None:
    """No file holds a note to finish it."""
    note = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
    assert [path for path in SOURCE if note.search(path.read_text())] == []


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    """The repository installs from wherever its user's tools do, and knows nobody's folders."""
    forbidden = re.compile(
        "py" + r"pi\.org|python" + r"hosted|registry\.np" + r"mjs|/ro" + r"ot/|/wo" + r"rk/|/ho" + "me/"
    )
    texts = (path for path in TRACKED if path.suffix in TEXT_ENDINGS and path.is_file() and path.name != "LICENSE")
    assert [path for path in texts if forbidden.search(path.read_text())] == []


def test_the_packages_are_locked_with_hashes() -> None:
    """Every locked requirement has a hash."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        blocks = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
        assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
