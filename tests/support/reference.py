"""Reference implementations of the kernels in NumPy's float64 and longdouble, and exact rounding of single operations.

They follow the textbook formulas without vectors, tiles or blocks. `Z` (B, K) are logits and `Y` (B, K) targets, as in
service/softmax/kernels/loss.py.
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
    # The float32 of a rounded float64 may be one step off; the right one is it or an adjacent float.
    middle = np.float32(double)
    near = [middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))]
    return min(near, key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.uint32)) & 1))


def linear_in_order(X: Array, W: Array, b: Array) -> Array:
    """Return X W + b by fused multiply-adds in the order bias, feature 0, 1, ...: each exact, then rounded once."""
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
    """Return X W + b in longdouble."""
    return X.astype(np.longdouble) @ W.astype(np.longdouble) + b


def stage(X: Array, mean: Array, scale: Array, clip: float | None = None) -> Array:
    """Return clip((X - mean) / scale) in float64."""
    staged = (X.astype(np.float64) - mean) / scale
    return staged if clip is None else np.clip(staged, -clip, clip)


def softplus(Z: Array) -> Array:
    """Return ln(1 + e**z) without overflow."""
    return np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))


def log_softmax(Z: Array) -> Array:
    """Return the logarithms of the softmax of each row."""
    shifted = Z - Z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_probabilities(head: str, Z: Array) -> Array:
    """Return the logarithms of the probabilities of a head, in longdouble: (B, 2) for sigmoid, else (B, K)."""
    Z = Z.astype(np.longdouble)
    if head == "softmax":
        return log_softmax(Z)
    if head == "sigmoid":
        return np.hstack([-softplus(Z), Z - softplus(Z)])
    log_sigma = np.minimum(Z, 0) - np.log1p(np.exp(-np.abs(Z)))
    return log_sigma if head == "multilabel" else log_softmax(log_sigma)


def probabilities(head: str, Z: Array) -> Array:
    """Return the probabilities of a head, in longdouble."""
    return np.exp(log_probabilities(head, Z))


def losses(head: str, Z: Array, Y: Array) -> Array:
    """Return the training loss (B,) in longdouble: cross-entropy for softmax, else summed binary cross-entropies."""
    Z = Z.astype(np.longdouble)
    if head == "softmax":
        return -(Y * log_softmax(Z)).sum(axis=1)
    return (softplus(Z) - Y * Z).sum(axis=1)


def logit_gradient(head: str, Z: Array, Y: Array) -> Array:
    """Return the derivative (B, K) of the losses with respect to Z, in longdouble."""
    if head == "softmax":
        return probabilities("softmax", Z) * Y.sum(axis=1, keepdims=True) - Y
    return probabilities("multilabel", Z) - Y


def targets(head: str, kind: str, rows: int, K: int, rng: np.random.Generator) -> Array:
    """Return targets (rows, K) float64: "hard" classes or labels, "soft" ones, or "any" with any sum."""
    if kind == "any":
        return rng.uniform(0, 2, (rows, K))
    if head == "softmax":
        return np.eye(K)[rng.integers(0, K, rows)] if kind == "hard" else rng.dirichlet(np.ones(K), rows)
    return rng.integers(0, 2, (rows, K)).astype(np.float64) if kind == "hard" else rng.uniform(0, 1, (rows, K))


class ReferenceFold:
    """A reference implementation of the fold in float64, one row at a time, with full matrices.

    Args:
        rule: A service.softmax.parameters.Rule. FTRL keeps z and n instead of its weights.
        own: (mean, scale, clip) of the fixed stage of the trained weights, or None.
        learned: (mean, scale, clip) of the fixed stage of the learned weights, or None.
    """

    def __init__(self, head: str, rule: Any, form: str, *, weights: Array, bias: Array, own: Any, learned: Any) -> None:
        self.head, self.rule, self.form, self.own, self.learned = head, rule, form, own, learned
        N, K = weights.shape
        self.base = weights.astype(np.float64)
        first = self.base if form == "plain" else np.zeros((N, K))
        self.W = np.vstack([bias, first]).astype(np.float64)
        self.G = np.full((N + 1, K), rule.start)
        self.Z = -self.W * (rule.offset + np.sqrt(self.G)) / rule.rate
        self.P = np.stack([np.eye(N + 1) * rule.start] * K)
        self.count, self.mean, self.squares = 0, np.zeros(N), np.zeros(N)
        self.rate, self.regret = rule.rate, 0.0

    def staged(self, x: Array) -> tuple[Array, Array]:
        """Return the fixed part of the logits, and the learned features with a 1 for the bias first."""
        shown = x if self.own is None else stage(x[None], *self.own)[0]
        fixed = np.zeros(self.W.shape[1])
        if self.form == "running":
            variance = self.squares / max(self.count, 1)
            known = variance > 2.0**-40 * self.mean**2
            shown = np.where(known, (x - self.mean) / np.sqrt(np.where(known, variance, 1)), 0)
            shown = np.clip(shown, -self.rule.clip, self.rule.clip)
        if self.form == "delta":
            fixed, shown = shown @ self.base, stage(x[None], *self.learned)[0]
        return fixed, np.concatenate([[1.0], shown])

    def row(self, x: Array, y: Array, h: float) -> float:
        """Score the row, take a step, update the statistics, and return the reported loss."""
        fixed, v = self.staged(x.astype(np.float64))
        Z = (fixed + v @ self.W)[None]
        loss = -(y * log_probabilities("ovr", Z)).sum() if self.head == "ovr" else losses(self.head, Z, y[None])[0]
        p = np.asarray(probabilities("softmax" if self.head == "softmax" else "multilabel", Z)[0], np.float64)
        self.limit_regret(float(loss), y)
        self.step(v, logit_gradient(self.head, Z, y[None])[0].astype(np.float64), p, h)
        if self.form == "running":
            self.count += 1
            off = x - self.mean
            self.mean = self.mean + off / self.count
            self.squares = self.squares + off * (x - self.mean)
        return float(loss)

    def limit_regret(self, loss: float, y: Array) -> None:
        """Set the rate and shrink the weights by the regret of the rows before, then count this row's."""
        if self.rule.regret == 0:
            return
        K = self.W.shape[1]
        uniform = {"sigmoid": np.log(2), "multilabel": K * np.log(2)}.get(self.head, np.log(K))
        share = min(max(self.regret, 0) / (self.rule.regret * uniform), 1)
        self.rate = self.rule.rate * max(1 - share, 0.1)
        self.W[1:] *= 1 - 0.02 * share
        self.Z = -self.W * (self.rule.offset + np.sqrt(self.G)) / self.rate
        mass = y.sum() if self.head in {"softmax", "ovr"} else 1
        self.regret = min(self.regret + loss - mass * uniform, self.rule.regret * uniform)

    def step(self, v: Array, e: Array, p: Array, h: float) -> None:
        """Take one step by the rule, scaled so that no logit of the row changes by more than the clip."""
        rule, before = self.rule, self.W
        after = getattr(self, rule.name)(v, e, p, h)
        change = np.abs(v @ (after - before)).max()
        factor = 1 if change <= rule.step_clip else rule.step_clip / change
        self.W = before + factor * (after - before)
        self.Z = -self.W * (rule.offset + np.sqrt(self.G)) / self.rate
        self.G = (1 - rule.forget) * self.G + rule.forget * rule.start
        if rule.name == "ftrl":  # the decay of n moves no weight
            self.Z = -self.W * (rule.offset + np.sqrt(self.G)) / self.rate

    def sgd(self, v: Array, e: Array, _p: Array, h: float) -> Array:
        """Return W - rate x^T e."""
        return self.W - self.rate * h * np.outer(v, e)

    def adagrad(self, v: Array, e: Array, _p: Array, h: float) -> Array:
        """Return W - rate g / (epsilon + sqrt(G))."""
        g = h * np.outer(v, e)
        self.G = self.G + g**2
        return self.W - self.rate * g / (self.rule.offset + np.sqrt(self.G))

    def ftrl(self, v: Array, e: Array, _p: Array, h: float) -> Array:
        """Return the step of FTRL-Proximal as published, with z and n, without l1 and l2."""
        g, rate = h * np.outer(v, e), self.rate
        sigma = (np.sqrt(self.G + g**2) - np.sqrt(self.G)) / rate
        self.Z = self.Z + g - sigma * self.W
        self.G = self.G + g**2
        return -self.Z / ((self.rule.offset + np.sqrt(self.G)) / rate)

    def newton(self, v: Array, e: Array, p: Array, h: float) -> Array:
        """Return the block-diagonal online Newton step, with full matrices."""
        rule, after = self.rule, self.W.copy()
        for k in range(self.W.shape[1]):
            w = h * max(p[k] * (1 - p[k]), rule.floor, rule.pull * abs(e[k]))
            u = self.P[k] @ v
            self.P[k] -= np.outer(u, u) / (1 / w + v @ u)
            after[:, k] -= self.rate * self.P[k] @ v * h * e[k]
            part = min(rule.forget * (1 + rule.surprise * e[k] ** 4), 0.5)
            self.P[k] = (1 - part) * self.P[k] + part * rule.start * np.eye(len(v))
        return after
