"""Measure the Python client with a running service: predictions and imports (T7), disturbed feedback (T8)."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child_runs import attempt, collect, run_child
from contenders import SOFTSTEP
from environments import HERE, ROOT
from feedback_service import PYTHON
from processes import CLIENT_CORE, pinned

CLIENT_NUMBERS = ("T7", "T8")
DISTURBED_CALLS = 10_000
PATH = os.pathsep.join((str(ROOT / "client"), str(ROOT)))


class ClientRun:
    """One run.

    Args:
        models: The folder of the models.
        scratch: The folder of the run.
        rounds: Rounds of each figure.
        seconds: The length of one measurement.
        progress: Is called with lines of text.
    """

    def __init__(self, models: Path, scratch: Path, rounds: int, seconds: int, progress: Callable[[str], None]) -> None:
        self.models, self.scratch, self.rounds, self.seconds, self.progress = models, scratch, rounds, seconds, progress

    def run(self, numbers: tuple[str, ...]) -> dict[str, Any]:
        """Measure everything that the requested figures need."""
        found: dict[str, Any] = {}
        if "T7" in numbers:
            found["client"] = attempt(self.predictions)
        if "T8" in numbers:
            found["disturbed"] = attempt(self.disturbed)
        return found

    def predictions(self) -> dict[str, Any]:
        """Measure one row by the client and by httpx2, and the imports of both, round by round."""
        seen = []
        with SOFTSTEP.running(self.models, self.scratch) as server:
            for turn in range(self.rounds):
                self.progress(f"round {turn + 1}/{self.rounds}: the Python client")
                seen.append(self.measure("predict", server.port, self.seconds) | self.measure("import"))
        return dict(collect(seen))

    def disturbed(self) -> dict[str, Any]:
        """Send feedback through a proxy that disturbs answers, once."""
        self.progress(f"{DISTURBED_CALLS:,} feedbacks through a proxy that disturbs answers")
        with SOFTSTEP.running(self.models, self.scratch, self.scratch / "disturbed") as server:
            return dict(collect([self.measure("feedback", server.port, DISTURBED_CALLS)]))

    def measure(self, *arguments: object) -> dict[str, Any]:
        """Run client_calls.py on the client's core and return what it prints."""
        command = [str(PYTHON), str(HERE / "client_calls.py"), *map(str, arguments)]
        return dict(json.loads(run_child(pinned(command, CLIENT_CORE), PYTHONPATH=PATH)))
