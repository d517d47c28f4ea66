"""Measure every figure of docs/benchmarks in one run. Start here: `python loadtest/bench.py`.

This file needs only the standard library. It builds the client's environment, then replaces itself by suite.py inside
that environment, with the same arguments.
"""

import os
import shutil
import sys

from environments import CLIENT, HERE, NotAvailableError

TOOLS = {"wrk": "the HTTP load generator", "taskset": "from util-linux", "strace": "counts system calls"}


def main() -> None:
    """Check the tools, build the environment and run the suite."""
    for tool, purpose in TOOLS.items():
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} ({purpose}) is not on the path; install your system's package of that name")
    try:
        python = str(CLIENT.ensure())
    except NotAvailableError as error:
        raise SystemExit(f"the client's environment {error}") from error
    os.execv(python, [python, str(HERE / "suite.py"), *sys.argv[1:]])  # noqa: S606 - replaces this process


if __name__ == "__main__":
    main()
