"""`softstep warm`: compile the kernels ahead of the first start."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from service import compiler
from service.settings import Settings

# The folder of this package, so that the child interpreter imports this one.
ROOT: Final = Path(__file__).parents[2]
REPORT: Final = (
    "from service.compiler import cache_misses; "
    "import service.learn.learner_process, service.serve.worker; "
    "print(cache_misses())"
)


def run(_settings: Settings, arguments: argparse.Namespace) -> int:
    """Compile for each baseline in a process of its own, by importing the kernels; return 0 if all were compiled."""
    for target in arguments.targets or [compiler.TARGET]:
        environment = {**os.environ, "NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        child = subprocess.run(  # noqa: S603  # this interpreter, with a fixed program
            [sys.executable, "-c", REPORT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if child.returncode:
            print(child.stderr, file=sys.stderr)
            return child.returncode
        print(f"{target}: {child.stdout.strip()} kernels compiled, the others were in {compiler.CACHE.name}/")
    return 0
