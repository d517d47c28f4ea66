"""Explain sparse models, by arrays of the columns that are present in each row.

The numbers are those of explainer.py for the dense row: contributions x_j w_kj, sensitivities dp / dx_j, and loss
gradients dL / dx_j. Those of absent columns are not computed. Such a column contributes nothing, and K N slopes would
be too many.
"""

from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import GRADIENT_OVERFLOW, HEADS, LOGIT_OVERFLOW
from service.softmax.explanation import NO_ROWS
from service.softmax.input_stage import NOT_NUMBERS
from service.softmax.kernels.attributions import answered_losses, sensitivities_forward
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows


class SparseExplanation(NamedTuple):
    """Explanations of B rows with E entries, in the dtype of the rows except labels and losses.

    Attributes:
        ends: (B,) int64, where the entries of each row end.
        columns: (E,) int32, the columns that are present.
        labels: (B,) int64, as in `classify`.
        logits: Z (B, K), before a calibration.
        probabilities: P (B, C), C = 2 for the sigmoid head, else K.
        contributions: (E, K); those of a row and the bias sum to its logits, except for rounding.
        sensitivities: (E, C), dP_c / dx_j.
        losses: (B,) float64 of the returned probabilities, or None without targets.
        loss_gradients: (E,), dL / dx_j, or None without targets.
        over: The rows with a number that overflows float32. Only their labels and probabilities are set.
        exact: The float64 explanations of those rows, in their order; None if there are none.
    """

    ends: Integers
    columns: NDArray[np.int32]
    labels: Integers
    logits: Floats
    probabilities: Floats
    contributions: Floats
    sensitivities: Floats
    losses: Doubles | None
    loss_gradients: Floats | None
    over: NDArray[np.intp]
    exact: "SparseExplanation | None" = None

    def entries_of(self, row: int) -> slice:
        """Return where the entries of a row are in the arrays of E."""
        return slice(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))


class SparseExplainer:
    """Explain the predictions of one sparse model. Immutable and thread-safe.

    Args:
        model: The model, with or without a calibration.

    Attributes:
        bias: (K,), the part of each logit that comes from no column.
    """

    def __init__(self, model: SparseModel) -> None:
        self.bias: Final[Floats] = model.weights.bias()
        self._model: Final = model
        self._code: Final = HEADS[model.head]

    @cached_property
    def float64_explainer(self) -> "SparseExplainer":
        """The explainer of the same model in float64, for rows that overflow float32."""
        return SparseExplainer(self._model.float64_model)

    def explain(self, rows: SparseRows, Y: Doubles | None = None) -> SparseExplanation:
        """Explain the predictions of rows.

        A row with a number that overflows float32 is explained in float64.

        Args:
            rows: B rows, B >= 1, with values of the model's dtype.
            Y: (B, K) targets as in kernels/loss.py, or None.

        Raises:
            UnacceptableError: A value is not finite, or a number overflows float64 as well.
            ValueError: The rows are not rows of N columns, or Y has another shape.
            TypeError: An array has another dtype or layout.
        """
        model, K = self._model, self._model.n_logits
        Z = model.uncalibrated.logits(rows)
        if Y is not None and (Y.shape != Z.shape or Y.dtype != np.float64):
            raise ValueError(f"Y must be float64 of shape {Z.shape}, not {Y.dtype} of {Y.shape}")
        targets = np.empty((0, K)) if Y is None else np.require(Y, requirements=("C", "A", "W"))
        scaled, B, E = model.logits(rows), len(Z), len(rows.columns)
        P, labels = np.empty((B, model.n_classes), model.dtype), np.empty(B, np.int64)
        head_forward(scaled, self._code, P, labels)
        weights = model.weights.rows_of(rows.columns).astype(model.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            contributions = weights * rows.values[:, None] + model.dtype.type(0)  # adding 0 prevents a result of -0.0
            slopes = weights * model.dtype.type(model.slope)
        sensitivities = np.empty((E, model.n_classes), model.dtype)
        found = SparseExplanation(
            rows.ends, rows.columns, labels, Z, P, contributions, sensitivities, None, None, NO_ROWS
        )
        if Y is not None:
            found = found._replace(losses=np.empty(B), loss_gradients=np.empty(E, model.dtype))
        for row in range(B):
            self._differentiate(found, row, scaled, targets, slopes)
        if found.losses is not None:
            answered_losses(scaled, targets, self._code, labels, found.losses)
        over = np.flatnonzero(labels == NOT_FINITE)
        return found if not over.size else self._add_float64_rows(rows, Y, found, over)

    def _differentiate(self, found: SparseExplanation, row: int, scaled: Floats, Y: Doubles, slopes: Floats) -> None:
        """Write the sensitivities and loss gradients of a row; its label is NOT_FINITE if a number overflows."""
        at, one, C = found.entries_of(row), slice(row, row + 1), found.probabilities.shape[1]
        n = at.stop - at.start
        if not n:
            return
        if not (np.isfinite(found.contributions[at]).all() and np.isfinite(slopes[at]).all()):
            found.labels[row] = NOT_FINITE
            return
        S, D = np.empty((1, C, n), scaled.dtype), np.empty((len(Y[one]), n), scaled.dtype)
        sensitivities_forward(
            scaled[one], found.probabilities[one], Y[one], self._code,
            np.ascontiguousarray(slopes[at].T)[None], found.labels[one], S, D,
        )  # fmt: skip
        found.sensitivities[at] = S[0].T
        if found.loss_gradients is not None:
            found.loss_gradients[at] = D[0]

    def _add_float64_rows(
        self, rows: SparseRows, Y: Doubles | None, found: SparseExplanation, over: NDArray[np.intp]
    ) -> SparseExplanation:
        """Return the explanation with the rows `over` explained in float64."""
        again = rows.take(over)
        if not np.isfinite(again.values).all():
            raise UnacceptableError(NOT_NUMBERS)
        if self._model.dtype == np.float64:
            raise UnacceptableError(GRADIENT_OVERFLOW if np.isfinite(found.logits[over]).all() else LOGIT_OVERFLOW)
        exact = self.float64_explainer.explain(again.astype(np.float64), None if Y is None else Y[over])
        found.probabilities[over], found.labels[over] = self._model.classify(again)
        return found._replace(over=over, exact=exact)
