"""Scripts outside the package use names that the package has; most of them run too long to be run by tests."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

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
