"""Streams of rows that are drawn from one distribution, from no signal to a clear one."""

from typing import Any, NamedTuple

import numpy as np

from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import OLDEST_FOLD_VERSION
from service.store.artifact.learning_rules import default_rule
from tests.support.reference import Array

ROWS = 4000


class StationaryStream(NamedTuple):
    """The distribution that the rows of a stream are drawn from.

    Attributes:
        N: The number of features.
        C: The number of classes.
        signal: The standard deviation of the true logits; 0 if labels do not depend on rows.
        features: "independent", "correlated" (eight common factors and some noise), "common" (one common factor),
            "heavy" (Student's t with two degrees of freedom) or "sparse" (1 in a twentieth of the rows, else 0).
        scale: Of all features; 0 draws one for each feature, from 1e-6 to 1e6.
        imbalance: Each class has a true logit that is lower by this than that of the class before.
        seed: Of the random numbers.
    """

    N: int
    C: int
    signal: float
    features: str = "independent"
    scale: float = 1.0
    imbalance: float = 0.0
    seed: int = 0


def draw_rows(stream: StationaryStream) -> tuple[Array, Array]:
    """Return rows (ROWS, N) float32 and labels (ROWS,) of a stream."""
    rng, N = np.random.default_rng(stream.seed), stream.N
    X = draw_features(rng, stream.features, N)
    deviation = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    logits = Z @ rng.standard_normal((N, stream.C), np.float32)
    logits = logits * (stream.signal / max(float(logits.std()), 1e-12)) - stream.imbalance * np.arange(stream.C)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    scale = 10.0 ** rng.uniform(-6, 6, N) if stream.scale == 0 else stream.scale
    return np.ascontiguousarray(X * scale, np.float32), labels


def draw_features(rng: np.random.Generator, kind: str, N: int) -> Array:
    """Return features (ROWS, N) of one kind."""
    if kind == "heavy":
        return rng.standard_t(2, (ROWS, N)).astype(np.float32)
    if kind == "sparse":
        return (rng.random((ROWS, N), np.float32) < 1 / 20).astype(np.float32)
    X = rng.standard_normal((ROWS, N), np.float32)
    if kind == "independent":
        return X
    factors = 8 if kind == "correlated" else 1
    return rng.standard_normal((ROWS, factors), np.float32) @ rng.standard_normal((factors, N), np.float32) + 0.3 * X


def make_artifact(stream: StationaryStream, **learning: Any) -> Artifact:
    """Return a model of zero weights for a stream, with a rule and constants, or with the defaults."""
    K = 1 if stream.C == 2 else stream.C  # two classes have one logit
    fields: dict[str, Any] = {
        "head": "sigmoid" if K == 1 else "softmax",
        "classes": [str(k) for k in range(stream.C)],
        "features": stream.N,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
    }
    tensors = {"weight": np.zeros((stream.N, K), np.float32), "bias": np.zeros(K, np.float32)}
    return Artifact.from_fields(fields | ({"learning": learning} if learning else {}), tensors)


def linear_rule(stream: StationaryStream) -> str:
    """Return the default rule from zero weights of heads that no mixture is for, for a model of this size."""
    return default_rule(make_artifact(stream), OLDEST_FOLD_VERSION)


def loss_to_uniform(stream: StationaryStream, **learning: Any) -> float:
    """Return the mean progressive loss from zero weights, divided by that of a uniform guess.

    Args:
        stream: The stream.
        learning: As for `make_artifact`.
    """
    X, labels = draw_rows(stream)
    losses = LearnerState(make_artifact(stream, **learning)).fold_rows(X, labels)
    return float(losses.mean() / np.log(stream.C))
