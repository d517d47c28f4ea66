"""Fuzzers give every parser of bytes inputs that a stranger may send.

Each input is one that is valid or almost valid, changed at random one to four times: bits, bytes, numbers, tokens of
the grammar, and parts of other inputs. An input whose outcome is new joins those that are changed further. A parser
may only raise the exceptions that it declares, and takes 0.2 s at most. Beyond that, no changed key or token may be
accepted, parsers of one grammar must agree, and no decoded slice may pass its limit. The parsers in machine code read
bytes that end where readable memory ends, so that a read out of bounds ends their process.

Here a case is one input, and a violation is an undeclared exception, a broken rule, or a process that ended.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fuzz.campaign import fuzz_parsers
from tests.torture.results import ResultRow

INPUTS: Final = 1_000_000


def run_campaign(_folder: Path, share: float) -> Iterator[ResultRow]:
    """Fuzz each parser with a share of the inputs."""
    for name, progress in fuzz_parsers(max(1, round(INPUTS * share))):
        for failure in progress.failures:
            sys.stderr.write(f"{name}: {failure}\n")
        note = f"{progress.outcomes} different outcomes"
        yield ResultRow(name, progress.inputs, INPUTS, len(progress.failures), note)
