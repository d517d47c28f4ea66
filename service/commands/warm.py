"""`softstep warm`: compile the kernels ahead of the first start."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from numba.core.errors import TypingError

from service import compiler
from service.settings import Settings

# The folder of this package, so that the child interpreters import this one.
ROOT: Final = Path(__file__).parents[2]
# Modules of `softstep serve` that import all kernels.
MODULES: Final = ("service.learn.learner_process", "service.serve.worker")
# More processes would only wait: the slowest kernel takes a fifth of the time of all.
PROCESSES_MAX: Final = 4
REPORT: Final = f"from service.compiler import cache_misses; import {', '.join(MODULES)}; print(cache_misses())"
SHARE: Final = "import sys; from service.commands.warm import compile_share; compile_share(sys.argv[1])"


def run(_settings: Settings, arguments: argparse.Namespace) -> int:
    """Compile for each baseline, in a process for each processor; return 0 if all kernels were compiled."""
    for target in arguments.targets or [compiler.TARGET]:
        with tempfile.TemporaryDirectory(prefix="softstep-warm-") as claims:
            shares = [_start(target, SHARE, claims) for _ in range(min(os.cpu_count() or 1, PROCESSES_MAX))]
            done = [_finish(share) for share in shares]
        # Compiles those that call a kernel of another process, and sees that nothing is missing.
        done.append(_finish(_start(target, REPORT)))
        if None in done:
            return 1
        count = sum(filter(None, done))
        print(f"{target}: {count} kernels compiled, the others were in {compiler.CACHE.name}/")
    return 0


def _start(target: str, *program: str) -> "subprocess.Popen[str]":
    """Start a program in an interpreter that compiles for a target."""
    environment = {**os.environ, "NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
    return subprocess.Popen(  # noqa: S603  # this interpreter, with a fixed program
        [sys.executable, "-c", *program], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True
    )


def _finish(process: "subprocess.Popen[str]") -> int | None:
    """Return the number of kernels that a process has compiled; print its error and return None if it failed."""
    output, error = process.communicate()
    if process.returncode:
        print(error, file=sys.stderr)
        return None
    return int(output)


def compile_share(claims: str) -> None:
    """Import the kernels, but compile only those that no other process has claimed; print how many were compiled.

    Args:
        claims: A folder in which the first process to reach a module with kernels makes a file.
    """
    compile_kernel, claimed = compiler.kernel, set()

    def compile_claimed(*signatures: object, unlocked: bool = True) -> Callable[[Callable[..., Any]], Any]:
        def compile_entry(function: Callable[..., Any]) -> Any:  # noqa: ANN401  # a Numba dispatcher
            module = function.__module__
            with suppress(FileExistsError):
                Path(claims, module).touch(exist_ok=False)
                claimed.add(module)
            if module in claimed:
                with suppress(TypingError):  # it calls a kernel that this process has not compiled
                    return compile_kernel(*signatures, unlocked=unlocked)(function)
            return function

        return compile_entry

    compiler.kernel = compile_claimed
    for module in MODULES:
        import_module(module)
    print(compiler.cache_misses())
