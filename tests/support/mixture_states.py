"""States that learn by the rule mixture, and rows for them."""

from typing import Any

import numpy as np

from service.learn.state import LearnerState
from service.softmax.arrays import Floats, Integers
from service.softmax.classifier import Classifier
from service.store.artifact.artifact import Artifact

N, ROWS = 6, 260
CLASSES = {"softmax": ["a", "b", "c"], "sigmoid": ["no", "yes"]}


def make_artifact(
    head: str = "softmax", *, rule: str = "mixture", dtype: str = "float32", n_features: int = N, **fields: Any
) -> Artifact:
    """Return a model with weights of 0 that learns by a rule."""
    outputs = 1 if head == "sigmoid" else len(CLASSES[head])
    constants = {"features": 64} if rule == "mixture" else {}
    document: dict[str, object] = {
        "head": head,
        "classes": CLASSES[head],
        "features": n_features,
        "dtype": dtype,
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "learning": {"rule": rule, "constants": constants},
        **fields,
    }
    return Artifact.from_fields(
        document, {"weight": np.zeros((n_features, outputs), dtype), "bias": np.zeros(outputs, dtype)}
    )


def make_rows(head: str = "softmax", dtype: str = "float32", n_features: int = N) -> tuple[Floats, Integers]:
    """Return rows whose classes no linear model tells apart."""
    random = np.random.RandomState(7)
    X = random.randn(ROWS, n_features).astype(dtype)
    radius = (X[:, :2] ** 2).sum(axis=1)
    labels = np.digitize(radius, [0.8, 2.2]) if head == "softmax" else radius > 1.4
    return np.ascontiguousarray(X), labels.astype(np.int64)


def learned_mixture(
    head: str = "softmax", *, dtype: str = "float32", n_features: int = N, has_offset: bool = False
) -> Classifier:
    """Return a mixture that has learned; with an offset that FTRL has learned before."""
    X, labels = make_rows(head, dtype, n_features)
    rule = "ftrl" if has_offset else "mixture"
    state = LearnerState(make_artifact(head, rule=rule, dtype=dtype, n_features=n_features))
    state.fold_rows(X[:120], labels[:120])
    if has_offset:
        state.configure({"rule": "mixture", "constants": {"features": 64}})
        state.fold_rows(X[120:], labels[120:])
    return state.served_parameters().build_model()
