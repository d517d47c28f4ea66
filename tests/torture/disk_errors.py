"""The disk of a worker and of the learner fails.

A system call that writes, syncs, truncates, renames, opens or removes returns EIO or ENOSPC, once or from then on: the
first call, the second, and so on until no call is left.

After a failed sync of the log no event may be acknowledged until the data of that sync has been written again; the
order of the calls that strace records shows it. Then the disk works again, a service starts on what is left, and its
data is checked against what was acknowledged (checker.py).
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.torture.checker import check, parse_acknowledged
from tests.torture.fault_injection import BROKEN, Injection
from tests.torture.process_kills import CALLS, append_injected, learn_injected
from tests.torture.results import ResultRow
from tests.torture.sweeps import Count, Sweep, run_sweeps, sample_seeds

WATCHED = "write,pwrite64,fdatasync,fsync,ftruncate,sendto"
SEEDS = 3
TARGET = 300
CALL = re.compile(r"(\w+)\(\d+(?:<([^>]*)>)?(.*)\) += (-?\d+)")
LOG = re.compile(r".*/log\.sqlite(-wal)?")
PROCESSES = ("a worker", "the learner")
ERRORS = ("EIO", "ENOSPC")


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    counts = run_sweeps(folder, list(sweeps(share)))
    for process in PROCESSES:
        for error in ERRORS:
            for forever in (False, True):
                fault = f"{error} {'from one call of ' + process + ' on' if forever else 'at one call of ' + process}"
                yield counts.get(_name(process, error, forever=forever), Count()).row(fault, TARGET)


def sweeps(share: float) -> Iterator[Sweep]:
    """Yield the sweeps for a share of the campaign."""
    seeds, stride = sample_seeds(SEEDS, share)
    for seed in range(seeds):
        for process in PROCESSES:
            for number, call in enumerate(CALLS):
                for error in ERRORS:
                    for forever in (False, True):
                        injection = Injection(call, f"error={error}", 1, forever)
                        case = partial(append_case if process == "a worker" else learn_case, seed, injection)
                        start = 1 + (number * 3 + seed + 2 * forever) % stride
                        yield Sweep(_name(process, error, forever=forever), f"{call} {seed}", case, start, stride)


def _name(process: str, error: str, *, forever: bool) -> str:
    return f"{process} {error} {forever}"


def append_case(seed: int, injection: Injection, folder: Path, at: int) -> bool:
    """Fail the disk of a worker; with an odd seed another worker, whose disk works, appends beside it."""
    settings, steps, lines, result = append_injected(seed, injection._replace(at=at), folder, WATCHED)
    assert result.code != BROKEN, result.lines
    assert not acks_after_failed_sync(result.trace), "acknowledged after a failed sync"
    check(settings, parse_acknowledged(lines), steps)
    return result.hit


def learn_case(seed: int, injection: Injection, folder: Path, at: int) -> bool:
    """Fail the disk of the learner while others append."""
    settings, steps, acknowledged, result = learn_injected(seed, injection._replace(at=at), folder)
    assert result.code != BROKEN, result.lines
    check(settings, acknowledged, steps)
    return result.hit


def acks_after_failed_sync(trace: str) -> list[str]:
    """Return the acknowledgements in a trace that came while data of a failed sync was unsafe.

    The data is safe again once the file has been written and then synced, or once it has been truncated: SQLite
    truncates the write-ahead log after it has copied all of it to the database and synced that.
    """
    unsafe: dict[str, bool] = {}  # files whose sync failed -> whether they were written since
    found = []
    for name, path, rest, result in parse_calls(trace):
        if name == "sendto" and '"ack ' in rest and unsafe:
            found.append(rest)
        elif LOG.fullmatch(path):
            if name in {"fdatasync", "fsync"}:
                if result < 0:
                    unsafe[path] = False
                elif unsafe.get(path):
                    del unsafe[path]
            elif path in unsafe and result >= 0:
                unsafe[path] = True
                if name == "ftruncate":
                    del unsafe[path]
    return found


def parse_calls(trace: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield name, path, further arguments and result of each call that returned, from the output of strace."""
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            unfinished[pid] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... "):
            text = unfinished.pop(pid, "") + text.partition("resumed>")[2]
        match = CALL.match(text)
        if match is not None:
            yield match[1], match[2] or "", match[3], int(match[4])
