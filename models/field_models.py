"""Train models with fields; train.py calls `fit_fields`.

The fields are made from the rows that are trained on, and the encoder of the service makes columns of the rows. So
nothing is written twice, once for training and once for serving. LogisticRegression is fitted over the columns that
occur; the others keep the weight 0.
"""

import json
from dataclasses import dataclass
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
from service.fields.field_records import Fields
from service.fields.row_encoder import RowEncoder
from service.store.artifact.artifact import Artifact

SEED = 1
HELD_OUT = 0.2
FOLDS = 3
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
EXAMPLES = 4

Doubles = NDArray[np.float64]


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
    occurring: NDArray[np.int64]
    rows: list[Row]
    y: NDArray[np.int64]
    artifact: Artifact


# A sum that is split over threads would vary with the number of processors.
@threadpool_limits.wrap(limits=1)
def fit_fields(name: str) -> FieldModel:
    """Train one model of `FIELD_DATA`."""
    data = FIELD_DATA[name]()
    train, test = next(
        GroupShuffleSplit(1, test_size=HELD_OUT, random_state=SEED).split(data.rows, data.y, data.groups)
    )
    fields = data.fields([data.rows[i] for i in train])
    X = _encode(fields, data.rows)
    occurring = np.unique(X[train].indices).astype(np.int64)
    known = X[:, occurring]
    C = _pick_strength(known[train], data.y[train], data.groups[train])
    classifier = LogisticRegression(C=C, max_iter=5000).fit(known[train], data.y[train])
    P = classifier.predict_proba(known[test])
    shape = (X.shape[1], len(data.classes))
    weight = np.zeros(shape, np.float32)
    weight[occurring] = classifier.coef_.T
    tensors = {
        "weight": weight,
        "bias": classifier.intercept_.astype(np.float32),
        "support": np.asarray(X[train].multiply(X[train]).sum(axis=0)).ravel().astype(np.float32),
    }
    manifest = {
        "head": "softmax",
        "classes": data.classes,
        "fields": fields,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {"rows": len(train), "support": "support"},
        "provenance": data.origin | _how(C),
        "metrics": _metrics(data.y[test], P),
        "examples": _examples(data, test, P),
    }
    held_out = [data.rows[i] for i in test]
    return FieldModel(classifier, occurring, held_out, data.y[test], Artifact.from_fields(manifest, tensors))


def _encode(fields: list[dict[str, Any]], rows: list[Row]) -> scipy.sparse.csr_array:
    """Return the columns of all rows (B, N) float64."""
    encoder = RowEncoder(TypeAdapter(Fields).validate_json(json.dumps(fields)), {}, FieldLimits())
    ends, columns, values = encoder.encode_objects(rows).rows
    starts = np.concatenate([[0], ends])
    return scipy.sparse.csr_array((values, columns, starts), shape=(len(rows), encoder.n_columns))


def _pick_strength(X: scipy.sparse.csr_array, y: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
    """Return the inverse strength of the regularization with the least loss of rows whose group was left out."""

    def loss(C: float) -> float:
        losses = []
        for train, test in GroupKFold(FOLDS).split(X, y, groups):
            P = LogisticRegression(C=C, max_iter=5000).fit(X[train], y[train]).predict_proba(X[test])
            losses.append(float(log_loss(y[test], P, labels=np.unique(y))))
        return sum(losses)

    return min(STRENGTHS, key=loss)


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


def _examples(data: FieldData, test: NDArray[np.int64], P: Doubles) -> list[dict[str, Any]]:
    """Return some held-out rows with the probabilities of scikit-learn, first those with gaps."""
    numbers = sorted(range(len(test)), key=lambda number: None not in data.rows[test[number]].values())
    return [
        {"row": data.rows[test[number]], "probabilities": [round(float(p), 6) for p in P[number]]}
        for number in numbers[:EXAMPLES]
    ]
