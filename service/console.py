"""How a command speaks: what it found on standard output, how far it is on standard error.

A result is a short text, or with `--json` one JSON object a line. Progress is one line that is written over where a
person looks, and a line every few seconds where it goes to a file or another program.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import orjson

from service.errors import SoftstepError

TERMINAL_SECONDS: Final = 0.1
FILE_SECONDS: Final = 5.0


def tell(fields: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """Write one result: its fields, or the text that says the same."""
    sys.stdout.write(f"{orjson.dumps(fields).decode() if as_json else text}\n")


def complain(sentence: str) -> None:
    """Write what is wrong."""
    sys.stderr.write(f"softstep: {sentence}\n")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise a SoftstepError in place of the system's, which would be shown with a traceback."""
    try:
        yield
    except OSError as error:
        raise SoftstepError(f"disk error: {error.strerror}") from error


class Progress:
    """How far a long command is; it is silent until its first pause is over.

    Args:
        doing: What it does, such as "replaying".
        counted: What is counted, such as "events".
    """

    def __init__(self, doing: str, counted: str) -> None:
        self._doing = doing
        self._counted = counted
        self._rewrites = sys.stderr.isatty()
        self._pause = TERMINAL_SECONDS if self._rewrites else FILE_SECONDS
        self._began = time.monotonic()
        self._due = self._began + self._pause
        self._shown = 0

    def at(self, done: int, total: int) -> None:
        """Show that so many of all are done, where it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._pause
        rate = done / (now - self._began)
        line = f"{self._doing}: {done:,} of {total:,} {self._counted}, {rate:,.0f}/s"
        self._write(line)

    def end(self) -> None:
        """Leave the terminal clean for what comes next."""
        if self._rewrites and self._shown:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line.ljust(self._shown)}" if self._rewrites else f"{line}\n")
        sys.stderr.flush()
        self._shown = len(line)
