"""Explanations: the contributions of features to a prediction, and its derivatives.

    contributions   the part of each logit that comes from each feature; only of linear models, whose logits are sums
    sensitivities   dP / dx: the derivative of each probability with respect to each raw feature, through the head,
                    every layer and the stage; 0 where a stage clips
    loss_gradients  dL / dx of the loss of a given target

Probabilities and labels are bit-identical to `Classifier.classify`, logits to `Classifier.logits`. The formulas are in
kernels/attributions.py; those of backpropagation in network_model.py.

For a calibrated model, logits and contributions are those before the calibration, because a calibration is not caused
by features. Sensitivities, losses and their gradients are those of the returned probabilities: the slope of a
calibrated logit is dz_k / dx times 1 / T, or a.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import CalibratedModel
from service.softmax.classifier import GRADIENT_OVERFLOW, HEADS, LOGIT_OVERFLOW, Classifier, overflowing_rows
from service.softmax.explanation import NO_ROWS, Explanation
from service.softmax.input_stage import NOT_NUMBERS, InputStage, Stage
from service.softmax.kernels.activations import activation_backward
from service.softmax.kernels.attributions import answered_losses, linear_parts, sensitivities_forward
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.matmul import linear_forward, pack
from service.softmax.kernels.network import ACTIVATIONS
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_model import MixtureModel
from service.softmax.mixture_slopes import LogitSlopes, differentiate, logit_slopes
from service.softmax.network_model import NetworkModel

# The size of one block of a network's backpropagation, in numbers.
BLOCK_CELLS: Final = 1 << 18


class ForwardPass(NamedTuple):
    """The values of predicting B rows, from which an explanation is computed; `slopes` are overwritten by that.

    Attributes:
        Z: (B, K) logits before a calibration.
        scaled: (B, K) logits of the head; Z itself without a calibration.
        P: (B, C) probabilities.
        labels: (B,) int64, NOT_FINITE in rows that overflow.
        parts: (B, K, N) contributions, or None for a network.
        slopes: (B, K, N), the derivatives of the scaled logits with respect to x.
    """

    Z: Floats
    scaled: Floats
    P: Floats
    labels: Integers
    parts: Floats | None
    slopes: Floats


class Explainer(ABC):
    """Explain the predictions of one model. Immutable and thread-safe.

    Args:
        model: The model.
        bias: (K,), the part of each logit that comes from no feature; None if logits are no sums over features.
        center: (N,) float64, the values at which the model's features are centered.

    Attributes:
        bias: As given.
        center: As given.
    """

    def __init__(self, model: Classifier, bias: Floats | None, center: Doubles) -> None:
        self.bias: Final = bias
        self.center: Final = center
        self._model: Final = model
        self._code: Final = HEADS[model.head]

    def explain(self, X: Floats, Y: Doubles | None = None) -> Explanation:
        """Explain the predictions of rows.

        A row with a number that overflows float32 is explained in float64.

        Args:
            X: (B, N), B >= 1, C-contiguous and of the model's dtype.
            Y: (B, K) targets as in kernels/loss.py, or None.

        Raises:
            UnacceptableError: A value of X is not finite, or a number overflows float64 as well.
            ValueError: X or Y has another shape.
            TypeError: X has another dtype or layout.
        """
        self._model.check_rows(X)
        if Y is not None:
            Y = self._model.check_targets(Y, len(X))
        explanation = self._differentiate(self.forward(X), Y)
        over = np.flatnonzero(explanation.labels == NOT_FINITE)
        return explanation if not over.size else self._add_float64_rows(X, Y, explanation, over)

    @abstractmethod
    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""

    def _add_float64_rows(
        self, X: Floats, Y: Doubles | None, explanation: Explanation, over: NDArray[np.intp]
    ) -> Explanation:
        """Return the explanation with the rows `over` explained in float64."""
        if not np.isfinite(X[over]).all():
            raise UnacceptableError(NOT_NUMBERS)
        if X.dtype == np.float64:
            raise UnacceptableError(
                GRADIENT_OVERFLOW if np.isfinite(explanation.logits[over]).all() else LOGIT_OVERFLOW
            )
        exact = self._float64_explainer.explain(X[over].astype(np.float64), None if Y is None else Y[over])
        explanation.probabilities[over], explanation.labels[over] = self._model.classify(X[over])
        return explanation._replace(over=over, exact=exact)

    def _differentiate(self, forward: ForwardPass, Y: Doubles | None) -> Explanation:
        """Return the explanation, with the label NOT_FINITE in rows that overflow."""
        Z, scaled, P, labels, parts, slopes = forward
        (B, K), N, dtype = Z.shape, slopes.shape[2], Z.dtype
        S = np.empty((B, P.shape[1], N), dtype)
        if Y is None:
            sensitivities_forward(scaled, P, np.empty((0, K)), self._code, slopes, labels, S, np.empty((0, N), dtype))
            return Explanation(labels, Z, P, parts, S, None, None, NO_ROWS)
        D, losses = np.empty((B, N), dtype), np.empty(B)
        sensitivities_forward(scaled, P, Y, self._code, slopes, labels, S, D)
        answered_losses(scaled, Y, self._code, labels, losses)
        return Explanation(labels, Z, P, parts, S, losses, D, NO_ROWS)

    @cached_property
    def _float64_explainer(self) -> "Explainer":
        return create_explainer(self._model.float64_model)


class LinearExplainer(Explainer):
    """Explain a linear model."""

    def __init__(self, model: LinearModel) -> None:
        super().__init__(model, model.bias, _center(model.stage, model.n_features))
        delta = model.delta
        rows = model.weights if delta is None else np.vstack([model.weights, delta.weights])
        inputs = InputStage(model.stage, None if delta is None else delta.stage, model.n_features, model.dtype)
        self._panels: Final = pack(rows, model.bias)
        self._weights: Final = np.ascontiguousarray(rows.T)
        self._stagings: Final = inputs.stagings()

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        (B, N), dtype, K = X.shape, X.dtype, len(self._weights)
        Z, P = np.empty((B, K), dtype), np.empty((B, self._model.n_classes), dtype)
        parts, slopes, labels = np.empty((B, K, N), dtype), np.empty((B, K, N), dtype), np.empty(B, np.int64)
        linear_parts(X, self._stagings, self._panels, self._weights, self._code, Z, P, labels, parts, slopes)
        return ForwardPass(Z, Z, P, labels, parts, slopes)


class NetworkExplainer(Explainer):
    """Explain a network. Its logits are no sums over features, so there are no contributions."""

    def __init__(self, model: NetworkModel) -> None:
        super().__init__(model, None, _center(model.stage, model.n_features))
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


class MixtureExplainer(Explainer):
    """Explain a mixture of experts. Its logits are no sums over features either."""

    def __init__(self, model: MixtureModel) -> None:
        super().__init__(model, None, model.experts.input_stage().mean)
        self._mixture: Final = model
        self._drawn: Final = model.experts.draw_features()
        self._offset: Final = None if model.offset is None else create_explainer(model.offset)

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        model, offset = self._mixture, None
        Z, P, labels = model.logits(X), np.empty((len(X), model.n_classes), X.dtype), np.empty(len(X), np.int64)
        if self._offset is not None:
            before = self._offset.forward(X)
            offset = LogitSlopes(before.Z.astype(np.float64), before.slopes.astype(np.float64))
        found = logit_slopes(differentiate(model.experts, self._drawn, X, offset), model.n_logits)
        slopes = np.ascontiguousarray(found, X.dtype)
        slopes[~np.isfinite(Z).all(axis=1)] = np.nan
        head_forward(Z, self._code, P, labels)
        return ForwardPass(Z, Z, P, labels, None, slopes)


class CalibratedExplainer(Explainer):
    """Explain a calibrated model: logits and contributions of the inner model, derivatives of the whole."""

    def __init__(self, model: CalibratedModel) -> None:
        self._inner: Final = create_explainer(model.inner)
        super().__init__(model, self._inner.bias, self._inner.center)
        self._calibrated: Final = model

    def forward(self, X: Floats) -> ForwardPass:
        """Predict rows X (B, N) that `check_rows` accepts."""
        inner = self._inner.forward(X)
        scaled, P, labels = self._calibrated.classify_logits(inner.Z)
        labels[inner.labels == NOT_FINITE] = NOT_FINITE
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = inner.slopes * inner.slopes.dtype.type(self._calibrated.slope)
        return ForwardPass(inner.Z, scaled, P, labels, inner.parts, slopes)


def create_explainer(model: Classifier) -> Explainer:
    """Return the explainer of a linear model, a network, a mixture, or one of these with a calibration."""
    if isinstance(model, CalibratedModel):
        return CalibratedExplainer(model)
    if isinstance(model, NetworkModel):
        return NetworkExplainer(model)
    if isinstance(model, MixtureModel):
        return MixtureExplainer(model)
    assert isinstance(model, LinearModel)  # noqa: S101  # there is no other class
    return LinearExplainer(model)


def uncalibrated_logits(model: Classifier, X: Floats) -> Floats:
    """Return the logits (B, K) of X (B, N) before a calibration, as in explanations.

    Raises:
        UnacceptableError: A value of X is not finite, or a logit overflows the model's dtype.
    """
    if isinstance(model, CalibratedModel):
        return uncalibrated_logits(model.inner, X)
    Z = model.logits(X)
    over = overflowing_rows(Z)
    if over.size:
        model.reject_overflow(X)
        with np.errstate(over="ignore"):
            model.retry_in_float64(X, over, Z, lambda exact, rows: exact.logits(rows))
        if not np.isfinite(Z[over]).all():
            raise UnacceptableError(LOGIT_OVERFLOW)
    return Z


def _center(stage: Stage | None, n_features: int) -> Doubles:
    """Return the means of a stage, or 0 without one."""
    return np.zeros(n_features) if stage is None else stage.mean


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
