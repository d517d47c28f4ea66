"""Train a hidden layer in front of a softmax head with Softstep's own gradients, as a scikit-learn estimator.

    loss         sum over rows of the cross-entropy + sum of all squared weights / (2 C), as in LogisticRegression
    rows         (x - mean) / scale, clipped to [-CLIP, CLIP]: the input stage of the artifact
    start        uniform in +-sqrt(6 / (inputs + outputs)) (Glorot & Bengio, AISTATS 2010), from a seed; biases 0
    descent      Adam (Kingma & Ba, ICLR 2015) on all rows at once, STEPS steps, its rate falling linearly to 0

Gradients are the kernels' (`NetworkModel.gradients`, float64), and everything else is done element by element. So the
same rows give the same bits on every processor. Probabilities are computed in plain NumPy; the tests compare the
service with them.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from service.softmax.kernels.network import LayerArrays
from service.softmax.network_model import NetworkModel

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# Chosen by the cross-validated log loss of digits at C = 10: clipped at 2, at 3 and not at all it is 0.0841, 0.0785 and
# 0.0828; after 400, 800 and 1,600 steps 0.0860, 0.0785 and 0.0769, each in twice the time.
CLIP = 3.0
STEPS = 800
RATE, DECAY, SQUARE_DECAY, EPSILON = 0.02, 0.9, 0.999, 1e-8


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
        rows, Y = self._input_stage(X), np.eye(len(self.classes_))[indices]
        sizes = X.shape[1], self.width, len(self.classes_)
        self.parts_ = _descend(_start(sizes, self.seed), lambda parts: _derivatives(parts, rows, Y, self.C))
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


def _start(sizes: tuple[int, int, int], seed: int) -> list[Floats]:
    """Return the initial weights and biases."""
    rng, parts = np.random.default_rng(seed), []
    for inputs, outputs in pairwise(sizes):
        reach = np.sqrt(6 / (inputs + outputs))
        parts += [rng.uniform(-reach, reach, (inputs, outputs)), np.zeros(outputs)]
    return parts


def _derivatives(parts: list[Floats], rows: Floats, Y: Floats, C: float) -> list[Floats]:
    """Return the derivatives of the loss for each of the parts."""
    W1, b1, W2, b2 = parts
    found = NetworkModel("softmax", (LayerArrays(W1, b1, "sigmoid"),), W2, b2).gradients(rows, Y)
    (dW1, db1), (dW2, db2) = found.layers
    return [dW1 + W1 / C, db1, dW2 + W2 / C, db2]


def _descend(parts: list[Floats], slopes: Callable[[list[Floats]], list[Floats]]) -> list[Floats]:
    """Take Adam's steps; powers of its decays are products, because a library's power may differ in the last bit."""
    means, squares = [np.zeros_like(part) for part in parts], [np.zeros_like(part) for part in parts]
    left, squares_left = 1.0, 1.0
    for step in range(STEPS):
        left, squares_left = left * DECAY, squares_left * SQUARE_DECAY
        rate = RATE * (1 - step / STEPS)
        updated = []
        for part, slope, mean, square in zip(parts, slopes(parts), means, squares, strict=True):
            mean += (1 - DECAY) * (slope - mean)  # noqa: PLW2901  # in place
            square += (1 - SQUARE_DECAY) * (slope * slope - square)  # noqa: PLW2901  # in place
            updated.append(part - rate * (mean / (1 - left)) / (np.sqrt(square / (1 - squares_left)) + EPSILON))
        parts = updated
    return parts
