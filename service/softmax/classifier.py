"""The base class of all models: probabilities, labels, log-probabilities and losses from logits.

A subclass computes the logits and the probabilities. This class validates arrays, and computes rows that overflow
float32 again in float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.input_stage import NOT_NUMBERS
from service.softmax.kernels.heads import MULTILABEL, OVR, SIGMOID, SOFTMAX
from service.softmax.kernels.label_losses import label_losses_forward
from service.softmax.kernels.loss import cross_entropy_forward, log_probabilities_forward
from service.softmax.kernels.single import SingleRowPlan

Head = Literal["softmax", "sigmoid", "multilabel", "ovr"]

LOGIT_OVERFLOW: Final = "A row has values too large for this model: its logits overflow; scale the features."
GRADIENT_OVERFLOW: Final = "A row has values too large for this model: its gradient overflows; scale the features."
# Numba's dispatcher ignores byte order and alignment, so such an array would be read wrongly (the check takes 52 of the
# 820 ns of a prediction of one row).
LAYOUT: Final = "X must be an aligned, writable, C-contiguous array of the model's dtype"
NO_LABELS: Final = np.empty(0, np.int64)

HEADS: Final[dict[str, int]] = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "multilabel": MULTILABEL, "ovr": OVR}
# So many rows are scored at once, because their logits stay in the cache.
CACHED_ROWS: Final = 1024
# The heads whose loss for one label is that of `label_losses_forward`.
ONE_LABEL: Final[frozenset[Head]] = frozenset(("softmax", "sigmoid"))


class LayerShape(NamedTuple):
    """The inputs and outputs of a layer, and its activation: "identity" for the layer of the head."""

    inputs: int
    outputs: int
    activation: str


class RowWork(NamedTuple):
    """The work of a kernel for a row: products with weights, and elementary functions such as activations."""

    products: int
    functions: int


class Classifier(ABC):
    """A model of `n_features` features and `n_logits` logits, in one dtype, with one of the heads.

    Args:
        head: The head's name.
        dtype: The dtype of rows and probabilities, float32 or float64.
        n_features: N, the width of a row.
        n_logits: K.
    """

    def __init__(self, head: Head, dtype: np.dtype[Any], n_features: int, n_logits: int) -> None:
        self.head: Final = head
        self.dtype: Final = dtype
        self.n_features: Final = n_features
        self.n_logits: Final = n_logits
        self.n_classes: Final = 2 if head == "sigmoid" else n_logits
        self._code: Final = HEADS[head]

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The shapes of the layers, the head's last."""
        return (LayerShape(self.n_features, self.n_logits, "identity"),)

    @property
    def row_work(self) -> RowWork:
        """The work of a row, without that of the head."""
        products = sum(layer.inputs * layer.outputs for layer in self.layers)
        return RowWork(products, sum(layer.outputs for layer in self.layers[:-1]))

    @property
    def is_linear(self) -> bool:
        """Whether the logits are sums over the features of a row, so that each feature has a contribution."""
        return len(self.layers) == 1

    def single_row_plan(self) -> SingleRowPlan | None:
        """Return new buffers to predict one row at a time in; None if the model has no such kernel."""
        return None

    @abstractmethod
    def logits(self, X: Floats) -> Floats:
        """Return Z (B, K) of X (B, N); not finite in rows that overflow the model's dtype."""

    @abstractmethod
    def _predict(self, X: Floats, labels: Integers) -> tuple[Floats, int]:
        """Return P (B, n_classes) and the first row's label.

        Args:
            X: (B, N).
            labels: (B,), written; or empty if the other labels are not needed.
        """

    @property
    @abstractmethod
    def float64_model(self) -> "Classifier":
        """The same model in float64, for rows that overflow float32."""

    def predict(self, X: Floats) -> Floats:
        """Return the probabilities P (B, n_classes) of X (B, N), which is C-contiguous and of the model's dtype.

        A row whose logits overflow float32 is computed again in float64.

        Raises:
            UnacceptableError: A value of X is not finite, or a row's logits overflow float64 as well.
            ValueError: X has another width.
            TypeError: X has another dtype or layout.
        """
        return self._predict(X, NO_LABELS)[0]

    def classify(self, X: Floats) -> tuple[Floats, list[int]]:
        """Return the probabilities of `predict` and the label of each row.

        A label is the lowest index of the row's largest probability, or 0 for the multilabel head.
        """
        if len(X) == 1:  # the kernel returns the first row's label, which saves an array for it
            P, label = self._predict(X, NO_LABELS)
            return P, [label]
        labels = np.empty(len(X), np.int64)
        return self._predict(X, labels)[0], labels.tolist()

    def log_probabilities(self, X: Floats) -> Doubles:
        """Return the logarithms (B, n_classes) float64 of the probabilities of X (B, N).

        Raises:
            UnacceptableError: As `predict`.
        """
        Z, over = self.finite_logits(X)
        out = np.empty((len(X), self.n_classes))
        log_probabilities_forward(Z, self._code, out)
        self.retry_in_float64(X, over, out, lambda model, rows: model.log_probabilities(rows))
        return out

    def losses(self, X: Floats, Y: Doubles) -> Doubles:
        """Return the training loss (B,) of X (B, N) for the targets Y (B, K), K = 1 for sigmoid; see loss.py.

        Raises:
            UnacceptableError: As `predict`.
        """
        Z, over = self.finite_logits(X)
        Y, losses = self.check_targets(Y, len(X)), np.empty(len(X))
        cross_entropy_forward(Z, Y, self._code, losses)
        self.retry_in_float64(X, over, losses, lambda model, rows: model.losses(rows, Y[over]))
        return losses

    def label_losses(self, X: Floats, labels: Integers) -> tuple[Doubles, Integers]:
        """Return -ln p (B,) of the label of each row of X (B, N), and the most probable class (B,), the lowest if tied.

        Args:
            X: (B, N).
            labels: (B,) class indices.

        Raises:
            UnacceptableError: As `predict`.
        """
        losses, answers = np.empty(len(X)), np.empty(len(X), np.int64)
        for start in range(0, len(X), CACHED_ROWS):
            rows = slice(start, start + CACHED_ROWS)
            self._write_label_losses(X[rows], labels[rows], losses[rows], answers[rows])
        return losses, answers

    def _write_label_losses(self, X: Floats, labels: Integers, losses: Doubles, answers: Integers) -> None:
        """Write what `label_losses` returns, with memory for the logits of all rows at once."""
        if self.head not in ONE_LABEL or not label_losses_forward(
            self.logits(X), self.n_classes, labels, losses, answers
        ):
            logs = self.log_probabilities(X)
            losses[:], answers[:] = -logs[np.arange(len(X)), labels], logs.argmax(axis=1)

    def check_rows(self, X: Floats) -> None:
        """Raise an error unless kernels can read X (B, N), B >= 1.

        Raises:
            ValueError: X has another shape.
            TypeError: X has another dtype or layout.
        """
        if X.ndim != 2 or X.shape[0] < 1 or X.shape[1] != self.n_features:  # noqa: PLR2004  # a matrix
            raise ValueError(f"X must be (at least 1, {self.n_features}), not {X.shape}")
        if X.dtype != self.dtype or not X.flags.carray:
            raise TypeError(LAYOUT)

    def check_targets(self, Y: Doubles, rows: int) -> Doubles:
        """Return Y (rows, K) as an array that kernels can read.

        Raises:
            ValueError: Y has another shape or dtype.
        """
        if Y.shape != (rows, self.n_logits) or Y.dtype != np.float64:
            raise ValueError(f"Y must be float64 of shape {(rows, self.n_logits)}, not {Y.dtype} of {Y.shape}")
        return np.require(Y, requirements=("C", "A", "W"))

    def reject_overflow(self, X: Floats) -> None:
        """Raise UnacceptableError if rows X whose logits overflow cannot be computed in float64 either."""
        if not np.isfinite(X).all():  # checked only here: such a value makes its row's logits infinite or NaN
            raise UnacceptableError(NOT_NUMBERS)
        if self.dtype == np.float64:
            raise UnacceptableError(LOGIT_OVERFLOW)

    def retry_in_float64(
        self,
        X: Floats,
        rows: NDArray[np.intp],
        out: NDArray[np.floating[Any]],
        compute: Callable[["Classifier", Doubles], NDArray[np.floating[Any]]],
    ) -> None:
        """Overwrite out[rows] with `compute` of the float64 model and X[rows] in float64, rounded to out's dtype."""
        if rows.size:
            out[rows] = compute(self.float64_model, X[rows].astype(np.float64))

    def finite_logits(self, X: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """Return Z (B, K) of X, and the rows whose logits overflow the model's dtype; their logits are set to 0.

        Raises:
            UnacceptableError: As `predict`.
        """
        Z = self.logits(X)
        over = overflowing_rows(Z)
        if over.size:
            self.reject_overflow(X)
            if not np.isfinite(self.float64_model.logits(X[over].astype(np.float64))).all():
                raise UnacceptableError(LOGIT_OVERFLOW)
            Z[over] = 0
        return Z, over

    def _predict_overflowing(self, X: Floats, P: Floats, labels: Integers) -> int:
        """Predict X again, with rows whose logits overflow in float64.

        Args:
            X: (B, N).
            P: (B, n_classes), overwritten.
            labels: (B,), overwritten; or empty.

        Returns:
            The first row's label.
        """
        self.reject_overflow(X)
        over = overflowing_rows(self.logits(X))
        others = np.setdiff1d(np.arange(len(X)), over)
        self.retry_in_float64(X, over, P, lambda model, rows: model.predict(rows))
        every = np.zeros(len(X), np.int64)
        if self.head != "multilabel":
            every[over] = P[over].argmax(axis=1)  # of the rounded probabilities, so that returned ties are ties here
        if others.size:
            P[others], every[others] = self.classify(X[others])
        if labels.size:
            labels[:] = every
        return int(every[0])


def overflowing_rows(Z: Floats) -> NDArray[np.intp]:
    """Return the indices of the rows of Z (B, K) with a number that is not finite."""
    return np.flatnonzero(~np.isfinite(Z).all(axis=1))
