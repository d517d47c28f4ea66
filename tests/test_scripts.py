"""Scripts outside the package use names that the package has; most of them run too long to be run by tests."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.scripts import load_script

SCRIPTS = sorted(path for folder in ("loadtest", "docs", "models") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_names_that_exist(path: Path) -> None:
    """Each name that a script imports from the service is an attribute or a module of it."""
    imports = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "service"
        for name in node.names
    ]
    assert [f"{module}.{name}" for module, name in imports if not has_name(module, name)] == []


def has_name(module: str, name: str) -> bool:
    """Return whether a module has an attribute, or a package a module, of this name."""
    loaded = importlib.import_module(module)
    return hasattr(loaded, name) or (hasattr(loaded, "__path__") and find_spec(f"{module}.{name}") is not None)


def test_the_comparison_of_learners_takes_the_best_setting_of_each_set() -> None:
    """The page of other learners has those with all data sets, the best first, each with its best settings."""
    page = load_script("loadtest/rivals_page.py")

    def entry(title: str, *losses: dict[str, float]) -> dict[str, object]:
        passes = [
            {
                name: {"loss": loss, "rows": 10 * k, "seconds": 0.5, "elapsed": 0.8}
                for k, (name, loss) in enumerate(each.items(), 1)
            }
            for each in losses
        ]
        machine = {"date": "2026-01-02 03:04:05 +0000", "processor": "a processor"}
        return {
            "title": title,
            "shuffles": 2,
            "machine": machine,
            "sets": dict(zip(("one", "two"), passes, strict=False)),
        }

    text = page.render(
        {
            "softstep": entry("Ours", {"default": 0.4}, {"default": 0.1}),
            "far": entry("Far", {"a": 0.5, "b": 0.8}, {"a": 0.9, "b": 0.2}),
            "near": entry("Near", {"a": 0.1, "b": 0.3}, {"a": 0.1, "b": 0.3}),
            "part": entry("Part", {"a": 0.1}),
        }
    )
    lines = [line for line in text.splitlines() if line.startswith(("| Ours", "| Far", "| Near", "| Part"))]
    assert lines == [
        "| Near | 0.100 | 0.50 | **missed** | 0.100 | 20 | 0.100 | 0.100 |",
        "| Ours | 0.200 |  |  | 0.200 | 20 | 0.400 | 0.100 |",
        "| Far | 0.316 | 1.58 | met | 0.400 | 30 | 0.500 | 0.200 |",
        "| Ours | `default` | 1 | 2 | 2026-01-02, 62% |",
        "| Far | `a` (one); `b` (two); one for all sets: `b` | 2 | 2 | 2026-01-02, 62% |",
        "| Near | `a` (one, two); one for all sets: `a` | 2 | 2 | 2026-01-02, 62% |",
    ]


def test_a_learner_keeps_the_data_sets_of_an_earlier_part() -> None:
    """A part of a measurement leaves the other data sets of its learner, unless the title or shuffles differ."""
    page = load_script("loadtest/rivals_page.py")
    earlier = {"title": "Ours", "shuffles": 2, "machine": {}, "sets": {"one": {"a": 1}, "two": {"a": 2}}}
    later = {"title": "Ours", "shuffles": 2, "machine": {}, "sets": {"two": {"a": 3}}}
    assert page.merge(earlier, later)["sets"] == {"one": {"a": 1}, "two": {"a": 3}}
    assert page.merge(earlier, later | {"shuffles": 1})["sets"] == {"two": {"a": 3}}
    assert page.merge(None, later) == later
