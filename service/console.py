"""Write to the terminal for commands: results to standard output, progress and errors to standard error.

A result is a short text, or with `--json` one JSON object a line. On a terminal progress is one line that is
overwritten; in a file or a pipe it is a line every few seconds.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import orjson

from service.errors import SoftstepError

TERMINAL_SECONDS: Final = 0.1
FILE_SECONDS: Final = 5.0


def print_result(fields: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """Write one result, as JSON or as text."""
    sys.stdout.write(f"{orjson.dumps(fields).decode() if as_json else text}\n")


def print_error(sentence: str) -> None:
    """Write an error or a warning."""
    sys.stderr.write(f"softstep: {sentence}\n")


@contextmanager
def convert_disk_errors() -> Iterator[None]:
    """Raise a SoftstepError in place of an OSError, which would be shown with a traceback."""
    try:
        yield
    except OSError as error:
        raise SoftstepError(f"disk error: {error.strerror}") from error


def flush_output() -> None:
    """Write what is buffered; a process may have been started without standard output."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_output() -> None:
    """Discard further standard output: nothing reads it, and flushing it at the exit would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """The progress of a long command; nothing is written before the first pause is over.

    Args:
        action: What the command does, such as "replaying".
        unit: What is counted, such as "events".
    """

    def __init__(self, action: str, unit: str) -> None:
        self._action = action
        self._unit = unit
        self._is_terminal = sys.stderr.isatty()
        self._pause = TERMINAL_SECONDS if self._is_terminal else FILE_SECONDS
        self._start = time.monotonic()
        self._due = self._start + self._pause
        self._width = 0  # of the line on the terminal

    def update(self, count: int, total: int) -> None:
        """Write that `count` of `total` are done, if the pause is over."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._pause
        rate = count / (now - self._start)
        self._write(f"{self._action}: {count:,} of {total:,} {self._unit}, {rate:,.0f}/s")

    def finish(self) -> None:
        """Clear the line on the terminal."""
        if self._is_terminal and self._width:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line.ljust(self._width)}" if self._is_terminal else f"{line}\n")
        sys.stderr.flush()
        self._width = len(line)
