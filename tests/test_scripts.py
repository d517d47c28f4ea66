"""Scripts outside the package use names that the package has; most of them run too long to be run by tests."""

import ast
import importlib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = sorted(path for folder in ("loadtest", "docs", "models") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_names_that_exist(path: Path) -> None:
    """Each name that a script imports from the service is an attribute or a module of it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "service":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
