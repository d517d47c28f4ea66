"""A restore and a purge are killed at each of their system calls.

A restore over a log with newer events, and a purge, are killed (-9) at each such call. The calls are those that write,
sync, truncate, rename, open, create or remove. In every second case the run that continues it is killed too.

Then the operation is finished as its manual says, and a service starts. The directory must hold the whole backup, or
everything that was there before. A purged stream must be gone, or be complete and still learn. There is never a part.
"""

import os
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from service import command_line as command
from service.commands.serve import open_data
from service.settings import Settings
from service.store.directory.data_directory import RESTORE_NAME
from service.store.log.events import Kind
from service.store.log.sqlite import SqliteLog
from tests.torture.checker import EVENTS_MAX, Acknowledged, check
from tests.torture.fault_injection import BROKEN, Injection, run_injected
from tests.torture.learner_runs import start_until_published
from tests.torture.process_kills import CALLS, KILL, append
from tests.torture.results import ResultRow
from tests.torture.scenario import Step, make_scenario, scenario_settings
from tests.torture.sweeps import Count, Sweep, run_sweeps, sample_seeds

MORE_CALLS = ("mkdir", "rmdir", "unlinkat", "sendfile", "copy_file_range")
SEEDS = 4
TARGETS = {"restore": 250, "purge": 100}


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    counts = run_sweeps(folder, list(sweeps(share)))
    for name, target in TARGETS.items():
        yield counts.get(name, Count()).row(f"kill -9 of a {name}", target)


def sweeps(share: float) -> Iterator[Sweep]:
    """Yield the sweeps for a share of the campaign."""
    seeds, stride = sample_seeds(SEEDS, share)
    for seed in range(max(2, seeds)):
        for call in (*CALLS, *MORE_CALLS):
            name = list(TARGETS)[seed % 2]
            yield Sweep(name, f"{call} {seed}", partial(kill_case, seed, call), 1 + seed % stride, stride)


def kill_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """Kill a restore (even seeds) or a purge, in some cases the run that continues it too, and then finish it."""
    settings, steps = scenario_settings(folder), make_scenario(seed, batches=4)
    old: Acknowledged = {}
    append(settings, steps[:3], old)
    start_until_published(settings)
    backup = folder / "backup"
    assert run_command("backup", backup, settings) == 0
    new = dict(old)
    append(settings, steps[3:], new)
    start_until_published(settings)
    argv = ("restore", backup, "--over") if seed % 2 == 0 else ("purge", "iris/1", "--yes")

    def work(_emit: object) -> None:
        assert run_command(argv[0], argv[1], settings, *argv[2:]) in {0, 1}

    result = run_injected(work, Injection(call, KILL, at), folder / "trace")
    assert result.code != BROKEN, result.lines
    if result.killed and at % 2:
        second = run_injected(work, Injection(call, KILL, (at + 1) // 2), folder / "trace again")
        assert second.code != BROKEN, second.lines
    if (settings.data / RESTORE_NAME).exists():
        assert run_command("restore", backup, settings) == 0
    _check_complete(settings, steps, old, new, is_purge=bool(seed % 2))
    return result.hit


def _check_complete(
    settings: Settings, steps: list[Step], old: Acknowledged, new: Acknowledged, *, is_purge: bool
) -> None:
    """Check for the whole backup, or everything, or after a purge nothing; never a part."""
    with open_data(settings), closing(SqliteLog(settings.data / "log.sqlite")) as log:
        streams = log.list_streams()
        events = log.read_events(streams[0].number, 0, EVENTS_MAX) if streams else []
    stored = {event.id.decode(): {event.seq} for event in events}
    # The restore appends an event that repeats every forget since the backup.
    repeated = {event.id.decode() for event in events if event.kind == Kind.FORGET} - new.keys()
    posted = {name: seqs for name, seqs in stored.items() if name not in repeated}
    assert posted in (({}, new) if is_purge else (old, new)), "only a part is there"
    if stored:
        check(settings, stored, steps, frozenset(repeated))
    else:
        assert run_command("purge", "iris/1", settings, "--yes") == 1
        assert not (settings.data / "streams" / "iris" / "1").exists()


def run_command(name: Any, argument: Any, settings: Settings, *more: Any) -> int:
    """Run a `softstep` command without output, and return its exit code."""
    argv = [str(part) for part in (name, argument, "--data", settings.data, *more)]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return command.main(argv)
