"""Random sparse rows and weights, and the fold of sparse rows in NumPy's float32."""

from typing import Any

import numpy as np

from service.softmax.linear_model import LinearModel
from service.softmax.rule import Rule
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from tests.support.reference import Array, logit_gradient, targets

SPARSE_RULES = {
    "sgd": Rule("sgd", rate=0.05),
    "adagrad": Rule("adagrad", rate=0.3, offset=1e-8, forget=1e-3, start=0.5, step_clip=8.0),
    "ftrl": Rule("ftrl", rate=0.3, offset=1.0, forget=1e-3, start=0.5, step_clip=8.0),
}


def random_rows(rng: np.random.Generator, B: int, N: int, present: float = 0.3, dtype: Any = np.float32) -> SparseRows:
    """Return B rows in which each of N columns is present with a probability."""
    X = (rng.standard_normal((B, N)) * (rng.random((B, N)) < present)).astype(dtype)
    return rows_of_matrix(X)


def rows_of_matrix(X: Array) -> SparseRows:
    """Return the entries of a matrix that are not 0."""
    rows, columns = np.nonzero(X)
    ends = np.cumsum(np.bincount(rows, minlength=len(X))).astype(np.int64)
    return SparseRows(ends, columns.astype(np.int32), X[rows, columns])


def random_weights(rng: np.random.Generator, N: int, K: int, *, changes: int = 0) -> SparseWeights:
    """Return weights of N columns and K logits, some of whose rows are in a table of changes."""
    weights = SparseWeights.from_matrix(normal(rng, N, K), normal(rng, K))
    if not changes:
        return weights
    columns = np.sort(rng.choice(N, min(changes, N), replace=False)).astype(np.int32)
    return weights.with_changes(columns, normal(rng, len(columns), K), normal(rng, K))


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Return standard normal float32 numbers of many sizes."""
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-6, 2, shape))).astype(np.float32)


def dense_model(model: SparseModel) -> LinearModel:
    """Return the linear model of the same weights, without a calibration."""
    weights, bias = (array.astype(model.dtype) for array in model.weights.to_matrix())
    return LinearModel(model.head, weights, bias)


class SparseCase:
    """A sparse model of one head and rule with random weights, and rows with targets."""

    def __init__(
        self, head: str, rule: Rule, *, N: int = 12, K: int = 3, B: int = 40, seed: int = 0, kind: str = "hard",
        firm: bool = False,
    ) -> None:  # fmt: skip
        rng, K = np.random.default_rng(seed), 1 if head == "sigmoid" else K
        self.head, self.rule, self.N, self.K, self.B = head, rule, N, K, B
        self.weights, self.bias = normal(rng, N, K), normal(rng, K)
        self.rows = random_rows(rng, B, N)
        self.Y = targets(head, kind, B, K, rng)
        self.h = rng.uniform(0.2, 3, B)
        self.first = rng.uniform(0, 2, N + 1) if firm else None

    def learner(self) -> SparseLearner:
        """Return the learner."""
        start = SparseParameters(self.head, SparseWeights.from_matrix(self.weights, self.bias))  # type: ignore[arg-type]
        return SparseLearner(start, self.rule, np.full(self.K, 0.5), self.first)

    def reference(self) -> "SparseReference":
        """Return the reference implementation of the learner."""
        return SparseReference(self.head, self.rule, np.vstack([self.bias, self.weights]), self.first)


class SparseReference:
    """The fold in float32, row by row, as the formulas are written: W and G (N + 1, K) of which a row touches a part.

    Args:
        head: The head's name.
        rule: The rule.
        W: The first weights, the bias in row 0.
        first: (N + 1,) the first G of each row, or None for `rule.start`.
    """

    def __init__(self, head: str, rule: Rule, W: Array, first: Array | None) -> None:
        self.head, self.rule, self.W = head, rule, W.astype(np.float32)
        begin = np.full(len(W), rule.start) if first is None else first
        self.first = np.repeat(begin.astype(np.float32)[:, None], W.shape[1], axis=1)
        self.G, self.regret = self.first.copy(), 0.0

    def logits(self, columns: Array, values: Array) -> Array:
        """Return the logits (1, K) of a row."""
        z = self.W[0].copy()
        for column, value in zip(columns, values, strict=True):
            z += value * self.W[column + 1]
        return z[None]

    def step(self, columns: Array, values: Array, e: Array, share: float = 0.0) -> None:
        """Take a step with the errors e (K,), in float32; `share` is the regret's part of its limit."""
        rule, single = self.rule, np.float32
        at, x = np.concatenate([[0], columns + 1]), np.concatenate([[1], values]).astype(single)
        rate = single(rule.rate * max(1 - share, 0.1))
        g = x[:, None] * e.astype(single)
        moved = rate * g
        if rule.name != "sgd":
            G = self.G[at] + g * g
            moved /= single(rule.offset) + np.sqrt(G)
            self.G[at] = G * single(1 - rule.forget) + single(rule.forget) * self.first[at]
        change = np.abs((x[:, None] * moved).sum(axis=0)).max()
        factor = single(1 if change <= rule.step_clip else rule.step_clip / change)
        self.W[at[1:]] *= single(1 - 0.02 * share)
        self.W[at] -= factor * moved

    def row(self, columns: Array, values: Array, y: Array, h: float, loss: float) -> None:
        """Learn from a row, given its loss."""
        share, limit = 0.0, 0.0
        if self.rule.regret:
            K = self.W.shape[1]
            uniform = {"sigmoid": np.log(2), "multilabel": K * np.log(2)}.get(self.head, np.log(K))
            limit = self.rule.regret * uniform
            share = min(max(self.regret, 0) / limit, 1)
            mass = y.sum() if self.head in {"softmax", "ovr"} else 1
            self.regret = min(self.regret + loss - mass * uniform, limit)
        e = h * logit_gradient(self.head, self.logits(columns, values), y[None])[0].astype(np.float64)
        self.step(columns, values, e, share)
