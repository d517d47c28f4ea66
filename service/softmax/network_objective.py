"""The training objective of a network over blocks of dense rows, and its gradient by backpropagation.

J is that of linear_objective.py with the logits of kernels/network.py; |W|^2 is the sum of the squared weights of all
layers. With dZ_L = w (P - Y), and from the last layer to the first (Goodfellow, Bengio & Courville, Deep Learning,
2016, algorithm 6.4): dW_l = A_l^T dZ_l, db_l = sum of dZ_l, dA_l = dZ_l W_l^T and dZ_(l-1) = dA_l f'.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from service.softmax.arrays import Doubles, Floats
from service.softmax.block_sums import sum_blocks, sum_labels
from service.softmax.classifier import HEADS, Head
from service.softmax.kernels.activations import activation_backward, activation_forward
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward
from service.softmax.kernels.matmul import linear_forward, multiply_matrices, pack
from service.softmax.kernels.network import ACTIVATIONS, Activation, LayerArrays
from service.softmax.kernels.vector_sums import dot
from service.softmax.linear_objective import check_problem, count_logits
from service.softmax.row_blocks import BlockLabels, RowBlock, RowBlocks
from service.softmax.sparse_rows import dense_rows


class _Panels(NamedTuple):
    """The packed weights of a layer of K outputs: W and b for A W + b, and W^T for dZ W^T."""

    forward: Floats
    backward: Floats
    n_inputs: int
    n_outputs: int


class NetworkObjective:
    """J and its gradient as functions of parameters (n,): W (N_l, K_l) and b (K_l,) of each layer, the head's last.

    Args:
        blocks: Dense rows.
        head: "softmax", "sigmoid" or "multilabel".
        n_classes: The number of classes; 2 for sigmoid.
        C: The inverse strength of the penalty; infinity for none.
        hidden: The widths of the hidden layers, at least one.
        activation: Their activation.
        pool: The threads that add blocks, or None for the caller's.

    Attributes:
        n_parameters: n.
        weight: The sum of the rows' weights.

    Raises:
        ValueError: As `LinearObjective`; or a width is not positive.
        TypeError: The rows are sparse.
    """

    def __init__(
        self,
        blocks: RowBlocks,
        head: Head,
        n_classes: int,
        C: float,
        *,
        hidden: tuple[int, ...],
        activation: Activation,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        check_problem(head, n_classes, C)
        dense_rows(blocks.read_block(0).rows)
        if min(hidden) < 1:
            raise ValueError("hidden layers must have at least one output")
        self.weight, _ = sum_labels(blocks, head, n_classes)
        self._blocks: Final = blocks
        self._head: Final = HEADS[head]
        self._n_classes: Final = n_classes
        self._activation: Final = activation
        self._penalty: Final = 1 / C / self.weight
        self._pool: Final = pool
        self._shapes: Final = list(pairwise([blocks.n_columns, *hidden, count_logits(head, n_classes)]))
        self.n_parameters: Final = sum((inputs + 1) * outputs for inputs, outputs in self._shapes)

    def draw(self, seed: int) -> Doubles:
        """Return parameters to start from: uniform weights of a variance that keeps that of activations; biases 0.

        The bound is sqrt(6 / (inputs + outputs)) (Glorot & Bengio, AISTATS 2010); for relu, which halves the variance,
        it is sqrt(6 / inputs) (He et al., ICCV 2015). The weights of the head's layer are 0.
        """
        rng, parameters = np.random.default_rng(seed), np.zeros(self.n_parameters)
        for W, _ in list(self._layers(parameters))[:-1]:
            inputs, outputs = W.shape
            reach = np.sqrt(6 / (inputs if self._activation == "relu" else inputs + outputs))
            W[...] = rng.uniform(-reach, reach, W.shape)
        return parameters

    def pack(self, hidden: tuple[LayerArrays, ...], weights: Doubles, bias: Doubles) -> Doubles:
        """Return parameters (n,) of layers, the head's last."""
        parameters = np.empty(self.n_parameters)
        layers = [*((layer.weights, layer.bias) for layer in hidden), (weights, bias)]
        for (W, b), layer in zip(self._layers(parameters), layers, strict=True):
            W[...], b[...] = layer
        return parameters

    def unpack(self, parameters: Doubles) -> tuple[tuple[LayerArrays, ...], Doubles, Doubles]:
        """Return copies of the hidden layers, and of W (N, K) and b (K,) of the head's."""
        *hidden, (W, b) = ((np.array(W), np.array(b)) for W, b in self._layers(parameters))
        return tuple(LayerArrays(*layer, self._activation) for layer in hidden), W, b

    def evaluate(self, parameters: Doubles) -> tuple[float, Doubles]:
        """Return J, and its gradient (n,)."""
        loss, gradient = self._sum_losses(parameters)
        gradient /= self.weight
        squares = 0.0
        for (W, _), (dW, _) in zip(self._layers(parameters), self._layers(gradient), strict=True):
            np.add(dW, self._penalty * W, out=dW)
            squares += float(dot(W.reshape(1, -1), 0, W.reshape(1, -1), 0))
        return loss / self.weight + self._penalty / 2 * squares, gradient

    def diagonal(self) -> None:
        """Return None: the diagonal of the Hessian is not known."""

    def mean_loss(self, parameters: Doubles) -> float:
        """Return J without the penalty."""
        return self._sum_losses(parameters)[0] / self.weight

    def _layers(self, parameters: Doubles) -> Iterator[tuple[Doubles, Doubles]]:
        """Yield views of the weights and the bias of each layer."""
        start = 0
        for inputs, outputs in self._shapes:
            end = start + inputs * outputs
            yield parameters[start:end].reshape(inputs, outputs), parameters[end : end + outputs]
            start = end + outputs

    def _sum_losses(self, parameters: Doubles) -> tuple[float, Doubles]:
        """Return the sum of weighted losses, and its gradient."""
        layers = [
            _Panels(pack(W, b), pack(np.ascontiguousarray(W.T), np.zeros(len(W))), *W.shape)
            for W, b in self._layers(parameters)
        ]

        def add_block(block: RowBlock, sums: Doubles) -> float:
            inputs, Z = self._forward(layers, dense_rows(block.rows).astype(np.float64))
            Y, losses, dZ = self._targets(block.labels), np.empty(len(Z)), np.empty_like(Z)
            cross_entropy_forward(Z, Y, self._head, losses)
            if not cross_entropy_backward(Z, Y, self._head, dZ):
                return np.inf
            dZ *= block.weights[:, None]
            self._backward(layers, inputs, dZ, sums)
            # A copy, because a block of a mapped file is read-only.
            return float(dot(losses.reshape(1, -1), 0, block.weights.copy().reshape(1, -1), 0))

        return sum_blocks(self._blocks, self.n_parameters, add_block, self._pool)

    def _forward(self, layers: list[_Panels], X: Doubles) -> tuple[list[Doubles], Doubles]:
        """Return the input of each layer, and the logits (b, K)."""
        inputs = [X]
        for layer in layers[:-1]:
            A = np.empty((len(X), layer.n_outputs))
            activation_forward(_multiply(inputs[-1], layer.forward), ACTIVATIONS[self._activation], A)
            inputs.append(A)
        Z = _multiply(inputs[-1], layers[-1].forward)
        return inputs, np.ascontiguousarray(Z[:, : layers[-1].n_outputs])

    def _backward(self, layers: list[_Panels], inputs: list[Doubles], dZ: Doubles, sums: Doubles) -> None:
        """Add the derivatives with respect to all parameters, from those dZ (b, K) with respect to the logits."""
        for number, (dW, db) in reversed(list(enumerate(self._layers(sums)))):
            A, layer = inputs[number], layers[number]
            products = multiply_matrices(np.ascontiguousarray(np.vstack([A.T, np.ones((1, len(A)))])), dZ)
            np.add(dW, products[:-1], out=dW)
            np.add(db, products[-1], out=db)
            if number > 0:
                dZ = np.ascontiguousarray(_multiply(dZ, layer.backward)[:, : layer.n_inputs])
                activation_backward(A, ACTIVATIONS[self._activation], dZ)

    def _targets(self, labels: BlockLabels) -> Doubles:
        """Return the targets Y (b, K) of a block."""
        if labels.ndim == 2:  # noqa: PLR2004  # a matrix
            return labels.astype(np.float64)
        if self._shapes[-1][1] == 1:
            return labels.astype(np.float64).reshape(-1, 1)
        Y = np.zeros((len(labels), self._n_classes))
        Y[np.arange(len(labels)), labels] = 1
        return Y


def _multiply(A: Doubles, panels: Floats) -> Doubles:
    """Return A W + b, padded to whole panels."""
    Z = np.empty((len(A), panels.shape[0] * panels.shape[2]))
    linear_forward(A, panels, Z)
    return Z
