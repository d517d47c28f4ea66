"""Sparse models: linear classifiers of rows in which most columns are 0.

Their methods are those of `Classifier`, for `SparseRows` in place of a matrix. They do not share its base, whose rows
are arrays in every signature. A calibration is part of the model. Models are immutable and thread-safe.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import KINDS, Calibration
from service.softmax.classifier import (
    CACHED_ROWS,
    HEADS,
    LOGIT_OVERFLOW,
    NO_LABELS,
    ONE_LABEL,
    Head,
    LayerShape,
    RowWork,
    overflowing_rows,
)
from service.softmax.input_stage import NOT_NUMBERS
from service.softmax.kernels.calibration_kernels import head_forward, scaling_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.kernels.label_losses import label_losses_forward
from service.softmax.kernels.loss import cross_entropy_forward, log_probabilities_forward
from service.softmax.kernels.single import SparseRowPlan
from service.softmax.kernels.sparse_forward import INVALID_ROWS, sparse_logits_forward, sparse_predict_forward
from service.softmax.sparse_rows import SparseRows, check_layout, check_sparse_rows
from service.softmax.sparse_weights import SparseWeights

SINGLE: Final = np.dtype(np.float32)
# The entries of a usual row, by which its time is estimated: a short text has some 30, a long one some hundreds.
USUAL_ENTRIES: Final = 100
# The multiplications that a present column counts as: its weights are a cache line from anywhere in memory.
COLUMN_PRODUCTS: Final = 2000


class SparseModel:
    """A linear classifier P = head(calibration(x W + b)) of sparse rows.

    Args:
        head: "softmax", "sigmoid" (one logit, two classes), "multilabel" or "ovr".
        weights: W and b, float32.
        calibration: The calibration of the logits, of the kind of the head; or None.
        dtype: The dtype of rows, logits and probabilities: float32, or float64 for rows that overflow it.

    Attributes:
        head: As given.
        weights: As given.
        calibration: As given.
        dtype: As given.
        n_features: N, the number of columns.
        n_logits: K.
        n_classes: The columns of P.

    Raises:
        ValueError: The arguments contradict each other.
    """

    is_linear: Final = True

    def __init__(
        self,
        head: Head,
        weights: SparseWeights,
        calibration: Calibration | None = None,
        dtype: np.dtype[Any] = SINGLE,
    ) -> None:
        if head not in HEADS:
            raise ValueError("head must be softmax, sigmoid, multilabel or ovr")
        if head == "sigmoid" and weights.n_logits != 1:
            raise ValueError("a sigmoid head has one logit")
        if calibration is not None and KINDS.get(head) != calibration.kind:
            raise ValueError("a softmax head is calibrated by a temperature, a sigmoid head by platt; no other can be")
        self.head: Final = head
        self.weights: Final = weights
        self.calibration: Final = calibration
        self.dtype: Final = np.dtype(dtype)
        self.n_features: Final = weights.n_columns
        self.n_logits: Final = weights.n_logits
        self.n_classes: Final = 2 if head == "sigmoid" else weights.n_logits
        self._code: Final = HEADS[head]
        self._cells: Final = weights.cells
        self._numbers: Final = None if calibration is None else calibration.kernel_numbers()

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The shape of the only layer."""
        return (LayerShape(self.n_features, self.n_logits, "identity"),)

    @property
    def row_work(self) -> RowWork:
        """The work of a row of USUAL_ENTRIES entries, without that of the head."""
        return RowWork(USUAL_ENTRIES * COLUMN_PRODUCTS, 0)

    def single_row_plan(self) -> SparseRowPlan | None:
        """Return the buffers to predict single rows, or None if the model is calibrated."""
        if self._numbers is not None:
            return None
        return SparseRowPlan(self._cells, self.weights, self._code, self.n_logits, self.n_classes)

    @property
    def slope(self) -> float:
        """The derivative of a calibrated logit with respect to that of the weights: 1 / T, or a; 1 without."""
        if self._numbers is None or self.calibration is None:
            return 1.0
        return float(1 / self._numbers[0] if self.calibration.kind == "temperature" else self._numbers[0])

    @cached_property
    def uncalibrated(self) -> "SparseModel":
        """The model without its calibration."""
        return SparseModel(self.head, self.weights, None, self.dtype)

    @cached_property
    def float64_model(self) -> "SparseModel":
        """The same model in float64, for rows that overflow float32. It shares the weights."""
        return SparseModel(self.head, self.weights, self.calibration, np.dtype(np.float64))

    def logits(self, rows: SparseRows) -> Floats:
        """Return the calibrated logits Z (B, K); not finite in rows that overflow the model's dtype.

        Raises:
            ValueError: The rows are not rows of N columns.
            TypeError: An array of the rows has another dtype or layout.
        """
        check_layout(rows, self.dtype)
        Z = np.empty((len(rows.ends), self.n_logits), self.dtype)
        if not sparse_logits_forward(*rows, self._cells, self.n_logits, Z):
            self._reject(rows)
        if self._numbers is not None:
            scaling_forward(Z, self._code, self._numbers)
        return Z

    def uncalibrated_logits(self, rows: SparseRows) -> Floats:
        """Return the logits (B, K) before the calibration, as in explanations.

        Raises:
            UnacceptableError: A value is not finite, or a logit overflows the model's dtype.
        """
        model = self.uncalibrated
        Z, over = model.finite_logits(rows)
        if over.size:
            with np.errstate(over="ignore"):
                Z[over] = model.float64_model.logits(rows.take(over).astype(np.float64))
            if not np.isfinite(Z[over]).all():
                raise UnacceptableError(LOGIT_OVERFLOW)
        return Z

    def predict(self, rows: SparseRows) -> Floats:
        """Return the probabilities P (B, n_classes) of rows with values of the model's dtype.

        A row whose logits overflow float32 is computed again in float64.

        Raises:
            UnacceptableError: A value is not finite, or a row's logits overflow float64 as well.
            ValueError: The rows are not rows of N columns.
            TypeError: An array of the rows has another dtype or layout.
        """
        return self._predict(rows, NO_LABELS)[0]

    def classify(self, rows: SparseRows) -> tuple[Floats, list[int]]:
        """Return the probabilities of `predict` and the label of each row.

        A label is the lowest index of the row's largest probability, or 0 for the multilabel head.
        """
        if len(rows.ends) == 1:  # the kernel returns the first row's label, which saves an array for it
            P, label = self._predict(rows, NO_LABELS)
            return P, [label]
        labels = np.empty(len(rows.ends), np.int64)
        return self._predict(rows, labels)[0], labels.tolist()

    def log_probabilities(self, rows: SparseRows) -> Doubles:
        """Return the logarithms (B, n_classes) float64 of the probabilities.

        Raises:
            UnacceptableError: As `predict`.
        """
        Z, over = self.finite_logits(rows)
        out = np.empty((len(Z), self.n_classes))
        log_probabilities_forward(Z, self._code, out)
        self._retry(rows, over, out, lambda model, wide: model.log_probabilities(wide))
        return out

    def losses(self, rows: SparseRows, Y: Doubles) -> Doubles:
        """Return the training loss (B,) of rows for the targets Y (B, K), K = 1 for sigmoid; see loss.py.

        Raises:
            UnacceptableError: As `predict`.
        """
        Z, over = self.finite_logits(rows)
        if Y.shape != Z.shape or Y.dtype != np.float64:
            raise ValueError(f"Y must be float64 of shape {Z.shape}, not {Y.dtype} of {Y.shape}")
        Y, losses = np.require(Y, requirements=("C", "A", "W")), np.empty(len(Z))
        cross_entropy_forward(Z, Y, self._code, losses)
        self._retry(rows, over, losses, lambda model, wide: model.losses(wide, Y[over]))
        return losses

    def label_losses(self, rows: SparseRows, labels: Integers) -> tuple[Doubles, Integers]:
        """Return -ln p (B,) of the label of each row, and the most probable class (B,), the lowest if tied.

        Args:
            rows: B rows.
            labels: (B,) class indices.

        Raises:
            UnacceptableError: As `predict`.
        """
        B = rows.n_rows
        losses, answers = np.empty(B), np.empty(B, np.int64)
        for start in range(0, B, CACHED_ROWS):
            part = slice(start, min(start + CACHED_ROWS, B))
            some = rows.slice_rows(part.start, part.stop)
            self._write_label_losses(some, labels[part], losses[part], answers[part])
        return losses, answers

    def _write_label_losses(self, rows: SparseRows, labels: Integers, losses: Doubles, answers: Integers) -> None:
        """Write what `label_losses` returns, with memory for the logits of all rows at once."""
        if self.head not in ONE_LABEL or not label_losses_forward(
            self.logits(rows), self.n_classes, labels, losses, answers
        ):
            logs = self.log_probabilities(rows)
            losses[:], answers[:] = -logs[np.arange(len(logs)), labels], logs.argmax(axis=1)

    def finite_logits(self, rows: SparseRows) -> tuple[Floats, NDArray[np.intp]]:
        """Return Z (B, K), and the rows whose logits overflow the model's dtype; their logits are set to 0.

        Raises:
            UnacceptableError: As `predict`.
        """
        Z = self.logits(rows)
        over = overflowing_rows(Z)
        if over.size:
            self.reject_overflow(rows)
            if not np.isfinite(self.float64_model.logits(rows.take(over).astype(np.float64))).all():
                raise UnacceptableError(LOGIT_OVERFLOW)
            Z[over] = 0
        return Z, over

    def reject_overflow(self, rows: SparseRows) -> None:
        """Raise UnacceptableError if rows whose logits overflow cannot be computed in float64 either."""
        if not np.isfinite(rows.values).all():  # checked only here: such a value makes its row's logits infinite or NaN
            raise UnacceptableError(NOT_NUMBERS)
        if self.dtype == np.float64:
            raise UnacceptableError(LOGIT_OVERFLOW)

    def _predict(self, rows: SparseRows, labels: Integers) -> tuple[Floats, int]:
        """Return P (B, n_classes) and the first row's label; labels (B,) is written, or empty if not needed."""
        P = np.empty((len(rows.ends), self.n_classes), self.dtype)
        if self._numbers is None:
            check_layout(rows, self.dtype)
            label = sparse_predict_forward(*rows, self._cells, self._code, self.n_logits, P, labels)
        else:
            label = head_forward(self.logits(rows), self._code, P, labels)
        if label == NOT_FINITE:
            return P, self._predict_overflowing(rows, P, labels)
        if label == INVALID_ROWS:
            self._reject(rows)
        return P, label

    def _predict_overflowing(self, rows: SparseRows, P: Floats, labels: Integers) -> int:
        """Overwrite P and labels, with rows whose logits overflow in float64. Return the first row's label."""
        self.reject_overflow(rows)
        over = overflowing_rows(self.logits(rows))
        others = np.setdiff1d(np.arange(len(P)), over)
        self._retry(rows, over, P, lambda model, wide: model.predict(wide))
        every = np.zeros(len(P), np.int64)
        if self.head != "multilabel":
            every[over] = P[over].argmax(axis=1)  # of the rounded probabilities, so that returned ties are ties here
        if others.size:
            P[others], every[others] = self.classify(rows.take(others))
        if labels.size:
            labels[:] = every
        return int(every[0])

    def _retry(
        self,
        rows: SparseRows,
        over: NDArray[np.intp],
        out: NDArray[np.floating[Any]],
        compute: Callable[["SparseModel", SparseRows], NDArray[np.floating[Any]]],
    ) -> None:
        """Overwrite out[over] with `compute` of the float64 model and these rows, rounded to out's dtype."""
        if over.size:
            out[over] = compute(self.float64_model, rows.take(over).astype(np.float64))

    def _reject(self, rows: SparseRows) -> None:
        """Raise the ValueError that says why a kernel cannot read these rows."""
        check_sparse_rows(rows, self.n_features)
        raise AssertionError("a kernel refused rows that are valid")
