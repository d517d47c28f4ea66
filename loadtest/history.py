"""Make a data directory that already holds many events: single rows with random ids.

    .venv/bin/python loadtest/history.py MODELS DATA --rows 1000000 [--rule ftrl] [--model models/iris]
    .venv/bin/python loadtest/history.py MODELS DATA --rows 1000000 --entries 30

Run it from the repository root. Both folders are replaced. The model is the shipped iris or another one, with the named
learning rule or its own. Labels are the classes that the model finds most probable; one in ten is random.

With `--entries` the model is `words`: a bag of names, hashed to 2^18 columns, 10 classes and weights of 0. Each row has
so many columns, drawn evenly, and the label that its first column decides.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.model_factory import build_model
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows
from service.store.log.sqlite import SqliteLog

ROOT = Path(__file__).resolve().parent.parent
BYTES_MAX, BATCH, STRANGE_SHARE, SPREAD = 1 << 24, 10_000, 0.1, 1.5
SPARSE_MODEL, BITS, CLASSES = "words", 18, 10


def write_model(model: Path, folder: Path, rule: str | None) -> Artifact:
    """Write version 1 of a model with a learning rule as the only model of a folder."""
    artifact = read_artifact(model / "1", BYTES_MAX)
    if rule is not None:
        fields = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude={"tensors_sha256"})
        artifact = Artifact.from_fields(fields | {"learning": {"rule": rule}}, artifact.tensors)
    write_artifact(folder / model.name / "1", artifact)
    return artifact


def make_payloads(artifact: Artifact, count: int, rng: np.random.Generator) -> list[bytes]:
    """Return payloads of one row each, around the mean of the training set."""
    training = artifact.manifest.training
    mean, scale = np.array(training.mean), np.array(training.scale)
    X = (mean + SPREAD * scale * rng.standard_normal((count, len(mean)))).astype(np.float32)
    K = len(artifact.manifest.classes)
    y = build_model(artifact).predict(X).argmax(axis=1)
    strange = rng.random(count) < STRANGE_SHARE
    y[strange] = rng.integers(0, K, strange.sum())
    return [encode_rows(X[i : i + 1], y[i : i + 1], Targets.INDEX, K) for i in range(count)]


def write_sparse_model(folder: Path) -> Artifact:
    """Write version 1 of the model of names as the only model of a folder."""
    fields = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(CLASSES)],
        "fields": [{"name": "words", "kind": "bag", "bits": BITS}],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
    }
    tensors = {"weight": np.zeros((1 << BITS, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}
    artifact = Artifact.from_fields(fields, tensors)
    write_artifact(folder / SPARSE_MODEL / "1", artifact)
    return artifact


def make_sparse_payloads(entries: int, count: int, rng: np.random.Generator) -> list[bytes]:
    """Return payloads of one row with so many entries each."""
    N, payloads = 1 << BITS, []
    values, ends = rng.standard_normal((count, entries), np.float32), np.array([entries])
    for row in values:
        columns = np.sort(rng.choice(N, entries, replace=False, shuffle=False)).astype(np.int32)
        labels = columns[:1].astype(np.int64) * CLASSES // N
        payloads.append(encode_sparse_rows(SparseRows(ends, columns, row), N, labels, Targets.INDEX, CLASSES))
    return payloads


def main() -> None:
    """Make both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rule")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "iris", help="the folder of a model")
    parser.add_argument("--entries", type=int, help="the columns of a row of the model of names")
    options = parser.parse_args()
    for path in (options.models, options.data):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    if options.entries:
        name, artifact = SPARSE_MODEL, write_sparse_model(options.models)
    else:
        name, artifact = options.model.name, write_model(options.model, options.models, options.rule)
    data, rng = DataDirectory(options.data), np.random.default_rng(0)
    folder = data.stream_folder(name, 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, BYTES_MAX)
    log = SqliteLog(data.log)
    stream = log.open_stream(name, 1, compute_genesis(artifact), len(artifact.manifest.classes))
    for start in range(0, options.rows, BATCH):
        count = min(BATCH, options.rows - start)
        if options.entries:
            batch = make_sparse_payloads(options.entries, count, rng)
        else:
            batch = make_payloads(artifact, count, rng)
        log.append([Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), one, 0) for one in batch])
        log.checkpoint_wal()
    log.close()


if __name__ == "__main__":
    main()
