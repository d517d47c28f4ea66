"""The training objective of a linear model over blocks of rows, and its gradient.

    J = (sum over rows of w_i L(z_i, y_i) + |W|^2 / (2 C)) / sum of w_i,    z_i = x_i W + b

L is the cross-entropy of the head (kernels/loss.py). |W|^2 is the sum of all squared weights, without the bias. The
softmax head has K columns of weights, although K - 1 would do; the penalty makes them unique. So J times the sum of
weights is the objective of scikit-learn's LogisticRegression. J is a mean, so that a bound on its gradient means the
same for any number of rows.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.block_sums import kernel_labels, sum_blocks, sum_labels
from service.softmax.classifier import HEADS, Head
from service.softmax.kernels.column_squares import dense_squares, sparse_squares
from service.softmax.kernels.network import LayerArrays
from service.softmax.kernels.objective import OUT_OF_RANGE, dense_objective, sparse_objective
from service.softmax.kernels.row_tiles import LANES
from service.softmax.kernels.vector_sums import dot
from service.softmax.row_blocks import RowBlock, RowBlocks
from service.softmax.sparse_rows import SparseRows

OUT_OF_RANGE_COLUMN: Final = "a column of a sparse row is out of range"
# The least p (1 - p) in the estimate of a Hessian: rows of one class would have 0.
VARIANCE_MIN: Final = 1e-3
# The least estimate itself, of a column of zeros without a penalty.
CURVATURE_MIN: Final = 1e-12


class LinearObjective:
    """J and its gradient as functions of parameters (n,): the weights as kernels take them, then the bias.

    Args:
        blocks: The rows.
        head: "softmax", "sigmoid" or "multilabel".
        n_classes: The number of classes; 2 for sigmoid.
        C: The inverse strength of the penalty; infinity for none.
        pool: The threads that add blocks, or None for the caller's.

    Attributes:
        n_parameters: n.
        weight: The sum of the rows' weights.

    Raises:
        ValueError: As `sum_labels`; or the head, the number of classes or C is not allowed.
    """

    def __init__(
        self, blocks: RowBlocks, head: Head, n_classes: int, C: float, pool: ThreadPoolExecutor | None = None
    ) -> None:
        check_problem(head, n_classes, C)
        self.weight, self._class_weights = sum_labels(blocks, head, n_classes)
        self._blocks: Final = blocks
        self._head: Final = HEADS[head]
        self._penalty: Final = 1 / C / self.weight
        self._pool: Final = pool
        K, N = count_logits(head, n_classes), blocks.n_columns
        self._sparse: Final = isinstance(blocks.read_block(0).rows, SparseRows)
        self._shape: Final = (N, K) if self._sparse else (K, -(-N // LANES) * LANES)
        self._n_weights: Final = self._shape[0] * self._shape[1]
        self._n_logits: Final = K
        self.n_parameters: Final = self._n_weights + K

    def draw(self, seed: int) -> Doubles:  # noqa: ARG002  # there is one minimum
        """Return parameters to start from: zeros."""
        return np.zeros(self.n_parameters)

    def pack(self, hidden: tuple[LayerArrays, ...], weights: Doubles, bias: Doubles) -> Doubles:
        """Return parameters (n,) of W (N, K) and b (K,); there are no hidden layers."""
        if hidden:
            raise ValueError("a linear model has no hidden layers")
        W = np.zeros(self._shape)
        if self._sparse:
            W[...] = weights
        else:
            W[:, : len(weights)] = weights.T
        return np.concatenate([W.ravel(), bias])

    def unpack(self, parameters: Doubles) -> tuple[tuple[LayerArrays, ...], Doubles, Doubles]:
        """Return no hidden layers, and copies of W (N, K) and b (K,)."""
        W, bias = self._parts(parameters)
        weights = W if self._sparse else W[:, : self._blocks.n_columns].T
        return (), np.array(weights, order="C"), np.array(bias)

    def evaluate(self, parameters: Doubles) -> tuple[float, Doubles]:
        """Return J, and its gradient (n,)."""
        loss, gradient = self._sum_losses(parameters)
        W = parameters[: self._n_weights].reshape(1, -1)
        gradient /= self.weight
        gradient[: self._n_weights] += self._penalty * W[0]
        return loss / self.weight + self._penalty / 2 * float(dot(W, 0, W, 0)), gradient

    def diagonal(self) -> Doubles:
        """Return an estimate (n,) of the diagonal of the Hessian of J, which scales the steps of L-BFGS.

        d2J / dw_jk**2 = (sum over rows of w_i p_ik (1 - p_ik) x_ij**2 + 1 / C) / sum of w_i. Here p (1 - p) is the same
        for all rows and classes: the mean of that of the classes' shares, at least VARIANCE_MIN. What differs most is
        the sum of x_ij**2: that of a rare category or word is small. On rows of categories whose frequencies follow
        Zipf's law, a fifth of the steps is left.
        """
        shares = self._class_weights / self.weight
        variance = max(float(np.cumsum(shares * (1 - shares))[-1]) / len(shares), VARIANCE_MIN)
        curvature = np.maximum(variance * self._sum_squares() / self.weight + self._penalty, CURVATURE_MIN)
        K = self._n_logits
        weights = np.repeat(curvature[:, None], K, axis=1)
        return self.pack((), weights, np.full(K, variance)) + self._padding()

    def mean_loss(self, parameters: Doubles) -> float:
        """Return J without the penalty."""
        return self._sum_losses(parameters)[0] / self.weight

    def _sum_losses(self, parameters: Doubles) -> tuple[float, Doubles]:
        """Return the sum of weighted losses, and its gradient."""
        W, bias = self._parts(parameters)

        def add_block(block: RowBlock, sums: Doubles) -> float:
            G, g = self._parts(sums)
            labels, targets = kernel_labels(block)
            rows, weights = block.rows, block.weights
            if isinstance(rows, SparseRows):
                loss = sparse_objective(*rows, labels, targets, weights, self._head, W, bias, G, g)
            else:
                loss = dense_objective(rows, labels, targets, weights, self._head, W, bias, G, g)
            if loss == OUT_OF_RANGE:
                raise ValueError(OUT_OF_RANGE_COLUMN)
            return float(loss)

        return sum_blocks(self._blocks, self.n_parameters, add_block, self._pool)

    def _sum_squares(self) -> Doubles:
        """Return the weighted sums (N,) of the squares of the columns."""

        def add_block(block: RowBlock, sums: Doubles) -> float:
            rows = block.rows
            if not isinstance(rows, SparseRows):
                dense_squares(rows, block.weights, sums)
            elif not sparse_squares(*rows, block.weights, sums):
                raise ValueError(OUT_OF_RANGE_COLUMN)
            return 0.0

        return sum_blocks(self._blocks, self._blocks.n_columns, add_block, self._pool)[1]

    def _padding(self) -> Doubles:
        """Return 1 (n,) for the parameters that stand for no column, and 0 for the others."""
        unused = np.zeros(self.n_parameters)
        if not self._sparse:
            self._parts(unused)[0][:, self._blocks.n_columns :] = 1
        return unused

    def _parts(self, parameters: Doubles) -> tuple[Doubles, Doubles]:
        """Return views of the weights and of the bias."""
        return parameters[: self._n_weights].reshape(self._shape), parameters[self._n_weights :]


def count_logits(head: Head, n_classes: int) -> int:
    """Return K."""
    return 1 if head == "sigmoid" else n_classes


def check_problem(head: Head, n_classes: int, C: float) -> None:
    """Raise ValueError unless a model of this head can be trained."""
    if head not in {"softmax", "sigmoid", "multilabel"}:
        raise ValueError("the head must be softmax, sigmoid or multilabel")
    if n_classes < (1 if head == "multilabel" else 2) or (head == "sigmoid" and n_classes > 2):  # noqa: PLR2004
        raise ValueError("there must be two classes for sigmoid, and at least two for softmax")
    if not C > 0:
        raise ValueError("C must be positive")
