"""Random training rows of every head, as blocks, and the objective in plain NumPy."""

from typing import Any, NamedTuple

import numpy as np

from service.softmax.classifier import Head
from service.softmax.kernels.network import LayerArrays
from service.softmax.row_blocks import MemoryBlocks
from service.softmax.sparse_rows import SparseRows


class Problem(NamedTuple):
    """Rows X (B, N) float32 with labels and weights, and the head and number of classes that they are for."""

    X: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    head: Head
    n_classes: int

    def dense(self) -> MemoryBlocks:
        """Return the rows as a matrix."""
        return MemoryBlocks(self.X, self.labels, self.weights)

    def sparse(self) -> MemoryBlocks:
        """Return the entries of the rows that are not 0."""
        return MemoryBlocks(sparse_entries(self.X), self.labels, self.weights, self.X.shape[1])


def sparse_entries(X: np.ndarray) -> SparseRows:
    """Return the entries of a matrix that are not 0."""
    rows, columns = np.nonzero(X)
    ends = np.cumsum(np.bincount(rows, minlength=len(X)))
    return SparseRows(ends.astype(np.int64), columns.astype(np.int32), X[rows, columns])


def draw_problem(seed: int, head: Head, n_classes: int, n_rows: int, n_columns: int, *, kept: float = 1.0) -> Problem:
    """Return random rows of which a part of the values is kept, with labels that depend on them, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < kept)
    K = 1 if head == "sigmoid" else n_classes
    Z = X @ rng.normal(size=(n_columns, K)) + 2 * rng.gumbel(size=(n_rows, K))
    labels = Z.argmax(axis=1) if head == "softmax" else (Z > 0).astype(np.int64)
    labels = labels[:, 0] if head == "sigmoid" else labels
    return Problem(X.astype(np.float32), labels, rng.random(n_rows) + 0.1, head, n_classes)


def plain_objective(
    problem: Problem, weights: np.ndarray, bias: np.ndarray, C: float, hidden: tuple[LayerArrays, ...] = ()
) -> float:
    """Return the sum of weighted losses and the squared weights / (2 C), in plain NumPy."""
    A: Any = problem.X.astype(np.float64)
    squares = float((weights**2).sum())
    for layer in hidden:
        Z = A @ layer.weights + layer.bias
        A = {"relu": lambda Z: np.maximum(Z, 0), "tanh": np.tanh, "sigmoid": lambda Z: 1 / (1 + np.exp(-Z))}[
            layer.activation
        ](Z)
        squares += float((layer.weights**2).sum())
    Z = A @ weights + bias
    if problem.head == "softmax":
        shifted = Z - Z.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(Z)), problem.labels]
    else:
        losses = (np.logaddexp(0, Z) - problem.labels.reshape(Z.shape) * Z).sum(axis=1)
    return float(problem.weights @ losses + squares / (2 * C))
