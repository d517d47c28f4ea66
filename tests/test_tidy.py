"""Rules for the source: sizes, imports, names, and text that must not appear."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = sorted((ROOT / "service").rglob("*.py"))
HARNESSES = [
    path for folder in ("loadtest", "models", "docs", "tests/torture") for path in (ROOT / folder).rglob("*.py")
]
SOURCE = SERVICE + sorted(HARNESSES)
TRACKED = [
    ROOT / name
    for name in subprocess.run(  # git, with fixed arguments
        ["git", "-C", str(ROOT), "ls-files"],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()
]  # fmt: skip
TEXT_ENDINGS = {".py", ".md", ".toml", ".lock", ".yaml", ".txt", ".lua", ".json", ""}

LINES_MAX = 300
FUNCTION_LINES_MAX = 60

TESTS = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests").rglob("conftest.py")]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    """Return a path as it is written below the repository's root."""
    return str(path.relative_to(ROOT))


def repeated(names: list[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def imported_modules(node: ast.AST) -> list[str]:
    """Return the names of the modules, or of their members, that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_modules_stay_short(path: Path) -> None:
    """A module has at most 300 lines."""
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_functions_stay_short_and_import_nothing(path: Path) -> None:
    """A function has at most 60 lines, and every import stands at the top of its file."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION_LINES_MAX]
    late = [f.name for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert (long, late) == ([], [])


def test_file_names_in_the_service_are_unique() -> None:
    """No two modules of service/ share a name; commands/ names its modules after the commands."""
    modules = [path for path in SERVICE if path.name != "__init__.py" and path.parent.name != "commands"]
    assert repeated([path.name for path in modules]) == []


def test_class_names_in_the_service_are_unique() -> None:
    """No two classes of service/ share a name."""
    trees = [ast.parse(path.read_text()) for path in SERVICE]
    assert repeated([node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]) == []


def test_no_test_module_imports_another() -> None:
    """Helpers that test modules share are in tests/support."""
    imports = [
        (relative(path), name)
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported_modules(node)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_")
    ]
    assert imports == []


def test_nothing_is_left_for_later() -> None:
    """No source file holds a note to finish it."""
    note = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
    assert [relative(path) for path in SOURCE if note.search(path.read_text())] == []


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    """No tracked file holds the address of a package registry or a path of a developer's machine."""
    forbidden = re.compile(
        "py" + r"pi\.org|python" + r"hosted|registry\.np" + r"mjs|/ro" + r"ot/|/wo" + r"rk/|/ho" + "me/"
    )
    texts = (path for path in TRACKED if path.suffix in TEXT_ENDINGS and path.is_file() and path.name != "LICENSE")
    assert [relative(path) for path in texts if forbidden.search(path.read_text())] == []


def test_the_packages_are_locked_with_hashes() -> None:
    """Every locked requirement has a hash."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        blocks = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
        assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
