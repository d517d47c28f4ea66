"""Make a data directory that already holds many events: single rows with random ids.

    .venv/bin/python loadtest/history.py MODELS DATA --rows 1000000 [--rule ftrl] [--model models/iris]

Run it from the repository root. Both folders are replaced. The model is the shipped iris or another one, with the named
learning rule or its own. Labels are the classes that the model finds most probable; one in ten is random.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.model_factory import build_model
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog

ROOT = Path(__file__).resolve().parent.parent
BYTES_MAX, BATCH, STRANGE_SHARE, SPREAD = 1 << 24, 10_000, 0.1, 1.5


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


def main() -> None:
    """Make both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rule")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "iris", help="the folder of a model")
    options = parser.parse_args()
    for path in (options.models, options.data):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    artifact = write_model(options.model, options.models, options.rule)
    data, rng = DataDirectory(options.data), np.random.default_rng(0)
    folder = data.stream_folder(options.model.name, 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, BYTES_MAX)
    log = SqliteLog(data.log)
    stream = log.open_stream(options.model.name, 1, compute_genesis(artifact), len(artifact.manifest.classes))
    for start in range(0, options.rows, BATCH):
        batch = make_payloads(artifact, min(BATCH, options.rows - start), rng)
        log.append([Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), one, 0) for one in batch])
        log.checkpoint_wal()
    log.close()


if __name__ == "__main__":
    main()
