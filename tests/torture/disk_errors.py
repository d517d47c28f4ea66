"""The disk of a worker and of the learner fails: each of their calls that write, sync, cut, rename, open or remove
returns EIO or ENOSPC, once or from then on, one call after the other until none is left.

No event is acknowledged between a sync of the log that failed and the writing again of what it was to keep; strace's
record of the calls shows the order. Then the disk is well again, a service starts on what is left, and is held to what
was acknowledged (checker.py).
"""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.torture.checker import acked_in, check
from tests.torture.fault_injection import BROKE, Strike
from tests.torture.process_kills import CALLS, append_struck, learn_struck
from tests.torture.results import Line
from tests.torture.sweeps import Count, Sweep, portion, scratch, swept

WATCHED = "write,pwrite64,fdatasync,fsync,ftruncate,sendto"
SEEDS = 3
TARGET = 300
CALL = re.compile(r"(\w+)\(\d+(?:<([^>]*)>)?(.*)\) += (-?\d+)")
LOG = re.compile(r".*/log\.sqlite(-wal)?")
WHO = {"a worker": "append", "the learner": "learn"}


def disks(folder: Path, share: float) -> Iterator[Line]:
    """The campaign."""
    place = scratch(folder)
    try:
        counts = swept(place, list(sweeps(share)))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for who in WHO:
        for error in ("EIO", "ENOSPC"):
            for forever in (False, True):
                found = counts.get(_name(who, error, forever=forever), Count())
                fault = f"{error} {'from one call of ' + who + ' on' if forever else 'at one call of ' + who}"
                yield Line(fault, found.cases, TARGET, len(found.violations), "; ".join(found.violations[:3]))


def sweeps(share: float) -> Iterator[Sweep]:
    """Every sweep of the campaign, or of a share of it."""
    seeds, stride = portion(SEEDS, share)
    for seed in range(seeds):
        for who in WHO:
            for number, call in enumerate(CALLS):
                for error in ("EIO", "ENOSPC"):
                    for forever in (False, True):
                        strike = Strike(call, f"error={error}", 1, forever)
                        case = partial(append_case if who == "a worker" else learn_case, seed, strike)
                        start = 1 + (number * 3 + seed + 2 * forever) % stride
                        yield Sweep(_name(who, error, forever=forever), f"{call} {seed}", case, start, stride)


def _name(who: str, error: str, *, forever: bool) -> str:
    return f"{who} {error} {forever}"


def append_case(seed: int, strike: Strike, folder: Path, at: int) -> bool:
    """A worker's disk fails; with an odd seed another worker, whose disk is well, appends beside it."""
    settings, steps, told, ended = append_struck(seed, strike._replace(at=at), folder, WATCHED)
    assert ended.code != BROKE, ended.told
    assert not unkept(ended.trace), "acknowledged after a sync that failed"
    check(settings, acked_in(told), steps)
    return ended.hit


def learn_case(seed: int, strike: Strike, folder: Path, at: int) -> bool:
    """The learner's disk fails while others append."""
    settings, steps, acked, ended = learn_struck(seed, strike._replace(at=at), folder)
    assert ended.code != BROKE, ended.told
    check(settings, acked, steps)
    return ended.hit


def unkept(trace: str) -> list[str]:
    """The acknowledgements in a record of calls that came while a sync of the log had failed.

    What was to be kept is kept again once the file was written to and synced after that, or was cut: the write-ahead
    log is cut once everything in it was written to the database, and synced there.
    """
    lost: dict[str, bool] = {}  # of each file whose sync failed, whether it was written to since
    found = []
    for name, path, rest, result in calls(trace):
        if name == "sendto" and '"ack ' in rest and lost:
            found.append(rest)
        elif LOG.fullmatch(path):
            if name in {"fdatasync", "fsync"}:
                if result < 0:
                    lost[path] = False
                elif lost.get(path):
                    del lost[path]
            elif path in lost and result >= 0:
                lost[path] = True
                if name == "ftruncate":
                    del lost[path]
    return found


def calls(trace: str) -> Iterator[tuple[str, str, str, int]]:
    """Name, path, further arguments and result of each call that strace saw return."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... "):
            text = begun.pop(pid, "") + text.partition("resumed>")[2]
        match = CALL.match(text)
        if match is not None:
            yield match[1], match[2] or "", match[3], int(match[4])
