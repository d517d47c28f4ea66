"""Linear models: validate arrays, call the kernels, and return new arrays.

Kernels trust their arguments and have no bounds checks, so only this room calls them. Models are immutable and
thread-safe.
"""

from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import HEADS, Head, overflowing_rows
from service.softmax.input_stage import Delta, Stage, check_delta, check_stage, copy_stage
from service.softmax.kernels.heads import predict_forward
from service.softmax.kernels.matmul import linear_forward, multiply_matrices, pack
from service.softmax.kernels.single import SingleRowPlan
from service.softmax.staged_model import StagedModel


class LinearGradients(NamedTuple):
    """Derivatives of the summed loss of B rows.

    Attributes:
        dW: (N, K), with respect to the weights.
        db: (K,), with respect to the bias.
        dX: (B, N), with respect to the raw rows.
        losses: (B,) float64.
        dD: (N, K), with respect to the delta's weights; (0, K) without a delta.
    """

    dW: Floats
    db: Floats
    dX: Floats
    losses: Doubles
    dD: Floats


class LinearModel(StagedModel):
    """A linear classifier P = head(stage(X) W + b).

    Args:
        head: "softmax", "sigmoid" (one logit, two classes), "multilabel" or "ovr".
        weights: W (N, K), float32 or float64, feature-major; K = 1 for the sigmoid head.
        bias: b (K,), of the same dtype.
        stage: The input stage, or None if the weights take raw features.
        delta: Learned weights, or None: the logits become Z = stage(X) W + b + delta.stage(X) delta.weights.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(
        self, head: Head, weights: Floats, bias: Floats, stage: Stage | None = None, delta: Delta | None = None
    ) -> None:
        _check_linear(head, weights, bias, stage, delta)
        self.weights: Final = np.array(weights, order="C")
        self.bias: Final = np.array(bias)
        self.delta: Final = (
            None if delta is None else Delta(np.array(delta.weights, order="C"), copy_stage(delta.stage))
        )
        delta_stage = None if self.delta is None else self.delta.stage
        super().__init__(head, weights.dtype, *weights.shape, stage=stage, delta_stage=delta_stage)
        self._all_weights: Final = self.weights if self.delta is None else np.vstack([self.weights, self.delta.weights])
        self._panels: Final = pack(self._all_weights, self.bias)

    def single_row_plan(self) -> SingleRowPlan | None:
        """Return new buffers to predict one row at a time in; None if the model has too many logits for them."""
        if not SingleRowPlan.fits(self._panels):
            return None
        return SingleRowPlan(self._panels, self._inputs.stagings(), self._code, self.n_logits, self.n_classes)

    def logits(self, X: Floats) -> Floats:
        """Return Z (B, K) of X (B, N); infinite or NaN where they overflow the model's dtype."""
        self.check_rows(X)
        Z = np.empty((len(X), self._panels.shape[0] * self._panels.shape[2]), self.dtype)
        linear_forward(self._inputs.stage_rows(X), self._panels, Z)
        return np.ascontiguousarray(Z[:, : self.n_logits])

    def gradients(self, X: Floats, Y: Doubles) -> LinearGradients:
        """Return derivatives of the summed loss of X (B, N), B >= 1, for the targets Y (B, K); see loss.py.

        dW = staged(X)^T dZ and dX = dZ W^T, through the stage's scale; where the stage clips, dX is 0. Numbers that
        overflow float32 are computed in float64 and rounded: single rows of dX, and dW and db as a whole.

        Raises:
            UnacceptableError: As `predict`, or a derivative overflows the model's dtype.
        """
        dZ, losses, Y, over = self._logit_gradients(X, Y)
        with np.errstate(invalid="ignore", over="ignore"):
            sums, dX = self._weight_gradients(X, dZ), self._row_gradients(X, dZ)
        steep = np.union1d(over, overflowing_rows(dX))
        if steep.size or not np.isfinite(sums).all():
            self._reject_steep()
            wide, dZ, model = X.astype(np.float64), dZ.astype(np.float64), self.float64_model
            if over.size:
                exact = model._logit_gradients(wide[over], Y[over])  # noqa: SLF001  # of the same class
                losses[over], dZ[over] = exact.losses, exact.dZ
            sums = self._round_gradients(model._weight_gradients(wide, dZ))  # noqa: SLF001
            dX[steep] = self._round_gradients(model._row_gradients(wide[steep], dZ[steep]))  # noqa: SLF001
        N = self.n_features
        return LinearGradients(sums[:N], sums[-1], dX, losses, sums[N:-1])

    def _weight_gradients(self, X: Floats, dZ: Floats) -> Floats:
        """Return derivatives (F + 1, K) of the weights, the delta's, and last the bias: sums over rows, in order."""
        rows = np.hstack([self._inputs.stage_rows(X), np.ones((len(X), 1), self.dtype)])
        return multiply_matrices(np.ascontiguousarray(rows.T), dZ)

    def _row_gradients(self, X: Floats, dZ: Floats) -> Floats:
        """Return the derivatives (B, N) of the raw rows."""
        staged_gradients = multiply_matrices(dZ, np.ascontiguousarray(self._all_weights.T))
        return self._inputs.backward(self._inputs.stage_rows(X), staged_gradients)

    def _predict_staged(self, rows: Floats, P: Floats, labels: Integers) -> int:
        label: int = predict_forward(rows, self._panels, self._code, self.n_logits, P, labels)
        return label

    @cached_property
    def float64_model(self) -> "LinearModel":
        """The same model in float64, for rows that overflow float32."""
        delta = None if self.delta is None else Delta(self.delta.weights.astype(np.float64), self.delta.stage)
        return LinearModel(self.head, self.weights.astype(np.float64), self.bias.astype(np.float64), self.stage, delta)


def _check_linear(head: str, weights: Floats, bias: Floats, stage: Stage | None, delta: Delta | None) -> None:
    """Raise ValueError unless these form a linear model."""
    if head not in HEADS:
        raise ValueError("head must be softmax, sigmoid, multilabel or ovr")
    if weights.dtype not in (np.float32, np.float64) or weights.dtype != bias.dtype:
        raise ValueError("weights and bias must both be float32 or both float64")
    if weights.ndim != 2 or 0 in weights.shape or bias.shape != weights.shape[1:]:  # noqa: PLR2004  # a matrix
        raise ValueError("weights must be (N, K) and bias (K,), with N and K at least 1")
    if head == "sigmoid" and weights.shape[1] != 1:
        raise ValueError("a sigmoid head has one logit")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("weights and bias must be finite")
    if stage is not None:
        check_stage(stage, weights)
    if delta is not None:
        check_delta(delta, weights)
