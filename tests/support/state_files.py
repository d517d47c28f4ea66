"""A snapshot file with arrays of several shapes and types."""

from pathlib import Path

import numpy as np

from service.store.states.snapshots import write_snapshot

FIELDS = {"seq": 7, "epoch": 0, "classes": ["a", "b"], "genesis": "00ff"}
ARRAYS = {
    "weight": np.arange(12, dtype="f4").reshape(4, 3),
    "bias": np.arange(3, dtype="f8"),
    "seen": np.array(9, "i8"),
    "none": np.zeros((0, 3), "f4"),
    "flags": np.array([True, False]),
}


def write_state(folder: Path, at: int = 7, *, durable: bool = False, **fields: object) -> Path:
    """Write a snapshot of these arrays, with some fields changed."""
    return write_snapshot(folder, at, {**FIELDS, **fields}, ARRAYS, durable=durable)
