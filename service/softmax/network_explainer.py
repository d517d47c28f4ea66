"""Explain networks by backpropagation."""

from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Floats
from service.softmax.explainer import Explainer, ForwardPass
from service.softmax.input_stage import InputStage
from service.softmax.kernels.activations import activation_backward
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.matmul import linear_forward, pack
from service.softmax.kernels.network import ACTIVATIONS
from service.softmax.network_model import NetworkModel

# The size of one block of a network's backpropagation, in numbers.
BLOCK_CELLS: Final = 1 << 18


class NetworkExplainer(Explainer):
    """Explain a network. Its logits are no sums over features, so there are no contributions."""

    def __init__(self, model: NetworkModel) -> None:
        super().__init__(model, None, model.stage)
        self._network: Final = model
        self._activations: Final = [ACTIVATIONS[layer.activation] for layer in model.hidden]
        self._backward: Final = [_pack_transposed(layer.weights) for layer in model.hidden]
        self._head_weights: Final = _transposed(model.weights)
        self._inputs: Final = InputStage(model.stage, None, model.n_features, model.dtype)
        widest = max(max(layer.weights.shape) for layer in model.hidden)
        self._block_logits: Final = max(1, BLOCK_CELLS // widest)
        self._block_rows: Final = max(1, self._block_logits // model.n_logits)

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        blocks = [self._forward_block(X[i : i + self._block_rows]) for i in range(0, len(X), self._block_rows)]
        Z, slopes = map(np.concatenate, zip(*blocks, strict=True))
        P, labels = np.empty((len(X), self._model.n_classes), X.dtype), np.empty(len(X), np.int64)
        head_forward(Z, self._code, P, labels)
        return ForwardPass(Z, Z, P, labels, None, slopes)

    def _forward_block(self, X: Floats) -> tuple[Floats, Floats]:
        """Return Z and slopes of some rows; not finite where they overflow."""
        Z, inputs, finite = self._network.trace(X)
        Z[~finite] = np.nan
        slopes = np.empty((*Z.shape, X.shape[1]), X.dtype)
        for k in range(0, len(self._head_weights), self._block_logits):
            slopes[:, k : k + self._block_logits] = self._slopes(inputs, self._head_weights[k : k + self._block_logits])
        return Z, slopes

    def _slopes(self, inputs: list[Floats], head_weights: Floats) -> Floats:
        """Return the slopes (B, k, N) of k logits by backpropagation.

        Args:
            inputs: For each layer its input (B, N_l).
            head_weights: (k, N_l), the weights of the k logits.
        """
        k, dA = len(head_weights), np.tile(head_weights, (len(inputs[0]), 1))
        for code, (panels, width), A in zip(
            reversed(self._activations), reversed(self._backward), reversed(inputs[1:]), strict=True
        ):
            activation_backward(np.repeat(A, k, axis=0), code, dA)
            dA = np.ascontiguousarray(_multiply_panels(dA, panels)[:, :width])
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = self._inputs.backward(np.repeat(inputs[0], k, axis=0), dA)
        return slopes.reshape(len(inputs[0]), k, -1)

    @cached_property
    def float64_explainer(self) -> "NetworkExplainer":
        """The explainer of the same network in float64, for rows that overflow float32."""
        return NetworkExplainer(self._network.float64_model)


def _multiply_panels(A: Floats, panels: Floats) -> Floats:
    """Return A (B, N) times packed weights, padded to whole panels."""
    Z = np.empty((len(A), panels.shape[0] * panels.shape[2]), A.dtype)
    linear_forward(A, panels, Z)
    return Z


def _pack_transposed(W: Floats) -> tuple[Floats, int]:
    """Return the packed transpose of a layer's weights (N, K), and N."""
    return pack(_transposed(W), np.zeros(len(W), W.dtype)), len(W)


def _transposed(W: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(W.T)
