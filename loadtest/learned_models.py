"""Make the models of the figures B6 to B8, and the answers that a service must give.

    .venv/bin/python loadtest/learned_models.py FOLDER      (from the repository root)

model          learned by    from
digits         mixture       the digits data set, in one pass
wide-mixture   mixture       2,000 random rows of 768 features
wide           nothing       random weights for 768 features

Each is an artifact that was exported. FOLDER/answers.json has a row for each model, and its probabilities in float64.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from artifacts import Rows, make_artifact
from sklearn.datasets import load_digits

from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.model_factory import build_model

WIDE_FEATURES, WIDE_CLASSES, WIDE_ROWS = 768, 10, 2000


def digits_rows() -> Rows:
    """Return the digits data set in one order."""
    X, y = load_digits(return_X_y=True)
    return Rows(X.astype(np.float32), y, 10).shuffled(0)


def wide_rows() -> Rows:
    """Return random rows with the classes that random weights give them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((WIDE_ROWS, WIDE_FEATURES), dtype=np.float32)
    return Rows(X, (X @ rng.standard_normal((WIDE_FEATURES, WIDE_CLASSES))).argmax(axis=1), WIDE_CLASSES)


def learn(data: Rows) -> Artifact:
    """Return what the rule mixture learns in one pass from zero weights."""
    artifact = make_artifact(data, learning={"rule": "mixture"})
    state = LearnerState(artifact)
    state.fold_rows(data.X, data.y)
    return state.export_artifact(artifact.manifest.classes, {})


def random_head(data: Rows) -> Artifact:
    """Return a linear model with random weights, of the size that trained ones have."""
    rng, (N, K) = np.random.default_rng(1), (data.X.shape[1], data.n_classes)
    return make_artifact(data, rng.standard_normal((N, K)) / np.sqrt(N), rng.standard_normal(K))


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is replaced")
    folder = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    digits, wide = digits_rows(), wide_rows()
    models = {
        "digits": (learn(digits), digits.X[:1]),
        "wide-mixture": (learn(wide), wide.X[:1]),
        "wide": (random_head(wide), wide.X[:1]),
    }
    answers = {}
    for name, (artifact, row) in models.items():
        write_artifact(folder / "models" / name / "1", artifact)
        P = build_model(artifact).float64_model.predict(row.astype(np.float64))
        answers[name] = {"row": row.tolist(), "probabilities": P.tolist()}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
