"""A restore over a log that has gone on, and a purge, are killed (-9) where they enter any of their system calls that
write, sync, cut, rename, open, make or remove; in every second case the run that goes on with it is killed too.

Then what was begun is finished as its manual says, and a service starts. There is the backup whole, or all that there
was; of what was purged there is nothing, or all of it: then it is learned as ever. Never a part.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from service import __main__ as command
from service.commands import serve
from service.settings import Settings
from service.store.directory.data_directory import RESTORING
from service.store.log.events import Kind
from service.store.log.sqlite import SqliteLog
from tests.torture.checker import EVENTS_MAX, Acked, check
from tests.torture.fault_injection import BROKE, Strike, struck
from tests.torture.learner_runs import start_once
from tests.torture.process_kills import CALLS, KILL, append
from tests.torture.results import Line
from tests.torture.scenario import Step, settings_of, story
from tests.torture.sweeps import Count, Sweep, portion, scratch, swept

REMOVALS = ("mkdir", "rmdir", "unlinkat", "sendfile", "copy_file_range")
SEEDS = 4
WHAT = {"restore": 250, "purge": 100}


def moves(folder: Path, share: float) -> Iterator[Line]:
    """The campaign."""
    place = scratch(folder)
    try:
        counts = swept(place, list(sweeps(share)))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for what, target in WHAT.items():
        found = counts.get(what, Count())
        yield Line(f"kill -9 of a {what}", found.cases, target, len(found.violations), "; ".join(found.violations[:3]))


def sweeps(share: float) -> Iterator[Sweep]:
    """Every sweep of the campaign, or of a share of it."""
    seeds, stride = portion(SEEDS, share)
    for seed in range(max(2, seeds)):
        for call in (*CALLS, *REMOVALS):
            name = list(WHAT)[seed % 2]
            yield Sweep(name, f"{call} {seed}", partial(move_case, seed, call), 1 + seed % stride, stride)


def move_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """A restore (even seeds) or a purge is killed; the run that finishes it too; then it is finished."""
    settings, steps = settings_of(folder), story(seed, turns=4)
    old: Acked = {}
    append(settings, steps[:3], old)
    start_once(settings)
    backup = folder / "backup"
    assert told_to("backup", backup, settings) == 0
    new = dict(old)
    append(settings, steps[3:], new)
    start_once(settings)
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
    with serve.open_data(settings), closing(SqliteLog(settings.data / "log.sqlite")) as log:
        streams = log.list_streams()
        events = log.read_events(streams[0].number, 0, EVENTS_MAX) if streams else []
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
