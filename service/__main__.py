"""The `softstep` command: run the command line, and let a signal end `softstep serve` from its first moment on.

`softstep serve` imports Numba and the server for a second or more, and may verify a long log before it serves. Until
its supervisor handles signals (process/supervisor.py), SIGTERM and SIGINT end it at once with exit code 0: nothing has
been accepted yet, and every file on disk survives a kill. So this module imports nothing heavy itself.
"""

import os
import signal
import sys
from importlib import import_module


def main() -> int:
    """Run the command line and return its exit code."""
    if sys.argv[1:2] == ["serve"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit_at_once)
    return int(import_module("service.command_line").main())


def _exit_at_once(_number: int, _frame: object) -> None:
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
