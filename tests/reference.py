"""Plain twins of the kernels, in NumPy's float64 and longdouble, and exact rounding for single operations.

They follow the textbook formulas of DESIGN and know nothing of vectors, tiles or blocks: what the service computes
fast is held to these. `Z` (B, K) are logits, `Y` (B, K) targets, as in service/softmax/loss.py.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HEADS = ("softmax", "sigmoid", "multilabel", "ovr")
DTYPES = (np.float32, np.float64)


def nearest(value: Fraction, dtype: type[np.floating]) -> np.floating:
    """Round an exact number to the nearest finite float of a dtype, ties to the even mantissa."""
    double = float(value)  # Python divides integers exactly rounded
    if dtype is np.float64:
        return np.float64(double)
    # The float32 of a rounded float64 may be one step off; the right one is it or a neighbour.
    middle = np.float32(double)
    near = [middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))]
    return min(near, key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.uint32)) & 1))


def linear_in_order(X: Array, W: Array, b: Array) -> Array:
    """Z = X W + b by fused multiply-adds in the order bias, feature 0, 1, ...: each exact, then rounded once."""
    dtype = W.dtype.type
    Z = np.empty((len(X), W.shape[1]), dtype)
    for i, x in enumerate(X):
        for k in range(W.shape[1]):
            z = b[k]
            for j in range(W.shape[0]):
                z = nearest(Fraction(float(x[j])) * Fraction(float(W[j, k])) + Fraction(float(z)), dtype)
            Z[i, k] = z
    return Z


def linear(X: Array, W: Array, b: Array) -> Array:
    """Z = X W + b in longdouble."""
    return X.astype(np.longdouble) @ W.astype(np.longdouble) + b


def stage(X: Array, mean: Array, scale: Array, clip: float | None = None) -> Array:
    """clip((X - mean) / scale) in float64."""
    staged = (X.astype(np.float64) - mean) / scale
    return staged if clip is None else np.clip(staged, -clip, clip)


def softplus(Z: Array) -> Array:
    """ln(1 + e**z), without overflow."""
    return np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))


def log_softmax(Z: Array) -> Array:
    """Logarithms of the softmax of each row."""
    shifted = Z - Z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_probabilities(head: str, Z: Array) -> Array:
    """Logarithms of what a head answers, in longdouble: (B, 2) for the sigmoid head, else (B, K)."""
    Z = Z.astype(np.longdouble)
    if head == "softmax":
        return log_softmax(Z)
    if head == "sigmoid":
        return np.hstack([-softplus(Z), Z - softplus(Z)])
    log_sigma = np.minimum(Z, 0) - np.log1p(np.exp(-np.abs(Z)))
    return log_sigma if head == "multilabel" else log_softmax(log_sigma)


def probabilities(head: str, Z: Array) -> Array:
    """What a head answers for logits, in longdouble."""
    return np.exp(log_probabilities(head, Z))


def losses(head: str, Z: Array, Y: Array) -> Array:
    """The training loss (B,) in longdouble: cross-entropy for softmax, else the sum of binary cross-entropies."""
    Z = Z.astype(np.longdouble)
    if head == "softmax":
        return -(Y * log_softmax(Z)).sum(axis=1)
    return (softplus(Z) - Y * Z).sum(axis=1)


def logit_gradient(head: str, Z: Array, Y: Array) -> Array:
    """The derivative (B, K) of the losses with respect to Z, in longdouble."""
    if head == "softmax":
        return probabilities("softmax", Z) * Y.sum(axis=1, keepdims=True) - Y
    return probabilities("multilabel", Z) - Y


def targets(head: str, kind: str, rows: int, K: int, rng: np.random.Generator) -> Array:
    """Targets (rows, K) float64: "hard" classes or labels, "soft" ones, or "any" that need not sum to one."""
    if kind == "any":
        return rng.uniform(0, 2, (rows, K))
    if head == "softmax":
        return np.eye(K)[rng.integers(0, K, rows)] if kind == "hard" else rng.dirichlet(np.ones(K), rows)
    return rng.integers(0, 2, (rows, K)).astype(np.float64) if kind == "hard" else rng.uniform(0, 1, (rows, K))
