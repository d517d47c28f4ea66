"""The package: what its wheel has, what it imports, and that the code of its page runs."""

import ast
import contextlib
import inspect
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from softstep_client import AsyncSoftstep, Softstep, __version__

from tests.support.paths import ROOT, SHIPPED
from tests.support.running_service import serving

CLIENT = ROOT / "client"
MODULES = sorted((CLIENT / "softstep_client").glob("*.py"))
# The modules that may import httpx2; all others are the core, without input and output.
WITH_NETWORK = {"async_client.py", "sync_client.py", "transport.py", "base_client.py"}


def run_python(code: str, *, blocked: str = "") -> str:
    """Run code in a process of its own, without the packages that are blocked, and return what it prints."""
    block = f"import sys\nfor name in {blocked.split()!r}: sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(CLIENT)},
    )
    return done.stdout


def test_the_wheel_has_the_package_and_its_types(tmp_path: Path) -> None:
    """It builds offline, with the files that are in the repository, and names its one requirement."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=CLIENT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"softstep_client-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as files:
        names = {name for name in files.namelist() if not name.startswith("softstep_client-")}
        (metadata,) = (name for name in files.namelist() if name.endswith("METADATA"))
        lines = files.read(metadata).decode().splitlines()
    assert names == {f"softstep_client/{path.name}" for path in MODULES} | {"softstep_client/py.typed"}
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    required = [line for line in lines if line.startswith(("Requires-Dist", "Requires-Python"))]
    assert required == [
        "Requires-Python: >=3.10",
        "Requires-Dist: httpx2>=2.14; python_version < '3.11'",
        "Requires-Dist: httpx2>=2.16; python_version >= '3.11'",
    ]


def test_it_needs_neither_the_service_nor_the_libraries_of_frames() -> None:
    """It is imported, and makes clients and requests, where they are missing."""
    code = """
import asyncio, json
from softstep_client import *
from softstep_client.rows import table_of
with Softstep("http://host"): pass
print(table_of([{"a": 1}]).members())
"""
    assert run_python(code, blocked="numpy pandas polars service pydantic orjson") == "{'instances': [{'a': 1}]}\n"


def test_importing_it_imports_no_library_of_frames() -> None:
    """They are recognized by the names of their modules."""
    heavy = ["numpy", "pandas", "polars", "service", "pydantic", "asyncio"]
    code = f"import sys, softstep_client\nprint(set({heavy}) & set(sys.modules))"
    assert run_python(code) == "set()\n"


def imports_of(path: Path) -> set[str]:
    """Return the packages that a module imports when it runs."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = [node for node in ast.walk(tree) if id(node) not in guarded]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_core_has_no_input_and_output(path: Path) -> None:
    """Only the clients and their transport know httpx2, sockets and sleep; nothing else than httpx2 is required."""
    packages = {name.partition(".")[0] for name in imports_of(path)}
    assert packages <= sys.stdlib_module_names | {"httpx2", "softstep_client"}
    if path.name not in WITH_NETWORK:
        assert packages.isdisjoint({"httpx2", "asyncio", "socket", "ssl", "threading"})
        assert "sleep" not in path.read_text()


def test_both_clients_have_the_same_calls() -> None:
    """Their public methods have the same arguments."""

    def signatures(kind: type) -> dict[str, str]:
        names = (name for name in dir(kind) if not name.startswith("_"))
        return {name: re.sub(r" -> .*", "", str(inspect.signature(getattr(kind, name)))) for name in names}

    assert signatures(Softstep) == signatures(AsyncSoftstep)
    assert len(signatures(Softstep)) == 13


@pytest.mark.parametrize("page", ["docs/client.md", "client/README.md"])
def test_the_code_of_a_page_prints_what_it_shows(page: str, tmp_path: Path) -> None:
    """The Python of a page runs in order against a new service, and prints the text of the page, if it has any."""
    text = (ROOT / page).read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    shown = "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    names: dict[str, Any] = {}
    with serving(SHIPPED, tmp_path) as service, contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code.replace("http://localhost:8000", service.url), page, "exec"), names)  # noqa: S102
        names["softstep"].close()
    assert printed.getvalue() == shown if shown else printed.getvalue()
