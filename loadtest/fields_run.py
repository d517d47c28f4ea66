"""Measure models with fields.

Over HTTP rows with names (F1 to F3, F9) and a sparse model (F7, F8), beside Vowpal Wabbit sparse rows (F4 to F6), and
the replay of a log of them (F10).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child_runs import attempt, collect, run_child
from environments import HERE, ROOT
from feedback_service import EVENTS, PYTHON, measure_replay, run
from named_service import NAMED_NUMBERS, NamedService
from processes import SERVER_CORE, pinned
from sparse_service import SPARSE_NUMBERS, SparseService

# The figures that beside_vowpal.py measures, and its parts.
BESIDE_VOWPAL = {"F4": "predict", "F5": "learn", "F6": "loss"}
FIELD_NUMBERS = (*NAMED_NUMBERS, *BESIDE_VOWPAL, *SPARSE_NUMBERS, "F10")
ENTRIES = 30


class FieldsRun:
    """One run.

    Args:
        scratch: The folder of the run.
        rounds: Rounds of each figure.
        seconds: The length of one measurement over HTTP.
        progress: Is called with lines of text.
    """

    def __init__(self, scratch: Path, rounds: int, seconds: int, progress: Callable[[str], None]) -> None:
        self.scratch, self.rounds, self.progress = scratch, rounds, progress
        self.named = NamedService(scratch, rounds, seconds, progress)
        self.sparse = SparseService(scratch, rounds, seconds, progress)

    def run(self, numbers: tuple[str, ...]) -> dict[str, Any]:
        """Measure everything that the requested figures need."""
        found: dict[str, Any] = {}
        if {"F1", "F2", "F3"} & set(numbers):
            found["named"] = attempt(lambda: self.named.predictions(numbers))
        if "F9" in numbers:
            found["named_feedback"] = attempt(self.named.feedback)
        for number, part in BESIDE_VOWPAL.items():
            if number in numbers:
                found[f"sparse_{part}"] = attempt(lambda part=part: self.beside_vowpal(part))  # type: ignore[misc]
        if "F7" in numbers:
            found["sparse_freshness"] = attempt(self.sparse.freshness)
        if "F8" in numbers:
            found["sparse_memory"] = attempt(self.sparse.memory)
        if "F10" in numbers:
            found["sparse_replay"] = attempt(self.replay)
        return found

    def beside_vowpal(self, part: str) -> dict[str, Any]:
        """Run a part of beside_vowpal.py once per round; losses have no rounds."""
        command = pinned([str(PYTHON), str(HERE / "beside_vowpal.py"), part], SERVER_CORE)
        seen = []
        for turn in range(1 if part == "loss" else self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: beside Vowpal Wabbit, {part}")
            # Lines before the last one say that an environment is built.
            seen.append(json.loads(run_child(command, PYTHONPATH=str(ROOT)).splitlines()[-1])[part])
        return dict(collect(seen))

    def replay(self) -> dict[str, list[float]]:
        """Return events per second of a whole replay of one-row events."""
        data = self.scratch / "sparse-history"
        self.progress(f"writing {EVENTS:,} events of {ENTRIES} entries")
        command = [str(PYTHON), str(HERE / "history.py"), str(self.scratch / "sparse-models"), str(data)]
        run([*command, "--rows", str(EVENTS), "--entries", str(ENTRIES)])
        return {"replayed_per_s": measure_replay(data, "words", self.rounds, self.progress)}
