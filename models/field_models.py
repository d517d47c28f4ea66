"""Train models with fields by scikit-learn; train.py calls `fit_fields`.

    .venv/bin/python models/field_models.py languages       prints the losses by which its C was chosen

The fields are made from the rows that are trained on, and the encoder of the service makes columns of the rows. So
nothing is written twice, once for training and once for serving. LogisticRegression is fitted over the columns that
occur; the others keep the weight 0.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import scipy.sparse
from field_data import FIELD_DATA, FieldData, Row
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from threadpoolctl import threadpool_limits

from service.fields.column_blocks import FieldLimits
from service.fields.field_list import Fields
from service.fields.row_encoder import RowEncoder
from service.store.artifact.artifact import Artifact

SEED = 1
HELD_OUT = 0.2
FOLDS = 3
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
# C, the inverse strength of the regularization, with the least loss of rows whose group was left out; of equals, the
# first. Training tries no others, because that takes minutes. The losses:
#   C           1       3       10      30      100     300     1000
#   languages   0.5147  0.4064  0.3478  0.3377  0.3658  0.4595  0.5278
CHOSEN = {"languages": 30.0}
EXAMPLES = 6

Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Prepared:
    """A data set, split and encoded.

    Attributes:
        data: The data set.
        train: The numbers of the rows that are trained on.
        test: The numbers of the rows that are held out.
        fields: The fields of the manifest.
        X: The columns of all rows, (B, N) float64.
    """

    data: FieldData
    train: Indices
    test: Indices
    fields: list[dict[str, Any]]
    X: scipy.sparse.csr_array

    @cached_property
    def occurring(self) -> Indices:
        """The columns that occur in the rows that are trained on."""
        return np.unique(self.X[self.train].indices).astype(np.intp)

    @cached_property
    def support(self) -> NDArray[np.float32]:
        """The sum of the squares of each column over the rows that are trained on, (N,)."""
        X = self.X[self.train]
        return np.asarray(X.multiply(X).sum(axis=0)).ravel().astype(np.float32)


@dataclass(frozen=True)
class FieldModel:
    """One trained model.

    Attributes:
        classifier: The fitted classifier of scikit-learn, over the columns `occurring`.
        occurring: The columns that occur in the rows that were trained on.
        rows: The held-out rows.
        y: Their labels.
        artifact: The artifact to serve.
    """

    classifier: LogisticRegression
    occurring: Indices
    rows: list[Row]
    y: NDArray[np.int64]
    artifact: Artifact


def prepare(name: str) -> Prepared:
    """Split and encode a data set of `CHOSEN`."""
    data = FIELD_DATA[name]()
    splitter = GroupShuffleSplit(1, test_size=HELD_OUT, random_state=SEED)
    train, test = next(splitter.split(data.rows, data.y, data.groups))
    fields = data.fields([data.rows[i] for i in train])
    return Prepared(data, train, test, fields, encode(fields, data.rows))


# A sum that is split over threads would vary with the number of processors.
@threadpool_limits.wrap(limits=1)
def fit_fields(name: str) -> FieldModel:
    """Train one model of `CHOSEN`."""
    prepared, C = prepare(name), CHOSEN[name]
    data, train, test, occurring = prepared.data, prepared.train, prepared.test, prepared.occurring
    classifier = _fit(prepared.X[train][:, occurring], data.y[train], C)
    P = classifier.predict_proba(prepared.X[test][:, occurring])
    weight = np.zeros((prepared.X.shape[1], len(data.classes)), np.float32)
    weight[occurring] = classifier.coef_.T
    tensors = {"weight": weight, "bias": classifier.intercept_.astype(np.float32), "support": prepared.support}
    manifest = {
        "head": "softmax",
        "classes": data.classes,
        "fields": prepared.fields,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {"rows": len(train), "support": "support"},
        "provenance": data.origin | _how(C),
        "metrics": _metrics(data.y[test], P),
        "examples": _examples(data, test, P),
    }
    held_out = [data.rows[i] for i in test]
    return FieldModel(classifier, occurring, held_out, data.y[test], Artifact.from_fields(manifest, tensors))


@threadpool_limits.wrap(limits=1)
def strength_losses(name: str) -> dict[float, float]:
    """Return for each of STRENGTHS the mean loss of training rows whose group was left out."""
    prepared = prepare(name)
    train = prepared.train
    X, y, groups = (some[train] for some in (prepared.X[:, prepared.occurring], prepared.data.y, prepared.data.groups))
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for fitted, left_out in GroupKFold(FOLDS).split(X, y, groups):
        for C in STRENGTHS:
            P = _fit(X[fitted], y[fitted], C).predict_proba(X[left_out])
            losses[C] += float(log_loss(y[left_out], P, labels=np.unique(y))) * len(left_out) / len(y)
    return losses


def _fit(X: scipy.sparse.csr_array, y: NDArray[np.int64], C: float) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=5000).fit(X, y)


def encode(fields: list[dict[str, Any]], rows: list[Row]) -> scipy.sparse.csr_array:
    """Return the columns of all rows (B, N) float64."""
    encoder = RowEncoder(TypeAdapter(Fields).validate_json(json.dumps(fields)), {}, FieldLimits())
    ends, columns, values = encoder.encode_objects(rows).rows
    starts = np.concatenate([[0], ends])
    return scipy.sparse.csr_array((values, columns, starts), shape=(len(rows), encoder.n_columns))


def _how(C: float) -> dict[str, str]:
    return {
        "split": f"{HELD_OUT:.0%} of the groups of rows held out, seed {SEED}",
        "trainer": f"LogisticRegression of scikit-learn {version('scikit-learn')}",
        "C": f"{C:g}",
        "script": "models/train.py",
    }


def _metrics(y: NDArray[np.int64], P: Doubles) -> dict[str, float]:
    """Return the metrics of the held-out rows to six digits: the last bits of a sum may vary between processors."""
    metrics = {"held_out_rows": len(y), "log_loss": log_loss(y, P), "accuracy": accuracy_score(y, P.argmax(axis=1))}
    return {name: round(float(value), 6) for name, value in metrics.items()}


def _examples(data: FieldData, test: Indices, P: Doubles) -> list[dict[str, Any]]:
    """Return some held-out rows with the probabilities of scikit-learn: those with gaps, then one of each class."""
    rows, y = [data.rows[i] for i in test], data.y[test]
    earlier = [int((y[:i] == label).sum()) for i, label in enumerate(y)]
    order = sorted(range(len(rows)), key=lambda i: (None not in rows[i].values(), earlier[i]))
    return [{"row": rows[i], "probabilities": [round(float(p), 6) for p in P[i]]} for i in order[:EXAMPLES]]


def main() -> None:
    """Print the losses by C of one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(CHOSEN))
    name = parser.parse_args().name
    print(name, ", ".join(f"{C:g}: {loss:.4f}" for C, loss in strength_losses(name).items()))


if __name__ == "__main__":
    main()
