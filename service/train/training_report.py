"""Show how far training is, on standard error: rows and rows/s of each pass, steps and loss of each fit.

On a terminal one line is overwritten. Each pass and each fit ends with a line that stays, also in a file or a pipe.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

from service.softmax.lbfgs import Report

# A terminal shows so many changes a second.
CHANGES_A_SECOND: Final = 10


class ConsoleReport:
    """The progress of training on standard error; a context manager."""

    def __init__(self) -> None:
        self._console: Final = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._status: Final = Status("", console=self._console, refresh_per_second=CHANGES_A_SECOND)
        self._due = 0.0
        self._line = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._status.stop()

    def begin(self, action: str, total: int | None) -> Callable[[int], None]:
        """Begin a pass over rows; return a function that receives how many it has read."""
        self._finish()
        start = time.monotonic()

        def show(count: int) -> None:
            rate = count / max(time.monotonic() - start, 1e-9)
            of = "" if total is None or count >= total else f" of {total:,}"
            self._show(f"{action}: {count:,}{of} rows, {rate:,.0f} rows/s")

        return show

    def fit(self, C: float) -> Report:
        """Begin a fit; return a function that receives each step, the loss and the gradient."""
        self._finish()

        def show(step: int, loss: float, gradient: float) -> None:
            self._show(f"C {C:g}: step {step}, loss {loss:.6f}, gradient {gradient:.1e}")

        return show

    def _show(self, line: str) -> None:
        """Remember a line, and show it on a terminal if the last change is long enough ago."""
        self._line = line
        now = time.monotonic()
        if self._console.is_terminal and now >= self._due:
            self._due = now + 1 / CHANGES_A_SECOND
            self._status.update(line)

    def _finish(self) -> None:
        """Write the last line of a pass or a fit."""
        if self._line:
            self._console.print(self._line)
        self._line = ""
