"""Vowpal Wabbit in a process and an environment of its own, to be measured in turns with Softstep."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from environments import HERE, VOWPAL, NotAvailableError
from numpy.typing import NDArray

from service.softmax.sparse_rows import SparseRows


class VowpalWabbit:
    """A running vowpal.py.

    Args:
        lines: The file of examples.
        options: The options of Vowpal Wabbit.

    Raises:
        NotAvailableError: It could not be installed.
    """

    def __init__(self, lines: Path, options: str) -> None:
        command = [str(VOWPAL.ensure()), str(HERE / "vowpal.py"), str(lines), options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, command: str) -> float:
        """Return the number that it prints after a command.

        Raises:
            NotAvailableError: It ended.
        """
        assert self._process.stdin is not None  # noqa: S101  # a pipe was requested
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise NotAvailableError("Vowpal Wabbit ended")
        return float(line)


def write_examples(path: Path, rows: SparseRows, labels: NDArray[np.int64]) -> None:
    """Write rows as examples whose features are named by their column: such names are not hashed."""
    columns, values, start = rows.columns.tolist(), rows.values.tolist(), 0
    with path.open("w") as file:
        for end, label in zip(rows.ends.tolist(), labels.tolist(), strict=True):
            cells = " ".join(f"{columns[at]}:{values[at]:.9g}" for at in range(start, end))
            file.write(f"{label + 1} | {cells}\n")
            start = end
