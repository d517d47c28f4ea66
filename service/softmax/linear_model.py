"""The safe door to the kernels: a model checks what it is given, calls a kernel, and hands out fresh arrays.

Kernels trust their arguments (they have no bounds checks); nothing outside this room calls them. A model is immutable
and can be used from several threads at a time.
"""

from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.classifier import HEADS, LAYOUT, STEEP, Classifier, Head
from service.softmax.input_stage import Delta, Doubles, Floats, InputStage, Stage, check_delta, check_stage, owned
from service.softmax.kernels.heads import NOT_FINITE, predict_forward
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward
from service.softmax.kernels.matmul import linear_forward, pack
from service.softmax.kernels.single import SingleRowPlan

__all__ = ["HEADS", "LAYOUT", "Delta", "Doubles", "Floats", "Gradients", "Head", "LinearModel", "Stage", "multiply"]


class Gradients(NamedTuple):
    """Derivatives of the summed loss of B rows: `dW` (N, K), `db` (K,), `dX` (B, N), and `losses` (B,) float64.

    `dD` (N, K) is that of the delta's weights; it has no rows where the model has no delta.
    """

    dW: Floats
    db: Floats
    dX: Floats
    losses: Doubles
    dD: Floats


class LinearModel(Classifier):
    """A linear classifier P = head(stage(X) W + b), served by the deterministic kernels.

    Args:
        head: "softmax", "sigmoid" (one logit, two classes), "multilabel" or "ovr".
        weights: W (N, K), float32 or float64, feature-major; K = 1 for the sigmoid head.
        bias: b (K,), of the same dtype.
        stage: The input stage, or None where the weights take raw features.
        delta: What learning has added, or None: the logits become Z = stage(X) W + b + delta.stage(X) delta.weights.

    Raises:
        ValueError: The shapes or dtypes contradict each other, or a value is not finite.
    """

    def __init__(
        self, head: Head, weights: Floats, bias: Floats, stage: Stage | None = None, delta: Delta | None = None
    ) -> None:
        _check(head, weights, bias, stage, delta)
        super().__init__(head, weights.dtype, *weights.shape)
        self.weights: Final = np.array(weights, order="C")
        self.bias: Final = np.array(bias)
        self.stage: Final = None if stage is None else owned(stage)
        self.delta: Final = None if delta is None else Delta(np.array(delta.weights, order="C"), owned(delta.stage))
        self._long: Final = self.weights if self.delta is None else np.vstack([self.weights, self.delta.weights])
        self._panels: Final = pack(self._long, self.bias)
        self._raw: Final = self.stage is None and self.delta is None
        behind = None if self.delta is None else self.delta.stage
        self._inputs: Final = InputStage(self.stage, behind, self.n_features, self.dtype)

    def single(self) -> SingleRowPlan | None:
        """Buffers to predict one row at a time in; None where the model has too many logits for that."""
        if not SingleRowPlan.fits(self._panels):
            return None
        return SingleRowPlan(self._panels, self._inputs.stagings(), self._code, self.n_logits, self.n_classes)

    def logits(self, X: Floats) -> Floats:
        """Z (B, K) of X (B, N); infinite where they overflow the model's dtype."""
        self._check_rows(X)
        Z = np.empty((len(X), self._panels.shape[0] * self._panels.shape[2]), self.dtype)
        linear_forward(self._inputs.rows(X), self._panels, Z)
        return np.ascontiguousarray(Z[:, : self.n_logits])

    def gradients(self, X: Floats, Y: Doubles) -> Gradients:
        """Derivatives of the summed loss of X (B, N), B >= 1, for the targets Y (B, K): see loss.py.

        dW = staged(X)^T dZ and dX = dZ W^T, through the stage's scale; where the stage clips, dX is 0. What overflows
        float32 is computed in float64 and rounded: single rows of dX, and the sums dW and db as a whole.

        Raises:
            UnacceptableError: As `predict`, or a derivative cannot be represented in the model's dtype.
        """
        Z, over = self._finite_logits(X)
        Y, losses, dZ = self._targets(Y, len(X)), np.empty(len(X)), np.empty_like(Z)
        cross_entropy_forward(Z, Y, self._code, losses)
        cross_entropy_backward(Z, Y, self._code, dZ)
        with np.errstate(invalid="ignore", over="ignore"):
            sums, dX = self._sums(X, dZ), self._slopes(X, dZ)
        steep = np.union1d(over, np.flatnonzero(~np.isfinite(dX).all(axis=1)))
        if over.size or steep.size or not np.isfinite(sums).all():
            if self.dtype == np.float64:
                raise UnacceptableError(STEEP)
            wide, dZ = X.astype(np.float64), dZ.astype(np.float64)
            if over.size:
                losses[over] = self._double.losses(wide[over], Y[over])
                dZ[over] = self._double._logit_gradients(wide[over], Y[over])  # noqa: SLF001  # of the same class
            sums = self._rounded(self._double._sums(wide, dZ))  # noqa: SLF001
            dX[steep] = self._rounded(self._double._slopes(wide[steep], dZ[steep]))  # noqa: SLF001
        N = self.n_features
        return Gradients(sums[:N], sums[-1], dX, losses, sums[N:-1])

    def _logit_gradients(self, X: Floats, Y: Doubles) -> Floats:
        """The derivatives (B, K) of the logits of rows whose logits are finite."""
        Z = self.logits(X)
        dZ = np.empty_like(Z)
        cross_entropy_backward(Z, Y, self._code, dZ)
        return dZ

    def _sums(self, X: Floats, dZ: Floats) -> Floats:
        """The derivatives (F + 1, K) of the weights, the delta's, and last of the bias: sums over rows, in order."""
        rows = np.hstack([self._inputs.rows(X), np.ones((len(X), 1), self.dtype)])
        return multiply(np.ascontiguousarray(rows.T), dZ)

    def _slopes(self, X: Floats, dZ: Floats) -> Floats:
        """The derivatives (B, N) of the raw rows."""
        return self._inputs.backward(self._inputs.rows(X), multiply(dZ, np.ascontiguousarray(self._long.T)))

    def _predict(self, X: Floats, labels: NDArray[np.int64]) -> tuple[Floats, int]:
        """P (B, n_classes) and the first row's label; labels (B,) is written, or is empty where none are wanted."""
        B, N = X.shape
        if self.n_features != N:
            raise ValueError(f"X has {N} features, the model {self.n_features}")
        if (X.dtype is not self.dtype and X.dtype != self.dtype) or not X.flags.carray:
            raise TypeError(LAYOUT)
        staged = X if self._raw else self._inputs.rows(X)
        P = np.empty((B, self.n_classes), self.dtype)
        label = predict_forward(staged, self._panels, self._code, self.n_logits, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_again(X, P, labels)
        return P, label

    @cached_property
    def _double(self) -> "LinearModel":
        """The same model in float64, for rows that overflow float32."""
        delta = None if self.delta is None else Delta(self.delta.weights.astype(np.float64), self.delta.stage)
        return LinearModel(self.head, self.weights.astype(np.float64), self.bias.astype(np.float64), self.stage, delta)


def multiply(A: Floats, B: Floats) -> Floats:
    """A (M, J) times B (J, K), J >= 1, by the tile kernel: the sum over J runs in order, whatever the processor is."""
    panels = pack(B, np.zeros(B.shape[1], B.dtype))
    out = np.empty((len(A), panels.shape[0] * panels.shape[2]), B.dtype)
    linear_forward(A, panels, out)
    return np.ascontiguousarray(out[:, : B.shape[1]])


def _check(head: str, weights: Floats, bias: Floats, stage: Stage | None, delta: Delta | None) -> None:
    """Raise ValueError where a model cannot be made of these."""
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
