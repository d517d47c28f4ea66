"""Make the models of the figures F1 to F3 and F9, their requests, and the same model for scikit-learn.

    .venv/bin/python loadtest/named_rows.py FOLDER      (from the repository root)

model      rows                                               columns      weights
rows       10 numbers, 5 categories, a text of 20 words       60 + 2^18    random, 10 classes
numbers    a list of 35 numbers, as many as the values above  35           random, 10 classes
iris       a list of 4 numbers                                4            as shipped

FOLDER/requests/ has bodies of one row and of 1,000 rows, with the probabilities in float64 beside them.
FOLDER/pipeline.npz has what a `Pipeline` of scikit-learn with the same answers is made of.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import Rows, make_artifact
from numpy.typing import NDArray

from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import RowEncoder
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.model_factory import build_model

NUMBERS, CATEGORIES, VALUES, WORDS, BITS, CLASSES = 10, 5, 10, 20, 18, 10
MANY, VOCABULARY = 1000, 5000
NUMBER_NAMES = [f"number_{i}" for i in range(NUMBERS)]
CATEGORY_NAMES = [f"category_{i}" for i in range(CATEGORIES)]
TEXT_NAME = "subject"
IRIS = [[5.1, 3.5, 1.4, 0.2]]
ROOT, BYTES_MAX = Path(__file__).resolve().parent.parent, 1 << 24
WIDTH = NUMBERS + CATEGORIES + WORDS


def make_model(rng: np.random.Generator) -> tuple[Artifact, dict[str, NDArray[Any]]]:
    """Return the model of names, and the parts of the pipeline."""
    means, scales = np.round(rng.uniform(-5, 50, NUMBERS), 2), np.round(rng.uniform(0.5, 20, NUMBERS), 2)
    values = [f"value {i}" for i in range(VALUES)]
    fields: list[dict[str, Any]] = [
        {"name": name, "kind": "number", "mean": float(mean), "scale": float(scale)}
        for name, mean, scale in zip(NUMBER_NAMES, means, scales, strict=True)
    ]
    fields += [{"name": name, "kind": "category", "values": values} for name in CATEGORY_NAMES]
    fields.append({"name": TEXT_NAME, "kind": "text", "words": [1, 1], "bits": BITS, "norm": "l2"})
    columns = NUMBERS + CATEGORIES * VALUES + (1 << BITS)
    weight = rng.standard_normal((columns, CLASSES)).astype(np.float32)
    bias = rng.standard_normal(CLASSES).astype(np.float32)
    manifest = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(CLASSES)],
        "fields": fields,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
    }
    parts = {"means": means, "scales": scales, "values": np.array(values), "weight": weight, "bias": bias}
    return Artifact.from_fields(manifest, {"weight": weight, "bias": bias}), parts


def make_rows(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Return rows as an application has them; words are 3 to 8 letters."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(VOCABULARY)]
    rows = []
    for _ in range(count):
        row: dict[str, Any] = {name: round(float(rng.normal(20, 10)), 2) for name in NUMBER_NAMES}
        row |= {name: f"value {rng.integers(VALUES)}" for name in CATEGORY_NAMES}
        rows.append(row | {TEXT_NAME: " ".join(words[i] for i in rng.integers(VOCABULARY, size=WORDS))})
    return rows


def predict(artifact: Artifact, rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Return the probabilities in float64."""
    encoder = RowEncoder(artifact.manifest.fields or (), {}, FieldLimits())
    P: list[list[float]] = build_model(artifact).float64_model.predict(encoder.encode_objects(rows).rows).tolist()
    return P


def dump(document: object) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is replaced")
    folder = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    requests = folder / "requests"
    requests.mkdir(parents=True)
    rng = np.random.default_rng(0)
    artifact, parts = make_model(rng)
    write_artifact(folder / "models" / "rows" / "1", artifact)
    np.savez(folder / "pipeline.npz", allow_pickle=False, **parts)
    rows = make_rows(rng, MANY)
    X = np.round(rng.normal(20, 10, (1, WIDTH)), 2)
    numbers = make_artifact(
        Rows(X.astype(np.float32), np.zeros(1, np.int64), CLASSES),
        rng.standard_normal((WIDTH, CLASSES)) / WIDTH,
        rng.standard_normal(CLASSES),
    )
    write_artifact(folder / "models" / "numbers" / "1", numbers)
    shutil.copytree(ROOT / "models" / "iris", folder / "models" / "iris")
    iris = read_artifact(folder / "models" / "iris" / "1", BYTES_MAX)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    P = predict(artifact, rows)
    bodies = {
        "row": ({"instances": rows[:1]}, P[:1]),
        "rows": ({"instances": rows}, P),
        "columns": ({"inputs": columns}, P),
        "numbers": ({"instances": X.tolist()}, build_model(numbers).float64_model.predict(X).tolist()),
        "iris": ({"instances": IRIS}, build_model(iris).float64_model.predict(np.array(IRIS)).tolist()),
    }
    for name, (body, expected) in bodies.items():
        (requests / f"{name}.json").write_bytes(dump(body))
        (requests / f"{name}.expected.json").write_bytes(dump(expected))
    (requests / "feedback.json").write_bytes(dump({"instances": rows[:1], "labels": [2]}))


if __name__ == "__main__":
    main()
