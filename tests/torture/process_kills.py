"""Processes are killed at each of their system calls.

A worker, the learner and a start are killed (-9) where they enter a system call that writes, syncs, truncates, renames,
opens or removes: at the first call, the second, and so on until no call is left.

Then a service starts on what is left, and its data is checked against what was acknowledged (checker.py). In the
recovery cases the start is killed too, on a directory that an earlier kill left, and then a service starts once more.
Some cases run the whole service: its parent, worker, learner and real requests.
"""

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
from tests.torture.checker import Acknowledged, check, parse_acknowledged
from tests.torture.fault_injection import BROKEN, DONE, Child, Injection, ProcessResult, Strace, run_injected
from tests.torture.learner_runs import FINISH_SECONDS, has_published, run_learner, start_injected, stop_learner
from tests.torture.results import ResultRow
from tests.torture.scenario import (
    GENESIS,
    K,
    Step,
    bind_scenario_artifact,
    drafts_of,
    make_scenario,
    post_scenario,
    scenario_settings,
)
from tests.torture.sweeps import Count, Sweep, run_sweeps, sample_seeds
from tests.torture.whole_service import serve_injected

KILL = "signal=KILL"
CALLS = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "openat", "unlink")
SEEDS, WHOLE_SEEDS = 18, 4
APPEND, LEARN, RECOVER, WHOLE = "append", "learn", "recover", "whole"


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    counts = run_sweeps(folder, list(sweeps(share)))
    for fault, name, target in (
        ("kill -9 of a worker that appends, at each of its calls", APPEND, 1800),
        ("kill -9 of the learner that folds and publishes", LEARN, 2000),
        ("kill -9 of a start on what an earlier kill left", RECOVER, 1050),
        ("kill -9 of a worker, the learner or the parent of a whole service under requests", WHOLE, 150),
    ):
        yield counts.get(name, Count()).row(fault, target)


def sweeps(share: float) -> Iterator[Sweep]:
    """Yield the sweeps for a share of the campaign."""
    seeds, stride = sample_seeds(SEEDS, share)
    for seed in range(seeds):
        for number, call in enumerate(CALLS):
            start = 1 + (seed * 5 + number * 3) % stride
            yield Sweep(APPEND, f"{call} {seed}", partial(append_case, seed, KILL, call), start, stride)
            yield Sweep(LEARN, f"{call} {seed}", partial(learn_case, seed, KILL, call), start, stride)
        for number, call in enumerate((*CALLS, "unlinkat")):
            start = 1 + (seed * 5 + number * 3) % stride
            yield Sweep(RECOVER, f"{call} {seed}", partial(recover_case, seed, call), start, stride)
    for seed in range(sample_seeds(WHOLE_SEEDS, share)[0]):
        yield Sweep(
            WHOLE, f"the parent {seed}", partial(serve_injected, seed, Injection("", KILL, 1), "parent"), 1, stride, 12
        )
        for number, call in enumerate(("write", "pwrite64", "fdatasync", "fsync", "rename", "openat")):
            for victim in ("worker", "learner"):
                case = partial(serve_injected, seed, Injection(call, KILL, 1), victim)
                yield Sweep(WHOLE, f"{call} {victim} {seed}", case, 1 + number % stride, 2 * stride, 12)


# A worker


def append_case(seed: int, fault: str, call: str, folder: Path, at: int) -> bool:
    """Inject a fault into a worker that appends; with an odd seed another worker appends beside it."""
    settings, steps, lines, result = append_injected(seed, Injection(call, fault, at), folder)
    assert result.code != BROKEN, result.lines
    check(settings, parse_acknowledged(lines), steps)
    return result.hit


def append_injected(
    seed: int, injection: Injection, folder: Path, watched: str = ""
) -> tuple[Settings, list[Step], list[str], ProcessResult]:
    """Run the workers of append_case; return settings, all posted steps, all emitted lines, and the worker's result."""
    settings, shared, wakeup = scenario_settings(folder), SharedMemory(2, 8), Wakeup()
    bind_scenario_artifact(settings)
    steps = make_scenario(seed)
    work = partial(post_scenario, settings, shared, 0, steps, wakeup)
    if seed % 2 == 0:
        result = run_injected(work, injection, folder / "trace", watched)
        return settings, steps, result.lines, result
    other_steps = make_scenario(seed, "b")
    other = Child(partial(post_scenario, settings, shared, 1, other_steps, wakeup))
    target = Child(work)
    strace = Strace(target.pid, injection, folder / "trace", watched)
    other.start()
    target.start()
    result, other_result = target.wait(strace), other.wait()
    assert other_result.code == DONE, other_result.lines
    return settings, [*steps, *other_steps], [*result.lines, *other_result.lines], result


# The learner


def learn_case(seed: int, fault: str, call: str, folder: Path, at: int) -> bool:
    """Inject a fault into a learner that follows new events; the next learner must fold what came after its end."""
    settings, steps, acknowledged, result = learn_injected(seed, Injection(call, fault, at), folder)
    assert result.code != BROKEN, result.lines
    check(settings, acknowledged, steps)
    return result.hit


def learn_injected(
    seed: int, injection: Injection, folder: Path, watched: str = ""
) -> tuple[Settings, list[Step], Acknowledged, ProcessResult]:
    """Run the learner of learn_case; return settings, all steps, all acknowledgements, and the learner's result."""
    settings, shared, wakeup = scenario_settings(folder), SharedMemory(1, 8), Wakeup()
    steps, data = make_scenario(seed, batches=5), bind_scenario_artifact(settings)
    acknowledged: Acknowledged = {}
    first = len(steps) // 3
    append(settings, steps[:first], acknowledged)
    child = Child(partial(run_learner, settings, shared, wakeup))
    strace = Strace(child.pid, injection, folder / "trace", watched)
    child.start()
    with closing(SqliteLog(data.log)) as log:
        for step in [None, *steps[first:]]:
            append_to(log, settings, [step], acknowledged)
            wakeup.notify()
            last = log.stream_state(1).seq
            deadline = time.monotonic() + (0.3 if injection.forever else FINISH_SECONDS)
            while not child.has_ended() and not has_published(settings, last) and time.monotonic() < deadline:
                time.sleep(0.001)
            assert injection.forever or child.has_ended() or time.monotonic() < deadline, (
                "the learner makes no progress"
            )
    stop_learner(child)
    return settings, steps, acknowledged, child.wait(strace)


def append(settings: Settings, steps: list[Step], acknowledged: Acknowledged) -> None:
    """Append steps as a worker would, from this process, and add what is acknowledged."""
    with closing(SqliteLog(bind_scenario_artifact(settings).log)) as log:
        log.open_stream("iris", 1, GENESIS, K)
        append_to(log, settings, steps, acknowledged)


def append_to(log: SqliteLog, settings: Settings, steps: list[Step], acknowledged: Acknowledged) -> None:
    """Append steps to an open log, and add what is acknowledged."""
    for step in steps:
        if step is None:
            log.checkpoint_wal()
            continue
        drafts = drafts_of(1, [step])
        for draft, outcome in zip(drafts, log.append(drafts), strict=True):
            if isinstance(outcome, EventLocation):
                acknowledged.setdefault(draft.id.decode(), set()).add(outcome.seq)
    marks = AckMarks(bind_scenario_artifact(settings).mark_file(0), {1})
    marks.write_mark(1, Position(*log.stream_state(1)[:2]))
    marks.close()


# A start on what a kill left


def recover_case(seed: int, call: str, folder: Path, at: int) -> bool:
    """Kill a worker or the learner, kill the start after that, then start once more."""
    settings, steps, acknowledged = make_killed_directory(seed, folder)
    result = start_injected(settings, Injection(call, KILL, at), folder / "trace again")
    assert result.code != BROKEN, result.lines
    check(settings, acknowledged, steps)
    return result.hit


def make_killed_directory(seed: int, folder: Path) -> tuple[Settings, list[Step], Acknowledged]:
    """Kill a worker at a write or sync of the log, or the learner while it writes a file."""
    call, at = [("fdatasync", 9), ("pwrite64", 40), ("rename", 9), ("write", 30), ("fsync", 6)][seed % 5]
    injection = Injection(call, KILL, at + seed)
    if call in {"fdatasync", "pwrite64"}:
        settings, steps, lines, _ = append_injected(2 * seed, injection, folder)
        return settings, steps, parse_acknowledged(lines)
    settings, steps, acknowledged, _ = learn_injected(seed, injection, folder)
    return settings, steps, acknowledged
