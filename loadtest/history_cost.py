"""Measure what the history of answers costs the learner: rows per second with it ÷ without it (V9).

    .venv/bin/python loadtest/history_cost.py [--rows 50000] [--events 1000000] [--rounds 7] [--write]

`softstep replay` makes the history unless it is asked for the state after an event, so it runs both ways in turns; what
it takes for one event is subtracted (L10). The other rows are about the fold alone: stored events of one row are
decoded and folded in batches, and neither read nor checked. Times are processor times.
"""

import io
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median

import numpy as np
from environments import ROOT
from history import make_payloads
from machine import describe
from operations import read_options, report, row

from service.command_line import main as softstep
from service.learn.event_fold import EventFold, decode_payloads
from service.learn.stream_history import History
from service.store.artifact.artifact import Artifact, read_artifact

BYTES_MAX = 1 << 24
RATIO_MIN = 0.97
# A model, its rule (None: its own), and events of a batch.
CASES = (
    ("iris", "ftrl", 4096),
    ("iris", "newton", 4096),
    ("digits", "ftrl", 4096),
    ("digits", "newton", 4096),
    ("digits", "newton", 64),
    ("digits", "newton", 8),
)


def load_model(folder: Path, rule: str) -> Artifact:
    """Return version 1 of a model with a learning rule."""
    artifact = read_artifact(folder / "1", BYTES_MAX)
    fields = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude={"tensors_sha256"})
    return Artifact.from_fields(fields | {"learning": {"rule": rule}}, artifact.tensors)


class Learner:
    """Folds the same events again and again.

    Args:
        artifact: The model.
        payloads: One row each.
        batch: Events that are folded at once.
        has_history: Whether the history is made too.
    """

    def __init__(self, artifact: Artifact, payloads: list[bytes], batch: int, *, has_history: bool) -> None:
        self._fold = EventFold(artifact, history=History(artifact, 0) if has_history else None)
        self._payloads, self._batch, self._seq = payloads, batch, 0

    def measure(self) -> float:
        """Return the seconds of one pass over all events."""
        began = time.process_time()
        for start in range(0, len(self._payloads), self._batch):
            part = self._payloads[start : start + self._batch]
            seqs = np.arange(self._seq + 1, self._seq + 1 + len(part))
            self._fold.fold_blocks(decode_payloads(part), seqs)
            self._seq += len(part)
        return time.process_time() - began


def replay_seconds(data: Path, *options: str) -> float:
    """Return the processor time of one replay in this process."""
    began = time.process_time()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = softstep(["replay", "iris", "--data", str(data), *options])
    if code:
        raise SystemExit("a replay has failed")
    return time.process_time() - began


def measure_replay(events: int, rounds: int) -> list[str]:
    """Return the row about `softstep replay`."""
    with tempfile.TemporaryDirectory() as name:
        models, data = Path(name) / "models", Path(name) / "data"
        made = [str(models), str(data), "--rows", str(events), "--rule", "ftrl"]
        subprocess.run([sys.executable, "loadtest/history.py", *made], cwd=ROOT, check=True, capture_output=True)
        ways = ("--seq", "1"), ("--seq", str(events)), ()
        replay_seconds(data, *ways[0])  # imports what a replay needs
        found = [[replay_seconds(data, *way) for way in ways] for _ in range(rounds)]
    ratio = median((without - start) / (whole - start) for start, without, whole in found)
    per_event = median(whole - start for start, _, whole in found) / events
    title = f"`iris`, `ftrl`, replay of {events:,} events: events/s with the history ÷ without it"
    return row(title, f"≥ {RATIO_MIN}", f"{ratio:.3f} ({1e9 * per_event:,.0f} ns each)", met=ratio >= RATIO_MIN)


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, rows=50_000, events=(1_000_000, "events of a replay"), rounds=7)
    machine, rows = describe(), [measure_replay(options.events, options.rounds)]
    for model, rule, batch in CASES:
        artifact = load_model(ROOT / "models" / model, rule)
        payloads = make_payloads(artifact, options.rows, np.random.default_rng(0))
        without, with_history = (Learner(artifact, payloads, batch, has_history=each) for each in (False, True))
        seconds = [(without.measure(), with_history.measure()) for _ in range(options.rounds)]
        ratio, cost = median(a / b for a, b in seconds), median(b - a for a, b in seconds) / options.rows
        title = f"`{model}`, `{rule}`, batches of {batch:,}: rows/s with the history ÷ without it"
        value = f"{ratio:.3f} ({1e9 * cost:.0f} of {1e9 * median(b for _, b in seconds) / options.rows:,.0f} ns)"
        rows.append(row(title, f"≥ {RATIO_MIN}", value, met=ratio >= RATIO_MIN))
    about = f"Events of one row, {options.rows:,} in a round, {options.rounds} rounds; processor time of one process."
    report("history", about, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
