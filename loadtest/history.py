"""Make a data directory that already holds many events: iris, single rows with random ids.

    .venv/bin/python loadtest/history.py MODELS DATA --rows 1000000 [--rule ftrl]     (from the repository root)

Both folders are replaced. The model is the shipped one, with the named learning rule or the default. Labels are the
classes that the model finds most probable; one in ten is random.
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


def write_model(folder: Path, rule: str | None) -> Artifact:
    """Write the shipped model with a learning rule as the only model of a folder."""
    shipped = read_artifact(ROOT / "models" / "iris" / "1", BYTES_MAX)
    fields = shipped.manifest.model_dump(mode="json", exclude_none=True, exclude={"tensors_sha256"})
    if rule is not None:
        fields["learning"] = {"rule": rule}
    artifact = Artifact.from_fields(fields, shipped.tensors)
    write_artifact(folder / "iris" / "1", artifact)
    return artifact


def make_payloads(artifact: Artifact, count: int, rng: np.random.Generator) -> list[bytes]:
    """Return make_payloads of one row each, around the mean of the training set."""
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
    options = parser.parse_args()
    for path in (options.models, options.data):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    artifact = write_model(options.models, options.rule)
    data, rng = DataDirectory(options.data), np.random.default_rng(0)
    folder = data.stream_folder("iris", 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, BYTES_MAX)
    log = SqliteLog(data.log)
    stream = log.open_stream("iris", 1, compute_genesis(artifact), len(artifact.manifest.classes))
    for start in range(0, options.rows, BATCH):
        batch = make_payloads(artifact, min(BATCH, options.rows - start), rng)
        log.append([Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), one, 0) for one in batch])
        log.checkpoint_wal()
    log.close()


if __name__ == "__main__":
    main()
