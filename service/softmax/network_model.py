"""The safe door to networks: hidden layers in front of a head, checked, answered, and differentiated.

A network answers through the methods of `Classifier`, so whatever serves a linear model serves it. Its logits are
Z = A_L W_L + b_L behind A_(l+1) = f_l(A_l W_l + b_l) with A_0 = stage(X); see network.py.
"""

from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.classifier import HEADS, LAYOUT, STEEP, Classifier, Head, LayerShape
from service.softmax.derivatives import affine_backward
from service.softmax.input_stage import Doubles, Floats, InputStage, Stage, check_stage, owned
from service.softmax.kernels.activations import activation_backward, activation_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward
from service.softmax.kernels.matmul import linear_forward
from service.softmax.kernels.network import ACTIVATIONS, LayerArrays, layer_of, network_forward, pack_all, plan_of


class LayerGradients(NamedTuple):
    """Derivatives of the summed loss with respect to one layer: `dW` (N, K) and `db` (K,)."""

    dW: Floats
    db: Floats


class NetworkGradients(NamedTuple):
    """Derivatives of the summed loss of B rows: of each layer, the head's last; `dX` (B, N); `losses` (B,) float64."""

    layers: tuple[LayerGradients, ...]
    dX: Floats
    losses: Doubles


class NetworkModel(Classifier):
    """Hidden layers in front of a head, served by the deterministic kernels.

    Args:
        head: As a model's.
        hidden: The hidden layers, the first one first; at least one.
        weights: W (N, K) of the head's layer, float32 or float64, feature-major; N is the last hidden layer's width.
        bias: b (K,), of the same dtype.
        stage: The input stage in front of the first layer, or None.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(
        self, head: Head, hidden: tuple[LayerArrays, ...], weights: Floats, bias: Floats, stage: Stage | None = None
    ) -> None:
        _check(head, hidden, weights, bias, stage)
        super().__init__(head, weights.dtype, hidden[0].weights.shape[0], bias.size)
        self.hidden: Final = tuple(
            LayerArrays(np.array(one.weights, order="C"), np.array(one.bias), one.activation) for one in hidden
        )
        self.weights: Final = np.array(weights, order="C")
        self.bias: Final = np.array(bias)
        self.stage: Final = None if stage is None else owned(stage)
        self._plan: Final = plan_of(self.hidden, self.n_features, self.n_logits, self.dtype)
        self._panels: Final = pack_all([np.vstack([b, W]) for W, b in self._affine()])
        self._inputs: Final = InputStage(self.stage, None, self.n_features, self.dtype)

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The hidden layers, the first one first, and the head's."""
        hidden = (LayerShape(len(layer.weights), layer.bias.size, layer.activation) for layer in self.hidden)
        return (*hidden, LayerShape(len(self.weights), self.bias.size, "identity"))

    def logits(self, X: Floats) -> Floats:
        """Z (B, K) of X (B, N); NaN in rows of which a pre-activation overflows the model's dtype."""
        self._check_rows(X)
        Z, _, finite = self._trace(X)
        Z[~finite] = np.nan
        return Z

    def gradients(self, X: Floats, Y: Doubles) -> NetworkGradients:
        """Derivatives of the summed loss of X (B, N), B >= 1, for the targets Y (B, K), by backpropagation.

        With dZ_L = P - Y (see loss.py) and from the last layer to the first (Goodfellow, Bengio & Courville, Deep
        Learning, 2016, algorithm 6.4): dW_l = A_l^T dZ_l, db_l = sum of dZ_l, dA_l = dZ_l W_l^T and
        dZ_(l-1) = dA_l f'. Where a row, or a sum, overflows float32, its derivatives are float64's, rounded; then so
        are the sums over rows.

        Raises:
            UnacceptableError: As `predict`, or a derivative cannot be represented in the model's dtype.
        """
        Z, over = self._finite_logits(X)
        Y, losses, dZ = self._targets(Y, len(X)), np.empty(len(X)), np.empty_like(Z)
        cross_entropy_forward(Z, Y, self._code, losses)
        cross_entropy_backward(Z, Y, self._code, dZ)
        with np.errstate(invalid="ignore", over="ignore"):
            layers, dX = self._backward(X, dZ)
        steep = np.union1d(over, np.flatnonzero(~np.isfinite(dX).all(axis=1)))
        if steep.size or not all(np.isfinite(part).all() for layer in layers for part in layer):
            if self.dtype == np.float64:
                raise UnacceptableError(STEEP)
            exact = self._double.gradients(X.astype(np.float64), Y)
            layers = tuple(LayerGradients(self._rounded(dW), self._rounded(db)) for dW, db in exact.layers)
            losses[over] = exact.losses[over]
            dX[steep] = self._rounded(exact.dX[steep])
        return NetworkGradients(layers, dX, losses)

    def _trace(self, X: Floats) -> tuple[Floats, list[Floats], NDArray[np.bool_]]:
        """Z (B, K), the input of every layer (B, N_l), and which rows (B,) have finite pre-activations."""
        taken, finite = [self._inputs.rows(X)], np.ones(len(X), np.bool_)
        for number, layer in enumerate(self.hidden):
            Z = self._affine_forward(number, taken[-1])
            A = np.empty((len(X), layer.bias.size), self.dtype)
            if not activation_forward(Z, ACTIVATIONS[layer.activation], A):
                finite &= np.isfinite(Z).all(axis=1)
            taken.append(A)
        Z = self._affine_forward(len(self.hidden), taken[-1])
        return np.ascontiguousarray(Z[:, : self.n_logits]), taken, finite

    def _affine_forward(self, number: int, A: Floats) -> Floats:
        """A W + b of one layer, whole panels wide."""
        panels = layer_of(self._panels, self._plan, number)
        Z = np.empty((len(A), panels.shape[0] * panels.shape[2]), self.dtype)
        linear_forward(A, panels, Z)
        return Z

    def _affine(self) -> list[tuple[Floats, Floats]]:
        """Weights and bias of every layer, the head's last."""
        return [*((layer.weights, layer.bias) for layer in self.hidden), (self.weights, self.bias)]

    def _backward(self, X: Floats, dZ: Floats) -> tuple[tuple[LayerGradients, ...], Floats]:
        """The derivatives of every layer, and of X, from those of the logits; every sum in a fixed order."""
        _, taken, _ = self._trace(X)
        found: list[LayerGradients] = []
        for number, (W, _) in reversed(list(enumerate(self._affine()))):
            A = taken[number]
            dW, db, dZ = affine_backward(A, W, dZ)
            found.append(LayerGradients(dW, db))
            if number > 0:
                activation_backward(A, ACTIVATIONS[self.hidden[number - 1].activation], dZ)
        return tuple(reversed(found)), self._inputs.backward(taken[0], dZ)

    def _predict(self, X: Floats, labels: NDArray[np.int64]) -> tuple[Floats, int]:
        """As a model's."""
        B, N = X.shape
        if self.n_features != N:
            raise ValueError(f"X has {N} features, the model {self.n_features}")
        if (X.dtype is not self.dtype and X.dtype != self.dtype) or not X.flags.carray:
            raise TypeError(LAYOUT)
        staged = X if self.stage is None else self._inputs.rows(X)
        P = np.empty((B, self.n_classes), self.dtype)
        label = network_forward(staged, self._panels, self._plan, self._code, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_again(X, P, labels)
        return P, label

    @cached_property
    def _double(self) -> "NetworkModel":
        """The same network in float64, for rows that overflow float32."""
        wide = tuple(
            LayerArrays(one.weights.astype(np.float64), one.bias.astype(np.float64), one.activation)
            for one in self.hidden
        )
        return NetworkModel(self.head, wide, self.weights.astype(np.float64), self.bias.astype(np.float64), self.stage)


def _check(head: str, hidden: tuple[LayerArrays, ...], weights: Floats, bias: Floats, stage: Stage | None) -> None:
    """Raise ValueError where a network cannot be made of these."""
    if head not in HEADS:
        raise ValueError("head must be softmax, sigmoid, multilabel or ovr")
    if not hidden or any(layer.activation not in ACTIVATIONS for layer in hidden):
        raise ValueError("a network has hidden layers, each with the activation relu, sigmoid or tanh")
    affine = [*((layer.weights, layer.bias) for layer in hidden), (weights, bias)]
    for W, b in affine:
        if W.dtype not in (np.float32, np.float64) or {W.dtype, b.dtype} != {weights.dtype}:
            raise ValueError("weights and biases must all be float32 or all float64")
        if W.ndim != 2 or 0 in W.shape or b.shape != W.shape[1:]:  # noqa: PLR2004  # a matrix
            raise ValueError("each layer's weights must be (N, K) and its bias (K,), with N and K at least 1")
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError("weights and biases must be finite")
    if any(above[0].shape[0] != below[1].size for below, above in pairwise(affine)):
        raise ValueError("each layer's weights must take as many inputs as the layer before it gives")
    if head == "sigmoid" and bias.size != 1:
        raise ValueError("a sigmoid head has one logit")
    if stage is not None:
        check_stage(stage, hidden[0].weights)
