"""The base class of models that compute logits from staged rows: shared predictions and loss gradients."""

from abc import abstractmethod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import GRADIENT_OVERFLOW, LAYOUT, Classifier, Head
from service.softmax.input_stage import InputStage, Stage, copy_stage
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward


class LogitGradients(NamedTuple):
    """Losses of B rows, and their derivatives with respect to the logits.

    Attributes:
        dZ: (B, K); of logits 0 in rows that overflow.
        losses: (B,) float64; of logits 0 in rows that overflow.
        Y: (B, K) float64, the validated targets.
        over: The rows whose logits overflow the model's dtype.
    """

    dZ: Floats
    losses: Doubles
    Y: Doubles
    over: NDArray[np.intp]


class StagedModel(Classifier):
    """A model whose weights take staged rows.

    Args:
        head: The head's name.
        dtype: The dtype of rows, weights and probabilities.
        n_features: N, the width of a raw row.
        n_logits: K.
        stage: The input stage of the weights, or None if they take raw rows.
        delta_stage: The stage of the delta's weights, or None if there is no delta.
    """

    def __init__(
        self,
        head: Head,
        dtype: np.dtype[Any],
        n_features: int,
        n_logits: int,
        *,
        stage: Stage | None,
        delta_stage: Stage | None = None,
    ) -> None:
        super().__init__(head, dtype, n_features, n_logits)
        self.stage: Final = None if stage is None else copy_stage(stage)
        self._is_raw: Final = stage is None and delta_stage is None
        self._inputs: Final = InputStage(self.stage, delta_stage, n_features, dtype)

    @abstractmethod
    def _predict_staged(self, rows: Floats, P: Floats, labels: Integers) -> int:
        """Write P (B, n_classes) and labels (B,) of staged rows; return the first row's label, or NOT_FINITE."""

    def _predict(self, X: Floats, labels: Integers) -> tuple[Floats, int]:
        B, N = X.shape
        if self.n_features != N:
            raise ValueError(f"X has {N} features; this model takes {self.n_features}")
        if (X.dtype is not self.dtype and X.dtype != self.dtype) or not X.flags.carray:
            raise TypeError(LAYOUT)
        P = np.empty((B, self.n_classes), self.dtype)
        label = self._predict_staged(X if self._is_raw else self._inputs.stage_rows(X), P, labels)
        if label == NOT_FINITE:
            return P, self._predict_overflowing(X, P, labels)
        return P, label

    def _logit_gradients(self, X: Floats, Y: Doubles) -> LogitGradients:
        """Return losses and logit gradients of X (B, N) for the targets Y (B, K).

        Raises:
            UnacceptableError: As `predict`.
        """
        Z, over = self.finite_logits(X)
        Y, losses, dZ = self.check_targets(Y, len(X)), np.empty(len(X)), np.empty_like(Z)
        cross_entropy_forward(Z, Y, self._code, losses)
        cross_entropy_backward(Z, Y, self._code, dZ)
        return LogitGradients(dZ, losses, Y, over)

    def _reject_steep(self) -> None:
        """Raise UnacceptableError if overflowing gradients cannot be computed in float64 either."""
        if self.dtype == np.float64:
            raise UnacceptableError(GRADIENT_OVERFLOW)

    def _round_gradients(self, exact: Floats) -> Floats:
        """Return float64 derivatives in the model's dtype.

        Raises:
            UnacceptableError: A derivative overflows that dtype.
        """
        with np.errstate(over="ignore"):
            rounded = exact.astype(self.dtype)
        if not np.isfinite(rounded).all():
            raise UnacceptableError(GRADIENT_OVERFLOW)
        return rounded
