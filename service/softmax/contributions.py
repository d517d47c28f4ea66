"""The safe door to explanations: why a row gets the probabilities that it gets, and what would change them.

    contributions   what each feature adds to each logit; of linear models, where logits are such sums
    sensitivities   dP / dx: how each probability moves with each raw feature, through the head, every layer and the
                    stage; 0 where a stage clips
    loss_gradients  dL / dx of the loss of a given target

Probabilities and labels are those of `Classifier.classify` and logits those of `Classifier.logits`, to the bit. The
formulas stand in attributions.py; those of backpropagation in network_model.py.

Of a calibrated model the logits, and what contributes to them, are those in front of the calibration, which is no
feature's doing. Sensitivities, losses and their gradients are those of what is answered: through the calibration the
slope of a logit is dz_k / dx times 1 / T, or a.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.calibration import Calibrated
from service.softmax.classifier import HEADS, OVERFLOW, STEEP, Classifier
from service.softmax.explanation import NONE, Explanation
from service.softmax.input_stage import NOT_NUMBERS, Doubles, Floats, InputStage, Stage
from service.softmax.kernels.activations import activation_backward
from service.softmax.kernels.attributions import answered_losses, linear_parts, sensitivities_forward
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.matmul import linear_forward, pack
from service.softmax.kernels.network import ACTIVATIONS
from service.softmax.linear_model import LinearModel
from service.softmax.network_model import NetworkModel

# Numbers of a network's backpropagation that stand in memory at one time.
BLOCK_CELLS: Final = 1 << 18


class Made(NamedTuple):
    """How B rows are answered, of which an explanation follows; `slopes` are left as scratch.

    Attributes:
        Z: (B, K) logits, as contributions add up to them.
        scaled: (B, K) logits in front of the head; Z itself where no calibration stands between.
        P: (B, C) probabilities.
        labels: (B,) int64, NOT_FINITE in rows that overflow.
        parts: (B, K, N) contributions, or None for a network.
        slopes: (B, K, N), the derivatives of the scaled logits by x.
    """

    Z: Floats
    scaled: Floats
    P: Floats
    labels: NDArray[np.int64]
    parts: Floats | None
    slopes: Floats


class Explainer(ABC):
    """Explains the answers of one model. Immutable, to be used from several threads at a time.

    Args:
        model: The model.
        bias: What each logit is without any feature, (K,), or None where it is no sum over features.
        centre: (N,) float64, where the model's features are centred.

    Attributes:
        bias: As given.
        centre: As given.
    """

    def __init__(self, model: Classifier, bias: Floats | None, centre: Doubles) -> None:
        self.bias: Final = bias
        self.centre: Final = centre
        self._model: Final = model
        self._code: Final = HEADS[model.head]

    def explain(self, X: Floats, Y: Doubles | None = None) -> Explanation:
        """Explain X (B, N), B >= 1, C-contiguous and of the model's dtype; Y (B, K) are targets as in loss.py.

        A row of which a number overflows float32 is explained in float64.

        Raises:
            UnacceptableError: A value of X is not finite, or a number overflows float64 as well.
            ValueError: X or Y has another shape.
            TypeError: X has another dtype or layout.
        """
        model = self._model
        model._check_rows(X)  # noqa: SLF001  # one room
        if Y is not None:
            Y = model._targets(Y, len(X))  # noqa: SLF001
        found = self._told(self._made(X), Y)
        over = np.flatnonzero(found.labels == NOT_FINITE)
        return found if not over.size else self._again(X, Y, found, over)

    @abstractmethod
    def _made(self, X: Floats) -> Made:
        """How rows X (B, N) that were checked are answered."""

    def _again(self, X: Floats, Y: Doubles | None, found: Explanation, over: NDArray[np.intp]) -> Explanation:
        """The explanation with rows that overflow in float64 beside it."""
        if not np.isfinite(X[over]).all():
            raise UnacceptableError(NOT_NUMBERS)
        if X.dtype == np.float64:
            raise UnacceptableError(STEEP if np.isfinite(found.logits[over]).all() else OVERFLOW)
        exact = self._double.explain(X[over].astype(np.float64), None if Y is None else Y[over])
        found.probabilities[over], found.labels[over] = self._model.classify(X[over])
        return found._replace(over=over, exact=exact)

    def _told(self, made: Made, Y: Doubles | None) -> Explanation:
        """What follows, with the label NOT_FINITE in rows that overflow."""
        Z, scaled, P, labels, parts, slopes = made
        (B, K), N, dtype = Z.shape, slopes.shape[2], Z.dtype
        S = np.empty((B, P.shape[1], N), dtype)
        if Y is None:
            sensitivities_forward(scaled, P, np.empty((0, K)), self._code, slopes, labels, S, np.empty((0, N), dtype))
            return Explanation(labels, Z, P, parts, S, None, None, NONE)
        D, losses = np.empty((B, N), dtype), np.empty(B)
        sensitivities_forward(scaled, P, Y, self._code, slopes, labels, S, D)
        answered_losses(scaled, Y, self._code, labels, losses)
        return Explanation(labels, Z, P, parts, S, losses, D, NONE)

    @cached_property
    def _double(self) -> "Explainer":
        """Explains the same model in float64."""
        return explainer_of(self._model._double)  # noqa: SLF001  # one room


class LinearExplainer(Explainer):
    """Explains a linear model."""

    def __init__(self, model: LinearModel) -> None:
        super().__init__(model, model.bias, _centre(model.stage, model.n_features))
        delta = model.delta
        rows = model.weights if delta is None else np.vstack([model.weights, delta.weights])
        inputs = InputStage(model.stage, None if delta is None else delta.stage, model.n_features, model.dtype)
        self._panels: Final = pack(rows, model.bias)
        self._weights: Final = np.ascontiguousarray(rows.T)
        self._stagings: Final = inputs.stagings()

    def _made(self, X: Floats) -> Made:
        (B, N), dtype, K = X.shape, X.dtype, len(self._weights)
        Z, P = np.empty((B, K), dtype), np.empty((B, self._model.n_classes), dtype)
        parts, slopes, labels = np.empty((B, K, N), dtype), np.empty((B, K, N), dtype), np.empty(B, np.int64)
        linear_parts(X, self._stagings, self._panels, self._weights, self._code, Z, P, labels, parts, slopes)
        return Made(Z, Z, P, labels, parts, slopes)


class NetworkExplainer(Explainer):
    """Explains a network. Its logits are no sums over features, so it gives no contributions."""

    def __init__(self, model: NetworkModel) -> None:
        super().__init__(model, None, _centre(model.stage, model.n_features))
        self._network: Final = model
        self._activations: Final = [ACTIVATIONS[layer.activation] for layer in model.hidden]
        self._backward: Final = [_backward_of(layer.weights) for layer in model.hidden]
        self._last: Final = _transposed(model.weights)
        self._inputs: Final = InputStage(model.stage, None, model.n_features, model.dtype)
        widest = max(max(layer.weights.shape) for layer in model.hidden)
        self._logits: Final = max(1, BLOCK_CELLS // widest)
        self._rows: Final = max(1, self._logits // model.n_logits)

    def _made(self, X: Floats) -> Made:
        blocks = [self._block(X[i : i + self._rows]) for i in range(0, len(X), self._rows)]
        Z, slopes = map(np.concatenate, zip(*blocks, strict=True))
        P, labels = np.empty((len(X), self._model.n_classes), X.dtype), np.empty(len(X), np.int64)
        head_forward(Z, self._code, P, labels)
        return Made(Z, Z, P, labels, None, slopes)

    def _block(self, X: Floats) -> tuple[Floats, Floats]:
        """Z and slopes of some rows; not finite where they overflow."""
        Z, taken, finite = self._network._trace(X)  # noqa: SLF001  # one room
        Z[~finite] = np.nan
        slopes = np.empty((*Z.shape, X.shape[1]), X.dtype)
        for k in range(0, len(self._last), self._logits):
            slopes[:, k : k + self._logits] = self._slopes(taken, self._last[k : k + self._logits])
        return Z, slopes

    def _slopes(self, taken: list[Floats], last: Floats) -> Floats:
        """The slopes (B, k, N) of k logits by backpropagation, from the last hidden layer's weights to them (k, N_l).

        `taken` (B, N_l) is what every layer took.
        """
        k, dA = len(last), np.tile(last, (len(taken[0]), 1))
        for code, (panels, width), A in zip(
            reversed(self._activations), reversed(self._backward), reversed(taken[1:]), strict=True
        ):
            activation_backward(np.repeat(A, k, axis=0), code, dA)
            dA = np.ascontiguousarray(_affine(dA, panels)[:, :width])
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = self._inputs.backward(np.repeat(taken[0], k, axis=0), dA)
        return slopes.reshape(len(taken[0]), k, -1)


class CalibratedExplainer(Explainer):
    """Explains a calibrated model: its logits as those of the model that gives them, its answer through the rest."""

    def __init__(self, model: Calibrated) -> None:
        self._inner: Final = explainer_of(model.inner)
        super().__init__(model, self._inner.bias, self._inner.centre)
        self._calibrated: Final = model

    def _made(self, X: Floats) -> Made:
        made = self._inner._made(X)  # noqa: SLF001  # one room
        scaled, P, labels = self._calibrated.behind(made.Z)
        labels[made.labels == NOT_FINITE] = NOT_FINITE
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = made.slopes * made.slopes.dtype.type(self._calibrated.slope)
        return Made(made.Z, scaled, P, labels, made.parts, slopes)


def explainer_of(model: Classifier) -> Explainer:
    """What explains a model: linear, a network, or one of these calibrated."""
    if isinstance(model, Calibrated):
        return CalibratedExplainer(model)
    if isinstance(model, NetworkModel):
        return NetworkExplainer(model)
    assert isinstance(model, LinearModel)  # noqa: S101  # there is no third kind
    return LinearExplainer(model)


def logits_of(model: Classifier, X: Floats) -> Floats:
    """The logits (B, K) of X (B, N) as explanations have them, in front of a calibration, and nothing else.

    Raises:
        UnacceptableError: A value of X is not finite, or a logit overflows the model's dtype.
    """
    if isinstance(model, Calibrated):
        return logits_of(model.inner, X)
    Z = model.logits(X)
    over = np.flatnonzero(~np.isfinite(Z).all(axis=1))
    if over.size:
        model._refuse_overflow(X)  # noqa: SLF001  # one room
        with np.errstate(over="ignore"):
            Z[over] = model._double.logits(X[over].astype(np.float64))  # noqa: SLF001
        if not np.isfinite(Z[over]).all():
            raise UnacceptableError(OVERFLOW)
    return Z


def _centre(stage: Stage | None, n_features: int) -> Doubles:
    """The means of a stage, or 0 without one."""
    return np.zeros(n_features) if stage is None else stage.mean


def _affine(A: Floats, panels: Floats) -> Floats:
    """A (B, N) times packed weights, whole panels wide."""
    Z = np.empty((len(A), panels.shape[0] * panels.shape[2]), A.dtype)
    linear_forward(A, panels, Z)
    return Z


def _backward_of(W: Floats) -> tuple[Floats, int]:
    """A layer's weights (N, K) packed to lead back from its outputs to its inputs, and N."""
    return pack(_transposed(W), np.zeros(len(W), W.dtype)), len(W)


def _transposed(W: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(W.T)
