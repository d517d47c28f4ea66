"""What standard error says of kernels that are compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import compilation_notice, compiler
from tests.support.paths import ROOT
from tests.support.processes import SECONDS

CHECK = ("-m", "service", "check", str(ROOT / "models" / "iris" / "1"))
# Two kernels that are compiled in a second, and that reading a model imports.
MISSING = "exp_log.log"


def run_python(cache: Path, *arguments: str) -> str:
    """Run Python with a cache of kernels, and return what it writes to standard error."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env={**os.environ, "SOFTSTEP_KERNELS": str(cache)},
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    return done.stderr


def link_kernels(cache: Path, missing: str) -> None:
    """Fill a folder with links to all compiled kernels but those of a name."""
    cache.mkdir()
    found = 0
    for path in compiler.CACHE.iterdir():
        if path.name.startswith(missing):
            found += 1
        else:
            (cache / path.name).symlink_to(path)
    assert found, "the kernels have other names"


@pytest.mark.parametrize("program", [CHECK, ("-c", "import softstep")], ids=["command", "module"])
def test_a_compilation_is_announced_once(program: tuple[str, ...], tmp_path: Path) -> None:
    """A command that has to compile kernels says so; the next one reads them, and says nothing."""
    run_python(compiler.CACHE, *CHECK)
    cache = tmp_path / "kernels"
    link_kernels(cache, MISSING)
    assert run_python(cache, *program) == (
        f"softstep: compiling kernels for {compiler.TARGET}, which takes up to three minutes; "
        "later starts read them from a cache\n"
    )
    assert run_python(cache, *program) == ""


def test_it_says_that_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a writable folder each start compiles, and the sentence names the setting of another one."""
    monkeypatch.setattr(compilation_notice, "CACHE", tmp_path / "missing" / "kernels")
    assert "later starts" in compilation_notice.describe_compilation()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compilation_notice.describe_compilation().endswith("name another in SOFTSTEP_KERNELS")
