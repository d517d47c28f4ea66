"""The packages of `softstep train`: serving imports none of them, and one sentence says that one is missing."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

PACKAGES = ("pyarrow", "rich", "matplotlib")
SERVING = "import service.commands.serve, service.commands.check, service.serve.worker, softstep"


def run_python(code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * SECONDS, check=False
    )


def test_serving_imports_none_of_them() -> None:
    done = run_python(f"import sys; {SERVING}; print(sorted({set(PACKAGES)} & sys.modules.keys()))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_one_sentence(package: str) -> None:
    arguments = ["train", "rows.csv", "--label", "x", "--name", "m"]
    hidden = f"import sys; sys.modules[{package!r}] = None; from service.command_line import main"
    done = run_python(f"{hidden}; sys.exit(main({arguments}))")
    assert done.returncode == 1
    assert done.stderr == 'softstep: softstep train needs more packages: pip install "softstep[train]"\n'
