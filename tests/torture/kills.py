"""A worker that appends, the learner, a start, a restore and a purge are killed (-9) where they enter any of their
system calls that write, sync, cut, rename, open or remove, one call after the other until none is left.

Then a service starts on what is left, and is held to what was acknowledged (checker.py). In the cases of recovery the
start is killed as well, on a directory that an earlier kill left, and then started once more. In some cases the whole
service runs, with its parent, worker, learner and real requests.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

from service import __main__ as command
from service.bell import Bell
from service.board import Board
from service.commands import serve
from service.settings import Settings
from service.store.data import RESTORING
from service.store.feedback import Accepted, Kind, Position
from service.store.marks import Marks
from service.store.snapshots import seqs
from service.store.sqlite import SqliteLog
from tests.torture.checker import EVENTS_MAX, Acked, acked_in, check
from tests.torture.line import Line
from tests.torture.story import GENESIS, Graduate, K, Step, bound, drafts, learn, settings_of, story, tell_story
from tests.torture.strike import BROKE, DONE, SECONDS_MAX, Child, Ended, Strike, Tell, Trace, struck
from tests.torture.sweeps import Count, Sweep, portion, scratch, swept
from tests.torture.whole import serve_struck

KILL = "signal=KILL"
CALLS = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "openat", "unlink")
REMOVALS = ("mkdir", "rmdir", "unlinkat", "sendfile", "copy_file_range")
SEEDS, WHOLE_SEEDS, MOVE_SEEDS = 18, 4, 2
APPEND, LEARN, RECOVER, MOVE, WHOLE = "append", "learn", "recover", "move", "whole"


def kills(folder: Path, share: float) -> Iterator[Line]:
    """The campaign."""
    place = scratch(folder)
    try:
        counts = swept(place, list(sweeps(share)))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for fault, name, target in (
        ("kill -9 of a worker that appends, at each of its calls", APPEND, 2000),
        ("kill -9 of the learner that folds and publishes", LEARN, 1800),
        ("kill -9 of a start on what a kill had left", RECOVER, 800),
        ("kill -9 of a restore or a purge, and of the run that finishes it", MOVE, 250),
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
    for seed in range(portion(MOVE_SEEDS, share)[0]):
        for call in (*CALLS, *REMOVALS):
            yield Sweep(MOVE, f"{call} {seed}", partial(move_case, seed, call), 1 + seed % stride, stride)
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
    settings, board, bell = settings_of(folder), Board(2, 8), Bell()
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
    settings, board, bell, steps = settings_of(folder), Board(1, 8), Bell(), story(seed, turns=5)
    data = bound(settings)
    acked: Acked = {}
    first = len(steps) // 3
    append(settings, steps[:first], acked)
    child = Child(partial(_learn, settings, board, bell))
    trace = Trace(child.pid, strike, folder / "trace", watched)
    child.go()
    snapshots = data.stream("iris", 1).snapshots
    with closing(SqliteLog(data.log)) as log:
        for step in [None, *steps[first:]]:
            append_to(log, settings, [step], acked)
            bell.ring()
            last = log.state(1).seq
            late = time.monotonic() + (0.3 if strike.forever else SECONDS_MAX)
            while not child.poll() and max(seqs(snapshots), default=0) < last and time.monotonic() < late:
                time.sleep(0.001)
            assert strike.forever or child.poll() or time.monotonic() < late, "the learner does not go on"
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)
    return settings, steps, acked, child.wait(trace)


def _learn(settings: Settings, board: Board, bell: Bell, _tell: Tell) -> None:
    learn(settings, board, bell)


def append(settings: Settings, steps: list[Step], acked: Acked) -> None:
    """Append as a worker would, from this process, and note what is acknowledged."""
    with closing(SqliteLog(bound(settings).log)) as log:
        log.open_stream("iris", 1, GENESIS, K)
        append_to(log, settings, steps, acked)


def append_to(log: SqliteLog, settings: Settings, steps: list[Step], acked: Acked) -> None:
    """The same in a log that is open."""
    for step in steps:
        if step is None:
            log.checkpoint()
            continue
        every = drafts(1, [step])
        for draft, outcome in zip(every, log.append(every), strict=True):
            if isinstance(outcome, Accepted):
                acked.setdefault(draft.id.decode(), set()).add(outcome.seq)
    marks = Marks(bound(settings).marks(0), {1})
    marks.set(1, Position(*log.state(1)[:2]))
    marks.close()


# A start on what a kill has left


def recover_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """A worker or the learner is killed; the start after that is killed too, and then there is a start that lives."""
    made = leave(seed, folder)
    settings, steps, acked = made
    ended = struck(partial(start, settings), Strike(call, KILL, at), folder / "trace again")
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


def start(settings: Settings, _tell: Tell) -> None:
    """What `softstep serve` does before it forks, and what the learner does then."""
    with serve._data(settings) as data:
        if data is not None and data.log.exists():
            Graduate(settings, Board(1, 8), Bell(), []).finish()


# Directories that are replaced and removed


def move_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """A restore (even seeds) or a purge is killed; the run that finishes it too; then it is finished."""
    settings, steps = settings_of(folder), story(seed, turns=4)
    old: Acked = {}
    append(settings, steps[:3], old)
    start(settings, print)
    backup = folder / "backup"
    assert told_to("backup", backup, settings) == 0
    new = dict(old)
    append(settings, steps[3:], new)
    start(settings, print)
    argv = ("restore", backup, "--over") if seed % 2 == 0 else ("purge", "iris/1", "--yes")
    ended = struck(lambda _: told_all(argv, settings), Strike(call, KILL, at), folder / "trace")
    assert ended.code != BROKE, ended.told
    if ended.killed and at % 2:  # the run that goes on with it
        again = struck(lambda _: told_all(argv, settings), Strike(call, KILL, (at + 1) // 2), folder / "trace again")
        assert again.code != BROKE, again.told
    if (settings.data / RESTORING).exists():
        assert told_to("restore", backup, settings) == 0
    _check_moved(settings, steps, old, new, is_purge=bool(seed % 2))
    return ended.hit


def _check_moved(settings: Settings, steps: list[Step], old: Acked, new: Acked, *, is_purge: bool) -> None:
    """What is there is the backup, or all that there was, or of what was purged nothing; never a part."""
    with serve._data(settings), closing(SqliteLog(settings.data / "log.sqlite")) as log:
        streams = log.streams()
        events = log.read(streams[0].number, 0, EVENTS_MAX) if streams else []
    there = {event.id.decode(): {event.seq} for event in events}
    # What was forgotten since the backup is forgotten again, by an event that the restore appends.
    again = {event.id.decode() for event in events if event.kind == Kind.FORGET} - new.keys()
    posted = {name: seqs for name, seqs in there.items() if name not in again}
    assert posted in (({}, new) if is_purge else (old, new)), "a part of it is there"
    if there:
        check(settings, there, steps, frozenset(again))
    else:
        assert told_to("purge", "iris/1", settings, "--yes") == 1
        assert not (settings.data / "streams" / "iris" / "1").exists()


def told_all(argv: tuple[object, ...], settings: Settings) -> None:
    """A command in a process of its own; it speaks to nobody."""
    assert told_to(argv[0], argv[1], settings, *argv[2:]) in {0, 1}


def told_to(name: Any, what: Any, settings: Settings, *more: Any) -> int:
    """Run a `softstep` command; returns its exit code."""
    argv = [str(part) for part in (name, what, "--data", settings.data, *more)]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return command.main(argv)
