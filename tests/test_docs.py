"""The documentation matches the code: console blocks, paths, calls, settings, figures and links."""

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from statistics import geometric_mean

import pytest

from service.settings import Settings
from service.store.artifact.learning_rules import SPARSE_RATE
from tests import determinism
from tests.conformance import PAGE, RESULTS, render_page
from tests.support.api_document import api_document
from tests.support.pages import sessions
from tests.support.paths import ROOT
from tests.support.running_service import serving
from tests.support.scripts import load_script

PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
LIVE_PAGES = ("README.md", "docs/clients.md", "docs/http.md", "docs/feedback.md", "docs/explain.md", "docs/history.md")
CALL_PAGES = (
    "docs/http.md",
    "docs/feedback.md",
    "docs/security.md",
    "docs/history.md",
    "docs/events.md",
    "docs/rows.md",
)
LINES_MAX = 250
FUNCTIONS = re.compile(r"\| `([\w/]+\.py)` \| ([^|]*) \|")


def relative(path: Path) -> str:
    """Return a path as it is written below the repository's root."""
    return str(path.relative_to(ROOT))


@cache
def tracked() -> list[str]:
    """Return the path of every tracked file."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)  # noqa: S607
    return listed.stdout.splitlines()


def files_named(name: str) -> list[Path]:
    """Return the tracked files whose path is this name or ends with it."""
    return [ROOT / path for path in tracked() if f"/{path}".endswith(f"/{name}")]


def definitions(path: Path) -> set[str]:
    """Return the functions and classes of a module, methods as `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def run_sessions(page: Path, models: Path, folder: Path) -> list[tuple[str, str]]:
    """Run the commands of a page in order against a new service; return each with what it prints."""
    printed = []
    with serving(models, folder, SOFTSTEP_DEFAULT_MODEL="iris") as service:
        for command, _ in sessions(page):
            line = command.replace("localhost:8000", service.url.removeprefix("http://"))
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=True)  # noqa: S607
            printed.append((command, done.stdout.strip()))
    return printed


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_console_blocks_show_what_a_service_answers(name: str, models: Path, tmp_path: Path) -> None:
    """The commands of a page, run in order against a new service, print what the page shows."""
    shown = [(command, output.strip()) for command, output in sessions(ROOT / name)]
    assert shown
    assert run_sessions(ROOT / name, models, tmp_path) == shown


def test_readme_shows_the_stored_figures() -> None:
    """The figures in README are those of results.json, as loadtest/report.py writes them."""
    figures, tables = load_script("loadtest/figures.py"), load_script("loadtest/tables.py")
    results = json.loads((ROOT / "docs/benchmarks/results.json").read_text())
    assert tables.readme_figures(results, figures.README_TITLES) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("folder", "title"),
    [
        ("client", "Figures of the client"),
        ("fields", "Figures of fields"),
        ("learning", "Figures of learning"),
        ("train", "Figures of training"),
    ],
)
def test_pages_of_results_show_the_stored_figures(folder: str, title: str) -> None:
    """The table in results.md of a folder in docs/benchmarks is that of its results.json."""
    tables, path = load_script("loadtest/tables.py"), ROOT / "docs" / "benchmarks" / folder
    results = json.loads((path / "results.json").read_text())
    assert tables.figures(results, title) in (path / "results.md").read_text()


def test_the_page_of_operation_shows_the_stored_figures() -> None:
    """docs/benchmarks/operations.md is what loadtest/operations.py writes of its stored figures."""
    folder = ROOT / "docs" / "benchmarks"
    parts = json.loads((folder / "operations.json").read_text())
    assert load_script("loadtest/operations.py").render(parts) == (folder / "operations.md").read_text()


def test_the_page_of_the_console_shows_the_stored_figures() -> None:
    """docs/benchmarks/console.md and README have what loadtest/console_page.py writes of its stored figures."""
    page = load_script("loadtest/console_page.py")
    results = json.loads(page.FILE.read_text())
    assert page.render(results) == page.PAGE.read_text()
    assert page.describe_briefly(results) in (ROOT / "README.md").read_text()


def test_the_rate_of_sparse_rows_is_the_best_of_the_stored_ones() -> None:
    """docs/rules.md has the table of the stored losses, and the default is the rate with the least of them."""
    script = load_script("loadtest/sparse_rates.py")
    results = json.loads(script.FILE.read_text())
    assert script.render(results) in script.PAGE.read_text()
    ratios = script.compare(results["losses"])
    assert min(ratios, key=ratios.__getitem__) == f"{SPARSE_RATE:g}"


def test_the_page_of_embeddings_shows_the_stored_figures() -> None:
    """docs/benchmarks/embeddings.md is what loadtest/embeddings.py writes of its stored figures."""
    folder = ROOT / "docs" / "benchmarks"
    results = json.loads((folder / "embeddings.json").read_text())
    assert load_script("loadtest/embeddings.py").render(results) == (folder / "embeddings.md").read_text()


def test_the_page_of_learning_shows_the_stored_comparison() -> None:
    """The tables in docs/learning.md are those of loadtest/rule_comparison.py; README has the losses of two rules."""
    results = json.loads((ROOT / "docs" / "benchmarks" / "rules.json").read_text())
    assert load_script("loadtest/rule_comparison.py").render(results) in (ROOT / "docs" / "learning.md").read_text()
    mixture, newton = (geometric_mean(results["losses"]["zero"][rule].values()) for rule in ("mixture", "newton"))
    claim = f"its log loss is {mixture:.3f}, and that of the best linear rule {newton:.3f}"
    assert claim in " ".join((ROOT / "README.md").read_text().split())


def test_the_page_of_other_learners_shows_the_stored_figures() -> None:
    """docs/benchmarks/rivals.md is what loadtest/rivals_page.py writes of its stored figures."""
    page = load_script("loadtest/rivals_page.py")
    assert page.render(page.read_entries()) == (ROOT / "docs" / "benchmarks" / "rivals.md").read_text()


def test_the_page_of_conformance_shows_the_stored_results() -> None:
    """docs/conformance.md is what tests/conformance.py writes of its stored results, and nothing has failed."""
    results = json.loads(RESULTS.read_text())
    assert render_page(results) == PAGE.read_text()
    assert [label for label, result in results.items() if result["failures"]] == []


def test_the_page_of_equal_bits_shows_the_stored_results() -> None:
    """docs/equal_bits.md is what tests/determinism.py writes of its stored results, and nothing differs."""
    results = json.loads(determinism.RESULTS.read_text())
    assert determinism.render_page(results) == determinism.PAGE.read_text()
    assert [target for target, result in results.items() if result["differ"] or result["wrong_registers"]] == []


@pytest.mark.parametrize("path", sorted(api_document()["paths"]))
def test_every_call_is_documented(path: str) -> None:
    """The pages on HTTP name the path of every call."""
    assert any(f"{path}`" in (ROOT / page).read_text() for page in CALL_PAGES)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    """The page on settings names every setting by its environment variable."""
    assert f"`SOFTSTEP_{name.upper()}`" in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file, and to a heading if it names one."""
    missing = []
    for target, _, heading in re.findall(r"\]\(([^)#: ]*)(#([^)]*))?\)", page.read_text()):
        path = page.parent / target if target else page
        if not path.exists() or (heading and heading not in headings(path)):
            missing.append(f"{target}#{heading}")
    assert missing == []


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_named_modules_exist(page: Path) -> None:
    """Every Python file that a page names exists."""
    names = set(re.findall(r"[\w/.]*\w\.py\b", page.read_text()))
    assert [name for name in sorted(names) if not files_named(name)] == []


def test_the_architecture_names_every_package() -> None:
    """The map in ARCHITECTURE.md has a row for every package of the service."""
    packages = {path.parent.relative_to(ROOT / "service") for path in (ROOT / "service").rglob("__init__.py")}
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert [str(package) for package in sorted(packages - {Path()}) if f"| `{package}/` |" not in text] == []


def test_the_architecture_names_existing_functions() -> None:
    """Each table row of ARCHITECTURE.md with a file and functions names functions or classes of that file."""
    rows = FUNCTIONS.findall((ROOT / "ARCHITECTURE.md").read_text())
    named = {(file, name) for file, names in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert named
    defined = {file: set().union(*map(definitions, files_named(file))) for file, _ in named}
    assert sorted((file, name) for file, name in named if name not in defined[file]) == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_pages_stay_short(page: Path) -> None:
    """A page has at most 250 lines."""
    assert len(page.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_named_tests_exist(page: Path) -> None:
    """Every test function that a page names exists."""
    names = set(re.findall(r"(?<!\.)\btest_\w+\b(?!\.py)", page.read_text()))
    assert names <= defined_tests()


@cache
def defined_tests() -> set[str]:
    """Return the name of every test function."""
    paths = (ROOT / name for name in tracked() if name.startswith("tests/") and name.endswith(".py"))
    return {name for path in paths for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}


def test_a_model_without_training_data_learns_as_its_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the page writes a model of zero weights, and a service answers its calls as the page shows."""
    page = ROOT / "docs" / "new_models.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})  # noqa: S102
    shown = [(command, output.strip()) for command, output in sessions(page)]
    assert run_sessions(page, tmp_path / "models", tmp_path) == shown
