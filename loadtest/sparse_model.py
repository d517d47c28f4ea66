"""Write a sparse model with the support of its columns: a bag of names, hashed.

    .venv/bin/python loadtest/sparse_model.py FOLDER NAME --bits 18 --classes 10

FOLDER/with has the model and the shipped iris, FOLDER/without only iris. One class stands for a sigmoid head.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from service.store.artifact.artifact import Artifact, write_artifact

ROOT = Path(__file__).resolve().parent.parent
TRAINING_ROWS = 1000


def make_sparse_artifact(bits: int, n_classes: int) -> Artifact:
    """Return the artifact, with random weights."""
    rng, N = np.random.default_rng(0), 1 << bits
    fields = {
        "head": "sigmoid" if n_classes == 1 else "softmax",
        "classes": [f"class {k}" for k in range(max(2, n_classes))],
        "fields": [{"name": "words", "kind": "bag", "bits": bits}],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {"rows": TRAINING_ROWS, "support": "support"},
    }
    weight, bias = rng.standard_normal((N, n_classes), np.float32), np.zeros(n_classes, np.float32)
    support = rng.integers(0, TRAINING_ROWS, N).astype(np.float32)
    return Artifact.from_fields(fields, {"weight": weight, "bias": bias, "support": support})


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--bits", type=int, default=18)
    parser.add_argument("--classes", type=int, default=10)
    options = parser.parse_args()
    for name in ("with", "without"):
        shutil.copytree(ROOT / "models" / "iris", options.folder / name / "iris")
    write_artifact(options.folder / "with" / options.name / "1", make_sparse_artifact(options.bits, options.classes))


if __name__ == "__main__":
    main()
