"""A worker that appends, the learner, and a start are killed (-9) where they enter any of their system calls that
write, sync, cut, rename, open or remove, one call after the other until none is left.

Then a service starts on what is left, and is held to what was acknowledged (checker.py). In the cases of recovery the
start is killed as well, on a directory that an earlier kill left, and then started once more. In some cases the whole
service runs, with its parent, worker, learner and real requests.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.ack_marks import AckMarks
from service.store.log.events import EventLocation, Position
from service.store.log.sqlite import SqliteLog
from tests.torture.checker import Acked, acked_in, check
from tests.torture.fault_injection import BROKE, DONE, Child, Ended, Strike, Trace, struck
from tests.torture.learner_runs import FINISH_SECONDS, has_published, learn, start_struck, stop
from tests.torture.results import Line
from tests.torture.scenario import GENESIS, K, Step, bound, drafts, settings_of, story, tell_story
from tests.torture.sweeps import Count, Sweep, portion, scratch, swept
from tests.torture.whole_service import serve_struck

KILL = "signal=KILL"
CALLS = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "openat", "unlink")
SEEDS, WHOLE_SEEDS = 18, 4
APPEND, LEARN, RECOVER, WHOLE = "append", "learn", "recover", "whole"


def kills(folder: Path, share: float) -> Iterator[Line]:
    """The campaign."""
    place = scratch(folder)
    try:
        counts = swept(place, list(sweeps(share)))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for fault, name, target in (
        ("kill -9 of a worker that appends, at each of its calls", APPEND, 1800),
        ("kill -9 of the learner that folds and publishes", LEARN, 2000),
        ("kill -9 of a start on what a kill had left", RECOVER, 1050),
        ("kill -9 of a worker, a learner or the parent of a whole service under requests", WHOLE, 150),
    ):
        found = counts.get(name, Count())
        yield Line(fault, found.cases, target, len(found.violations), "; ".join(found.violations[:3]))


def sweeps(share: float) -> Iterator[Sweep]:
    """Every sweep of the campaign, or of a share of it."""
    seeds, stride = portion(SEEDS, share)
    for seed in range(seeds):
        for number, call in enumerate(CALLS):
            start = 1 + (seed * 5 + number * 3) % stride
            yield Sweep(APPEND, f"{call} {seed}", partial(append_case, seed, KILL, call), start, stride)
            yield Sweep(LEARN, f"{call} {seed}", partial(learn_case, seed, KILL, call), start, stride)
        for number, call in enumerate((*CALLS, "unlinkat")):
            start = 1 + (seed * 5 + number * 3) % stride
            yield Sweep(RECOVER, f"{call} {seed}", partial(recover_case, seed, call), start, stride)
    for seed in range(portion(WHOLE_SEEDS, share)[0]):
        yield Sweep(
            WHOLE, f"the parent {seed}", partial(serve_struck, seed, Strike("", KILL, 1), "parent"), 1, stride, 12
        )
        for number, call in enumerate(("write", "pwrite64", "fdatasync", "fsync", "rename", "openat")):
            for who in ("worker", "learn"):
                case = partial(serve_struck, seed, Strike(call, KILL, 1), who)
                yield Sweep(WHOLE, f"{call} {who} {seed}", case, 1 + number % stride, 2 * stride, 12)


# A worker


def append_case(seed: int, fault: str, call: str, folder: Path, at: int) -> bool:
    """A worker appends and is struck; with an odd seed another one appends beside it."""
    settings, steps, told, ended = append_struck(seed, Strike(call, fault, at), folder)
    assert ended.code != BROKE, ended.told
    check(settings, acked_in(told), steps)
    return ended.hit


def append_struck(
    seed: int, strike: Strike, folder: Path, watched: str = ""
) -> tuple[Settings, list[Step], list[str], Ended]:
    """The same without the check; returns settings, everything posted, everything told, and how it ended."""
    settings, board, bell = settings_of(folder), SharedMemory(2, 8), Wakeup()
    bound(settings)
    steps = story(seed)
    work = partial(tell_story, settings, board, 0, steps, bell)
    if seed % 2 == 0:
        ended = struck(work, strike, folder / "trace", watched)
        return settings, steps, ended.told, ended
    others = story(seed, "b")
    other = Child(partial(tell_story, settings, board, 1, others, bell))
    struck_one = Child(work)
    trace = Trace(struck_one.pid, strike, folder / "trace", watched)
    other.go()
    struck_one.go()
    ended, beside = struck_one.wait(trace), other.wait()
    assert beside.code == DONE, beside.told
    return settings, [*steps, *others], [*ended.told, *beside.told], ended


# The learner


def learn_case(seed: int, fault: str, call: str, folder: Path, at: int) -> bool:
    """The learner is struck while it follows what is appended; what comes after its death is learned by the next."""
    settings, steps, acked, ended = learn_struck(seed, Strike(call, fault, at), folder)
    assert ended.code != BROKE, ended.told
    check(settings, acked, steps)
    return ended.hit


def learn_struck(
    seed: int, strike: Strike, folder: Path, watched: str = ""
) -> tuple[Settings, list[Step], Acked, Ended]:
    """The same without the check."""
    settings, board, bell, steps = settings_of(folder), SharedMemory(1, 8), Wakeup(), story(seed, turns=5)
    data = bound(settings)
    acked: Acked = {}
    first = len(steps) // 3
    append(settings, steps[:first], acked)
    child = Child(partial(learn, settings, board, bell))
    trace = Trace(child.pid, strike, folder / "trace", watched)
    child.go()
    with closing(SqliteLog(data.log)) as log:
        for step in [None, *steps[first:]]:
            append_to(log, settings, [step], acked)
            bell.notify()
            last = log.stream_state(1).seq
            late = time.monotonic() + (0.3 if strike.forever else FINISH_SECONDS)
            while not child.poll() and not has_published(settings, last) and time.monotonic() < late:
                time.sleep(0.001)
            assert strike.forever or child.poll() or time.monotonic() < late, "the learner does not go on"
    stop(child)
    return settings, steps, acked, child.wait(trace)


def append(settings: Settings, steps: list[Step], acked: Acked) -> None:
    """Append as a worker would, from this process, and note what is acknowledged."""
    with closing(SqliteLog(bound(settings).log)) as log:
        log.open_stream("iris", 1, GENESIS, K)
        append_to(log, settings, steps, acked)


def append_to(log: SqliteLog, settings: Settings, steps: list[Step], acked: Acked) -> None:
    """The same in a log that is open."""
    for step in steps:
        if step is None:
            log.checkpoint_wal()
            continue
        every = drafts(1, [step])
        for draft, outcome in zip(every, log.append(every), strict=True):
            if isinstance(outcome, EventLocation):
                acked.setdefault(draft.id.decode(), set()).add(outcome.seq)
    marks = AckMarks(bound(settings).mark_file(0), {1})
    marks.write_mark(1, Position(*log.stream_state(1)[:2]))
    marks.close()


# A start on what a kill has left


def recover_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """A worker or the learner is killed; the start after that is killed too, and then there is a start that lives."""
    made = leave(seed, folder)
    settings, steps, acked = made
    ended = start_struck(settings, Strike(call, KILL, at), folder / "trace again")
    assert ended.code != BROKE, ended.told
    check(settings, acked, steps)
    return ended.hit


def leave(seed: int, folder: Path) -> tuple[Settings, list[Step], Acked]:
    """What a kill leaves: of a worker behind a write or before a sync, or of the learner in the midst of a file."""
    call, at = [("fdatasync", 9), ("pwrite64", 40), ("rename", 9), ("write", 30), ("fsync", 6)][seed % 5]
    strike = Strike(call, KILL, at + seed)
    if call in {"fdatasync", "pwrite64"}:
        settings, steps, told, _ = append_struck(2 * seed, strike, folder)
        return settings, steps, acked_in(told)
    settings, steps, acked, _ = learn_struck(seed, strike, folder)
    return settings, steps, acked
