"""Fault sweeps over the system calls of one process, spread over the cores: the first call, the second, …"""

import json
import logging
import os
import shutil
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.torture.results import ResultRow

NUMBER = struct.Struct("<I")
MEMORY = Path("/dev/shm")  # noqa: S108  # within a folder that mkdtemp makes


class Sweep(NamedTuple):
    """Cases with the fault at a later call each time, until a fault meets no call.

    Attributes:
        name: The name under which cases are counted and violations reported.
        call: The system call, for the report of a violation.
        case: Runs one case in a folder with the number of the call. It returns whether the fault met a call, and
            raises where a promise is broken.
        start: The first number.
        stride: The distance between numbers.
        last: The last number.
    """

    name: str
    call: str
    case: Callable[[Path, int], bool]
    start: int = 1
    stride: int = 1
    last: int = 1 << 20


class Count(NamedTuple):
    """Cases and violations of the sweeps of one name."""

    cases: int = 0
    violations: tuple[str, ...] = ()

    def row(self, fault: str, target: int) -> ResultRow:
        """Return the row of the report, with the first three violations as its note."""
        return ResultRow(fault, self.cases, target, len(self.violations), "; ".join(self.violations[:3]))


def run_sweeps(folder: Path, sweeps: Sequence[Sweep], processes: int | None = None) -> dict[str, Count]:
    """Run sweeps in several processes, one sweep at a time in each.

    Cases run in memory where the system has such a disk: a kill loses nothing of what the system has in its cache.

    Args:
        folder: The folder for cases where there is no disk in memory.
        sweeps: The sweeps; at most 16,384, whose numbers fit in a pipe's 64 KiB.
        processes: The number of processes; by default one for each core.

    Returns:
        The cases and violations of each name.
    """
    cases = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else folder))
    queue, filling = os.pipe()
    os.write(filling, b"".join(NUMBER.pack(number) for number in range(len(sweeps))))
    os.close(filling)
    counts: dict[str, Count] = {}
    try:
        pipes = [_fork_runner(cases, sweeps, queue) for _ in range(processes or os.cpu_count() or 1)]
        os.close(queue)
        for pid, reading in pipes:
            with os.fdopen(reading) as records:
                for name, hits, violations in map(json.loads, records):
                    before = counts.get(name, Count())
                    counts[name] = Count(before.cases + hits, (*before.violations, *violations))
            assert os.waitpid(pid, 0)[1] == 0, "a process of the campaign failed"
    finally:
        shutil.rmtree(cases, ignore_errors=True)
    return counts


def _fork_runner(folder: Path, sweeps: Sequence[Sweep], queue: int) -> tuple[int, int]:
    """Fork a process that runs sweeps until the queue is empty; return its pid and the pipe with its records."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        while number := os.read(queue, NUMBER.size):
            for record in _run_sweep(folder, sweeps[NUMBER.unpack(number)[0]]):
                os.write(writing, f"{json.dumps(record)}\n".encode())
        code = 0
    except BaseException:  # noqa: BLE001  # printed; the exit code reports the failure
        traceback.print_exc()
    finally:
        os._exit(code)


def _run_sweep(folder: Path, sweep: Sweep) -> Iterator[tuple[str, int, list[str]]]:
    """Yield one record for each case in which the fault met a call."""
    at = sweep.start
    while at <= sweep.last:
        case = Path(tempfile.mkdtemp(dir=folder))
        hit, violation = _run_isolated(sweep, case, at)
        shutil.rmtree(case, ignore_errors=True)
        if not hit:
            return
        yield sweep.name, 1, [violation] if violation else []
        at += sweep.stride


def _run_isolated(sweep: Sweep, folder: Path, at: int) -> tuple[bool, str]:
    """Run one case in a process of its own, so that no state is left; return whether it was hit, and the violation."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        logging.disable(logging.CRITICAL)
        hit, violation = True, ""
        try:
            try:
                hit = sweep.case(folder, at)
            except Exception as error:  # noqa: BLE001  # every failure of a case is a violation
                violation = f"{sweep.name}, call {at} of {sweep.call}: {type(error).__name__}: {error}"
                sys.stderr.write(f"violation: {violation}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}")
            os.write(writing, json.dumps([hit, violation]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    hit, violation = json.loads(answer or '[true, "the process of the case ended without a result"]')
    return hit, violation


def sample_seeds(whole: int, share: float) -> tuple[int, int]:
    """Return the number of seeds for a share of a campaign, and the stride between the calls of a sweep."""
    seeds = max(1, round(whole * share))
    return seeds, max(1, round(seeds / (whole * share)))
