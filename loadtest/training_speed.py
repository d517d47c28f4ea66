"""Measure `softstep train` on a large Parquet file beside pyarrow and scikit-learn: figure T3 of training.py."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from service.store.artifact.artifact import read_artifact

ROOT: Final = Path(__file__).parent.parent
N: Final = 100
PEER: Final = """
import json, sys
import numpy as np
import pyarrow.parquet
from sklearn.linear_model import LogisticRegression
table = pyarrow.parquet.read_table(sys.argv[1])
y = table["label"].to_numpy() == "yes"
X = np.column_stack([column.to_numpy() for name, column in zip(table.column_names, table.columns) if name != "label"])
rows = len(y) - len(y) // 10
found = LogisticRegression(C=1.0).fit(X[:rows], y[:rows])
json.dump([found.coef_[0].tolist(), float(found.intercept_[0])], open(sys.argv[2], "w"))
"""


class Done(NamedTuple):
    """A process that has ended: its time in seconds, and its largest resident memory in MB."""

    seconds: float
    megabytes: float


def run(command: list[str], **variables: str) -> Done:
    """Run a process to its end.

    Raises:
        RuntimeError: It failed.
    """
    began = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # both sides import what the turn before has compiled
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    os.close(null)
    if status:
        raise RuntimeError(f"a process failed: {command[:4]}")
    return Done(time.perf_counter() - began, usage.ru_maxrss / 1024)


def train(data: Path, models: Path, *options: str, **variables: str) -> Done:
    """Run `softstep train` on a file whose labels are in the column `label`."""
    command = [sys.executable, "-m", "service", "train", str(data), "--label", "label", "--name", "m"]
    return run([*command, "--models", str(models), *options], **variables)


def generate(path: Path, rows: int) -> None:
    """Write normal columns and labels of a logistic model as Parquet, in pieces."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=N) * 0.3
    names, writer = [f"x{j}" for j in range(N)], None
    for start in range(0, rows, 100_000):
        X = rng.standard_normal((min(100_000, rows - start), N), dtype=np.float32)
        y = np.where(X @ weights + rng.logistic(size=len(X)) > 0, "yes", "no")
        table = pa.table({**dict(zip(names, X.T, strict=True)), "label": y})
        writer = writer or pa.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def train_objective(path: Path, weights: np.ndarray, bias: float) -> float:
    """Return the objective at C = 1 on the first nine tenths of the rows, by pieces."""
    file = pa.parquet.ParquetFile(path)
    left = file.metadata.num_rows - file.metadata.num_rows // 10
    total = float(weights @ weights) / 2
    for batch in file.iter_batches(100_000):
        X = np.column_stack([batch.column(j).to_numpy() for j in range(N)])[:left].astype(np.float64)
        y = (batch.column(N).to_numpy(zero_copy_only=False) == "yes")[:left]
        left -= len(X)
        z = X @ weights + bias
        total += float((np.logaddexp(0, z) - y * z).sum())
    return total


def read_weights(models: Path) -> tuple[np.ndarray, float]:
    """Return weights (N,) and bias of an artifact of numbers, for raw values."""
    artifact = read_artifact(models / "m" / "1", 1 << 20)
    weights, bias = artifact.weights[:, 0].astype(np.float64), float(artifact.bias[0])
    mean, scale = (
        np.array([getattr(field, name) for field in artifact.manifest.fields], np.float64) for name in ("mean", "scale")
    )
    return weights / scale, bias - float(weights @ (mean / scale))


def measure_speed(rows: int, rounds: int) -> dict[str, Any]:
    """Measure T3 in turns."""
    found: dict[str, list[float]] = {"time": [], "memory": [], "difference": [], "seconds": [], "megabytes": []}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        folder = Path(scratch)
        data, fitted = folder / "rows.parquet", folder / "peer.json"
        generate(data, rows)
        for turn in range(rounds + 1):
            models = folder / f"models-{turn}"
            ours = train(data, models, "--c", "1", "--hold-out", "last")
            theirs = run([sys.executable, "-c", PEER, str(data), str(fitted)])
            if turn == 0:  # it only fills the caches
                continue
            found["time"].append(ours.seconds / theirs.seconds)
            found["memory"].append(ours.megabytes / theirs.megabytes)
            found["seconds"].append(ours.seconds)
            found["megabytes"].append(ours.megabytes)
            print(f"T3  ours {ours}, theirs {theirs}", flush=True)
        # Afterwards, because the peak of a process that is started includes the memory of this one at that moment. All
        # turns fit the same rows, and their weights have the same bits.
        weights, bias = json.loads(fitted.read_text())
        best = train_objective(data, np.array(weights), bias)
        found["difference"].append(train_objective(data, *read_weights(models)) / best - 1)
    return dict(found)
