"""Train a hidden layer in front of a softmax head with the service's own solver, as a scikit-learn estimator.

    loss         sum over rows of the cross-entropy + sum of all squared weights / (2 C), as in LogisticRegression
    rows         (x - mean) / scale, clipped to [-CLIP, CLIP]: the input stage of the artifact
    solver       `fit` of service/softmax/fitting.py: L-BFGS in float64

So the same rows give the same bits on every processor. Probabilities are computed in plain NumPy; the tests compare the
service with them.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from service.softmax.fitting import fit
from service.softmax.row_blocks import MemoryBlocks

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CLIP = 3.0
# The held-out loss no longer falls after some 200 steps.
STEPS_MAX = 400
TOLERANCE = 1e-5


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """One hidden layer of sigmoids in front of a softmax head.

    Args:
        C: The inverse strength of the regularization.
        width: The number of sigmoids.
        seed: The seed of the initial weights.

    Attributes:
        classes_: The labels, ascending.
        mean_: The mean of each feature, (N,).
        scale_: The population standard deviation of each feature, (N,); 1 for a constant feature.
        rows_: The number of training rows.
        parts_: Weights (N, width) and bias (width,) of the hidden layer, then weights (width, K) and bias (K,).
    """

    def __init__(self, C: float = 1.0, width: int = 32, seed: int = 0) -> None:
        self.C = C
        self.width = width
        self.seed = seed

    def fit(self, X: Floats, y: Labels) -> "NetworkClassifier":
        """Train on rows (B, N) with labels (B,)."""
        self.classes_, indices = np.unique(y, return_inverse=True)
        self.rows_ = len(X)
        self.mean_, self.scale_ = _statistics(X)
        fitted = fit(
            MemoryBlocks(self._input_stage(X).astype(np.float32), indices), "softmax", len(self.classes_), self.C,
            hidden=(self.width,), activation="sigmoid", seed=self.seed, tolerance=TOLERANCE, iterations_max=STEPS_MAX,
        )  # fmt: skip
        (hidden,) = fitted.hidden
        self.parts_ = [hidden.weights, hidden.bias, fitted.weights, fitted.bias]
        return self

    def predict_proba(self, X: Floats) -> Floats:
        """Return the probabilities (B, K) of raw rows (B, N)."""
        W1, b1, W2, b2 = self.parts_
        Z = (1 / (1 + np.exp(-(self._input_stage(X) @ W1 + b1)))) @ W2 + b2
        powers = np.exp(Z - Z.max(axis=1, keepdims=True))
        P: Floats = powers / powers.sum(axis=1, keepdims=True)
        return P

    def predict(self, X: Floats) -> Labels:
        """Return the most probable labels (B,) of raw rows (B, N)."""
        found: Labels = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return found

    def fields(self) -> dict[str, object]:
        """Return the fields of a manifest that describe this network."""
        statistics = {"mean": self.mean_.tolist(), "scale": self.scale_.tolist()}
        return {
            "layers": [
                {"weight": "hidden.weight", "bias": "hidden.bias", "activation": "sigmoid"},
                {"weight": "weight", "bias": "bias", "activation": "identity"},
            ],
            "stage": {**statistics, "clip": CLIP},
            "training": {"rows": self.rows_, **statistics},
        }

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return the tensors of these fields, rounded to float32."""
        names = ("hidden.weight", "hidden.bias", "weight", "bias")
        return {name: part.astype(np.float32) for name, part in zip(names, self.parts_, strict=True)}

    def _input_stage(self, X: Floats) -> Floats:
        rows: Floats = np.clip((X - self.mean_) / self.scale_, -CLIP, CLIP)
        return rows


def _statistics(X: Floats) -> tuple[Floats, Floats]:
    """Return mean and population standard deviation.

    Sums of whole numbers are exact, and so do not depend on the order.
    """
    mean = X.sum(axis=0) / len(X)
    variance = (X * X).sum(axis=0) / len(X) - mean * mean
    return mean, np.where(variance > 0, np.sqrt(np.maximum(variance, 0)), 1.0)
