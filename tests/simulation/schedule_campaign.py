"""A seed determines a schedule, which is a list of steps: feedback and admin calls, copies to the standby, failovers,
also between two reads of one replica, crashes that keep or lose a data directory, cuts, and releases with another fold.
The replicas are the real follower on real files; the log is one in memory. A failover loses every event that the
standby does not have, though replicas may have learned it. At the end all is healed and compared.

A schedule that breaks a promise is made as short as it can be, and printed.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from tests.simulation.replica_schedules import draw_steps, find_violation, shorten
from tests.support.history_machine import N
from tests.support.model_artifacts import make_artifact
from tests.torture.results import ResultRow

SCHEDULES: Final = 10_000


def run_seed(folder: Path, seed: int) -> tuple[int, str | None, Counter[str]]:
    """Run the schedule of a seed; return the promise that it breaks, or None, and what happened."""
    counts: Counter[str] = Counter()
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    return seed, find_violation(artifact, folder / str(seed), seed, draw_steps(seed), counts), counts


def print_shortest(folder: Path, seed: int, promise: str) -> None:
    """Print the shortest schedule that breaks the same promise."""
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    steps = shorten(
        draw_steps(seed), lambda steps: find_violation(artifact, folder / str(seed), seed, steps) == promise
    )
    sys.stdout.write(f"seed {seed}: not so: {promise}\n" + "".join(f"  {step}\n" for step in steps))


def run_campaign(folder: Path, share: float = 1.0) -> Iterator[ResultRow]:
    """Run a share of the schedules in a folder."""
    count, counts, violations = max(1, round(share * SCHEDULES)), Counter[str](), []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for seed, promise, happened in pool.map(partial(run_seed, folder), range(count), chunksize=8):
            counts += happened
            if promise is not None:
                violations.append(f"seed {seed}: not so: {promise}")
                print_shortest(folder, seed, promise)
    note = "; ".join([f"{number:,} {name}" for name, number in sorted(counts.items())] + violations)
    yield ResultRow("schedules of three replicas", count, SCHEDULES, len(violations), note)
