"""Networks: hidden layers in front of a head, with predictions and gradients.

The logits are Z = A_L W_L + b_L with A_(l+1) = f_l(A_l W_l + b_l) and A_0 = stage(X); see kernels/network.py. A network
has the methods of `Classifier`, so it is served like a linear model.
"""

from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import HEADS, Head, LayerShape, overflowing_rows
from service.softmax.derivatives import affine_backward
from service.softmax.input_stage import Stage, check_stage
from service.softmax.kernels.activations import activation_backward, activation_forward
from service.softmax.kernels.matmul import linear_forward
from service.softmax.kernels.network import (
    ACTIVATIONS,
    LayerArrays,
    layer_view,
    make_plan,
    network_forward,
    pack_layers,
)
from service.softmax.staged_model import StagedModel


class LayerGradients(NamedTuple):
    """Derivatives of the summed loss with respect to one layer: `dW` (N, K) and `db` (K,)."""

    dW: Floats
    db: Floats


class NetworkGradients(NamedTuple):
    """Derivatives of the summed loss of B rows.

    Attributes:
        layers: With respect to each layer, the head's last.
        dX: (B, N), with respect to the raw rows.
        losses: (B,) float64.
    """

    layers: tuple[LayerGradients, ...]
    dX: Floats
    losses: Doubles


class NetworkTrace(NamedTuple):
    """The values of a forward pass of B rows.

    Attributes:
        Z: (B, K) logits.
        inputs: For each layer its input (B, N_l), the first one staged.
        finite: (B,), whether all pre-activations of the hidden layers are finite.
    """

    Z: Floats
    inputs: list[Floats]
    finite: NDArray[np.bool_]


class NetworkModel(StagedModel):
    """Hidden layers in front of a head.

    Args:
        head: As in `LinearModel`.
        hidden: The hidden layers, the first one first; at least one.
        weights: W (N, K) of the head's layer, float32 or float64, feature-major; N is the last hidden layer's width.
        bias: b (K,), of the same dtype.
        stage: The input stage of the first layer, or None.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(
        self, head: Head, hidden: tuple[LayerArrays, ...], weights: Floats, bias: Floats, stage: Stage | None = None
    ) -> None:
        _check_network(head, hidden, weights, bias, stage)
        super().__init__(head, weights.dtype, hidden[0].weights.shape[0], bias.size, stage=stage)
        self.hidden: Final = tuple(
            LayerArrays(np.array(layer.weights, order="C"), np.array(layer.bias), layer.activation) for layer in hidden
        )
        self.weights: Final = np.array(weights, order="C")
        self.bias: Final = np.array(bias)
        self._plan: Final = make_plan(self.hidden, self.n_features, self.n_logits, self.dtype)
        self._panels: Final = pack_layers([np.vstack([b, W]) for W, b in self._affine_layers()])

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The shapes of the hidden layers, the first one first, and of the head's."""
        hidden = (LayerShape(len(layer.weights), layer.bias.size, layer.activation) for layer in self.hidden)
        return (*hidden, LayerShape(len(self.weights), self.bias.size, "identity"))

    def logits(self, X: Floats) -> Floats:
        """Return Z (B, K) of X (B, N); NaN in rows with a pre-activation that overflows the model's dtype."""
        self.check_rows(X)
        Z, _, finite = self.trace(X)
        Z[~finite] = np.nan
        return Z

    def gradients(self, X: Floats, Y: Doubles) -> NetworkGradients:
        """Return derivatives of the summed loss of X (B, N), B >= 1, for the targets Y (B, K), by backpropagation.

        With dZ_L = P - Y (see loss.py) and from the last layer to the first (Goodfellow, Bengio & Courville, Deep
        Learning, 2016, algorithm 6.4): dW_l = A_l^T dZ_l, db_l = sum of dZ_l, dA_l = dZ_l W_l^T and
        dZ_(l-1) = dA_l f'. If a row or a sum overflows float32, its derivatives are computed in float64 and rounded,
        and so are all sums over rows.

        Raises:
            UnacceptableError: As `predict`, or a derivative overflows the model's dtype.
        """
        dZ, losses, Y, over = self._logit_gradients(X, Y)
        with np.errstate(invalid="ignore", over="ignore"):
            layers, dX = self._backward(X, dZ)
        steep = np.union1d(over, overflowing_rows(dX))
        if steep.size or not all(np.isfinite(part).all() for layer in layers for part in layer):
            self._reject_steep()
            exact = self.float64_model.gradients(X.astype(np.float64), Y)
            layers = tuple(
                LayerGradients(self._round_gradients(dW), self._round_gradients(db)) for dW, db in exact.layers
            )
            losses[over] = exact.losses[over]
            dX[steep] = self._round_gradients(exact.dX[steep])
        return NetworkGradients(layers, dX, losses)

    def trace(self, X: Floats) -> NetworkTrace:
        """Return the logits and every layer's input of rows X (B, N) that `check_rows` accepts."""
        inputs, finite = [self._inputs.stage_rows(X)], np.ones(len(X), np.bool_)
        for number, layer in enumerate(self.hidden):
            Z = self._affine_forward(number, inputs[-1])
            A = np.empty((len(X), layer.bias.size), self.dtype)
            if not activation_forward(Z, ACTIVATIONS[layer.activation], A):
                finite &= np.isfinite(Z).all(axis=1)
            inputs.append(A)
        Z = self._affine_forward(len(self.hidden), inputs[-1])
        return NetworkTrace(np.ascontiguousarray(Z[:, : self.n_logits]), inputs, finite)

    def _affine_forward(self, number: int, A: Floats) -> Floats:
        """Return A W + b of one layer, padded to whole panels."""
        panels = layer_view(self._panels, self._plan, number)
        Z = np.empty((len(A), panels.shape[0] * panels.shape[2]), self.dtype)
        linear_forward(A, panels, Z)
        return Z

    def _affine_layers(self) -> list[tuple[Floats, Floats]]:
        """Return weights and bias of every layer, the head's last."""
        return [*((layer.weights, layer.bias) for layer in self.hidden), (self.weights, self.bias)]

    def _backward(self, X: Floats, dZ: Floats) -> tuple[tuple[LayerGradients, ...], Floats]:
        """Return the derivatives of every layer, and of X, from those of the logits; every sum in a fixed order."""
        inputs = self.trace(X).inputs
        gradients: list[LayerGradients] = []
        for number, (W, _) in reversed(list(enumerate(self._affine_layers()))):
            A = inputs[number]
            dW, db, dZ = affine_backward(A, W, dZ)
            gradients.append(LayerGradients(dW, db))
            if number > 0:
                activation_backward(A, ACTIVATIONS[self.hidden[number - 1].activation], dZ)
        return tuple(reversed(gradients)), self._inputs.backward(inputs[0], dZ)

    def _predict_staged(self, rows: Floats, P: Floats, labels: Integers) -> int:
        label: int = network_forward(rows, self._panels, self._plan, self._code, P, labels)
        return label

    @cached_property
    def float64_model(self) -> "NetworkModel":
        """The same network in float64, for rows that overflow float32."""
        hidden = tuple(
            LayerArrays(layer.weights.astype(np.float64), layer.bias.astype(np.float64), layer.activation)
            for layer in self.hidden
        )
        weights, bias = self.weights.astype(np.float64), self.bias.astype(np.float64)
        return NetworkModel(self.head, hidden, weights, bias, self.stage)


def _check_network(
    head: str, hidden: tuple[LayerArrays, ...], weights: Floats, bias: Floats, stage: Stage | None
) -> None:
    """Raise ValueError unless these form a network."""
    if head not in HEADS:
        raise ValueError("head must be softmax, sigmoid, multilabel or ovr")
    if not hidden or any(layer.activation not in ACTIVATIONS for layer in hidden):
        raise ValueError("a network needs hidden layers, each with the activation relu, sigmoid or tanh")
    affine = [*((layer.weights, layer.bias) for layer in hidden), (weights, bias)]
    for W, b in affine:
        if W.dtype not in (np.float32, np.float64) or {W.dtype, b.dtype} != {weights.dtype}:
            raise ValueError("weights and biases must all be float32 or all float64")
        if W.ndim != 2 or 0 in W.shape or b.shape != W.shape[1:]:  # noqa: PLR2004  # a matrix
            raise ValueError("each layer's weights must be (N, K) and its bias (K,), with N and K at least 1")
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError("weights and biases must be finite")
    if any(after[0].shape[0] != before[1].size for before, after in pairwise(affine)):
        raise ValueError("each layer's weights must have as many inputs as the layer before it has outputs")
    if head == "sigmoid" and bias.size != 1:
        raise ValueError("a sigmoid head has one logit")
    if stage is not None:
        check_stage(stage, hidden[0].weights)
