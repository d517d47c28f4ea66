"""Measure what the history of answers costs the learner: rows per second with it ÷ without it (V9).

    .venv/bin/python loadtest/history_cost.py [--rows 50000] [--rounds 7] [--write]

The learner decodes stored events of one row each and folds them in batches, as `softstep replay` does. Both ways take
turns over the same rows. Times are processor times of the process. What the learner does besides, such as reading the
log and writing snapshots, is not counted; so the share that the history has of the whole is smaller.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
from environments import ROOT
from history import make_payloads
from machine import describe
from operations import report, row

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/operations.md")
    options = parser.parse_args()
    machine, rows = describe(), []
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
