"""Sweeps over the calls of one process, spread over the cores: a fault at the first call, at the second, …"""

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

NUMBER = struct.Struct("<I")
MEMORY = Path("/dev/shm")  # noqa: S108  # within a folder that mkdtemp makes


class Sweep(NamedTuple):
    """One case after the other, until one is not hit.

    Attributes:
        name: Under which its cases are counted, and what a violation is told with.
        call: What is struck, for the same.
        case: Runs one case in a folder with the number of the call; returns whether it was hit, raises what is wrong.
        start: The first number.
        stride: How far the next one is.
        last: The number behind which no call is looked for.
    """

    name: str
    call: str
    case: Callable[[Path, int], bool]
    start: int = 1
    stride: int = 1
    last: int = 1 << 20


class Count(NamedTuple):
    """What came of the sweeps of one name."""

    cases: int = 0
    violations: tuple[str, ...] = ()


def scratch(folder: Path) -> Path:
    """Where cases lie: in memory where there is such a disk, for a kill leaves what is written in the system's."""
    return Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else folder))


def swept(folder: Path, sweeps: Sequence[Sweep], processes: int | None = None) -> dict[str, Count]:
    """Run all sweeps in some processes, one sweep at a time in each, and count hits and violations by name."""
    queue, filling = os.pipe()
    os.write(filling, b"".join(NUMBER.pack(number) for number in range(len(sweeps))))  # fits in a pipe's 64 KiB
    os.close(filling)
    pipes = [_lane(folder, sweeps, queue) for _ in range(processes or os.cpu_count() or 1)]
    os.close(queue)
    counts: dict[str, Count] = {}
    for pid, reading in pipes:
        with os.fdopen(reading) as lines:
            for name, cases, violations in map(json.loads, lines):
                before = counts.get(name, Count())
                counts[name] = Count(before.cases + cases, (*before.violations, *violations))
        assert os.waitpid(pid, 0)[1] == 0, "a part of the campaign broke"
    return counts


def _lane(folder: Path, sweeps: Sequence[Sweep], queue: int) -> tuple[int, int]:
    """A process that runs sweeps as long as there are any; its pid, and the pipe in which it tells."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        while number := os.read(queue, NUMBER.size):
            for told in _run(folder, sweeps[NUMBER.unpack(number)[0]]):
                os.write(writing, f"{json.dumps(told)}\n".encode())
        code = 0
    except BaseException:  # noqa: BLE001  # told, and then the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(folder: Path, sweep: Sweep) -> Iterator[tuple[str, int, list[str]]]:
    """One record for each case that was hit."""
    at = sweep.start
    while at <= sweep.last:
        case = Path(tempfile.mkdtemp(dir=folder))
        hit, violation = _alone(sweep, case, at)
        shutil.rmtree(case, ignore_errors=True)
        if not hit:
            return
        yield sweep.name, 1, [violation] if violation else []
        at += sweep.stride


def _alone(sweep: Sweep, folder: Path, at: int) -> tuple[bool, str]:
    """Run one case in a process of its own, so that it leaves nothing behind; whether it was hit, and what is wrong."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        logging.disable(logging.CRITICAL)
        hit, violation = True, ""
        try:
            try:
                hit = sweep.case(folder, at)
            except Exception as error:  # noqa: BLE001  # whatever went wrong is what the campaign looks for
                violation = f"{sweep.name}, call {at} of {sweep.call}: {type(error).__name__}: {error}"
                sys.stderr.write(f"violation: {violation}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}")
            os.write(writing, json.dumps([hit, violation]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    hit, violation = json.loads(told or '[true, "the case ended without a word"]')
    return hit, violation


def portion(whole: int, share: float) -> tuple[int, int]:
    """Of a whole number of seeds and a share: how many seeds, and how far one case is from the next."""
    seeds = max(1, round(whole * share))
    return seeds, max(1, round(seeds / (whole * share)))
