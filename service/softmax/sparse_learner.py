"""Sparse models that learn from rows.

    z = x W + b      over the columns that are present in a row, as in sparse_model.py

A `SparseLearner` owns the arrays of kernels/sparse_fold.py: W and the sums G in float32; W is served too. It learns by
sgd, adagrad or ftrl, in the form plain. A step touches the columns of its row and the bias alone. So a checkpoint holds
the columns that were ever touched, and a snapshot those that have changed since an earlier one. The methods are those
of `Learner`, for `SparseRows` in place of a matrix.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.cache_lines import empty_at_cache_line
from service.softmax.calibration import Calibration
from service.softmax.classifier import HEADS, Head
from service.softmax.fold_arguments import check_targets_and_weights
from service.softmax.kernels.changed_rows import SQUARES
from service.softmax.kernels.sparse_fold import sparse_fold_forward
from service.softmax.learner import RULES, THRESHOLD, answer_logits, rule_constants
from service.softmax.learner_tensors import check_same_tensors, check_squares
from service.softmax.progress import ProgressCounts
from service.softmax.rule import RULES_WITH_SQUARES, Form, Rule, RuleName
from service.softmax.sparse_model import SINGLE
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows, check_layout, check_sparse_rows
from service.softmax.sparse_weights import Singles, SparseWeights, build_changes, row_numbers
from service.softmax.touched_columns import TouchedColumns, are_columns

SPARSE_RULES: Final[tuple[RuleName, ...]] = ("sgd", "adagrad", "ftrl")


class SparseLearner:
    """A sparse model that learns.

    Args:
        start: The first parameters, copied.
        rule: The learning rule: sgd, adagrad or ftrl.
        thresholds: (K,), the p from which a class is predicted; only a multilabel head uses them.
        first_squares: (N + 1,), the first G of the bias and of each column; None for `rule.start` in each.

    Attributes:
        rule: The current rule.
        thresholds: As given, and those of added classes.
        added_classes: The number of classes of each call of `add_classes`.
        touched: The columns that have changed, ever and since the parameters were saved as a whole.

    Raises:
        ValueError: `start` is no model, the rule is another one, or a shape is wrong.
    """

    form: Final[Form] = "plain"
    dtype: Final = SINGLE

    def __init__(
        self, start: SparseParameters, rule: Rule, thresholds: Doubles, first_squares: Floats | None = None
    ) -> None:
        start.build_model()
        _check_rule(rule)
        self.rule = rule
        self.thresholds = np.array(thresholds, np.float64)
        if self.thresholds.shape != (start.n_logits,):
            raise ValueError("there must be one threshold for each logit")
        self.added_classes: list[int] = []
        self.n_features: Final = start.n_features
        self.head: Final[Head] = start.head
        self._code: Final = HEADS[start.head]
        self._counts = ProgressCounts()
        self.touched: Final = TouchedColumns(self.n_features)
        self._regret: Final = np.zeros(1)
        self._constants = rule_constants(rule, np.inf)
        self._first_squares = check_squares(first_squares, self.n_features, SINGLE)
        self._weights = SparseWeights(start.weights.merged(), start.n_logits)
        self._reset_sums()

    @property
    def n_logits(self) -> int:
        """K, the current number of logits."""
        return self._weights.n_logits

    @property
    def progress(self) -> dict[str, float]:
        """The counts so far, by name; see `summarize_progress`."""
        return self._counts.summarize()

    @property
    def window(self) -> Doubles:
        """Confidence and accuracy of the answer to each recent row, (2, R)."""
        return self._counts.window

    def fold(  # as in `Learner`
        self,
        rows: SparseRows,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
        *,
        learning: bool = True,
        scores: Floats | None = None,
        outcomes: Doubles | None = None,
    ) -> Doubles:
        """Score each row with the state before it, then learn from it, in order.

        Args:
            rows: B rows with float32 values.
            labels: (B,) int64 class indices; or None with Y.
            Y: (B, K) targets, or None, as in `Learner.fold`.
            weights: (B,) importance of each row, or None if each is 1.
            learning: Whether to learn; else rows are only scored and counted.
            scores: (B, K) float32, or None: overwritten with the logits of each row before its step.
            outcomes: (OUTCOMES, B), or None: overwritten with what was counted for each row; see progress.py.

        Returns:
            (B,) the loss of each row before its step. NaN for a row that was skipped: it is not finite, too large for a
            finite step, has a column out of range or out of order, or names no class.

        Raises:
            ValueError: Shapes contradict each other, or not exactly one of labels and Y is given.
            TypeError: An array of the rows has another dtype or layout.
        """
        check_layout(rows, self.dtype)
        if (labels is None) == (Y is None):
            raise ValueError("pass either labels or Y, not both")
        arguments = check_targets_and_weights(labels, Y, weights, (rows.n_rows, self.n_logits))
        losses = np.empty(rows.n_rows)
        written = np.empty((0, self.n_logits), self.dtype) if scores is None else scores

        def fold_with(counts: ProgressCounts) -> None:
            if not sparse_fold_forward(
                *rows, *arguments, self._code, RULES[self.rule.name], learning, self._constants, self.thresholds,
                self._cells, self._first, self.touched.bits, self._regret,
                counts.totals, counts.recent, counts.window, losses, written,
            ):  # fmt: skip
                check_sparse_rows(rows, self.n_features)

        if outcomes is None:
            fold_with(self._counts)
        else:
            self._counts.fold_outcomes(fold_with, losses, outcomes)
        return losses

    def classify(self, row: SparseRows, calibration: Calibration | None) -> tuple[Floats, int] | None:
        """Return the answer to one row with the current weights, calibrated or not; the row is not counted.

        Returns:
            P (1, n_classes) and the label, as the model of `parameters` gives them; None for a row that `fold` skips.
        """
        Z = np.empty((1, self.n_logits), self.dtype)
        counted, self._counts = self._counts, self._counts.with_totals()
        try:
            losses = self.fold(row, Y=np.zeros(Z.shape), learning=False, scores=Z)
        finally:
            self._counts = counted
        return None if np.isnan(losses[0]) else answer_logits(Z, self._code, calibration)

    def set_rule(self, rule: Rule, first_squares: Floats | None = None) -> None:
        """Continue with another rule or other constants. A rule of another name starts with new sums.

        Columns that no row had get the first sums of the rule, and a rule that does not limit the regret forgets it: a
        checkpoint holds neither.

        Args:
            rule: The rule.
            first_squares: (N + 1,), as in the constructor; None keeps the current ones.

        Raises:
            ValueError: The rule is not one of a sparse model, or a shape is wrong; nothing is changed.
        """
        _check_rule(rule)
        if first_squares is not None:
            self._first_squares = check_squares(first_squares, self.n_features, SINGLE)
        is_other, self.rule = rule.name != self.rule.name, rule
        self._constants = rule_constants(rule, np.inf)
        self._first = self._first_rows()
        if is_other:
            self._reset_sums()
        elif len(self._squares):
            never = np.setdiff1d(np.arange(self.n_features + 1), row_numbers(self.touched.ever()))
            self._squares[never] = np.broadcast_to(self._first, self.n_features + 1)[never, None]
        if rule.regret == 0:
            self._regret[:] = 0

    def add_classes(self, count: int) -> None:
        """Add classes after the others, each at the mean of their weights, and of their bias minus ln 100.

        No other logit changes. Every column counts as changed, but not as touched: a new learner to be restored adds
        the same classes.

        Raises:
            ValueError: The model would be too large.
        """
        K, squares = self.n_logits, self._squares
        self._weights = self._weights.with_classes(count)
        self.added_classes.append(count)
        self.thresholds = np.concatenate([self.thresholds, np.full(count, THRESHOLD)])
        self._reset_sums()
        self._squares[:, :K] = squares[:, :K]
        self.touched.set_all_changed()

    def parameters(self) -> SparseParameters:
        """Return copies of the current parameters."""
        return SparseParameters(self.head, SparseWeights(self._weights.merged(), self.n_logits))

    @property
    def weights(self) -> SparseWeights:
        """The current weights, which the next row changes."""
        return self._weights

    def build_changes(self) -> tuple[NDArray[np.int32], Singles]:
        """Return slots (T,) and changed (T, Kp) since `touched.clear_changes`, as in sparse_weights.py."""
        columns = self.touched.changed()
        return build_changes(columns, self._weights.rows_of(columns), self._weights.bias())

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return copies of all changing arrays, for a checkpoint; `restore` restores them bit by bit.

        Returns:
            `columns` (C,) int32, those that were ever touched, ascending; `weights` (C + 1, K) float32, the bias first;
            `squares` (C + 1, K) float32 for adagrad and ftrl; `progress` (8,) and `recent` (2, R) float64; if the rule
            limits the regret, `regret` (1,) float64.
        """
        return self._tensors_of(self.touched.ever())

    def restore(self, tensors: dict[str, NDArray[Any]]) -> None:
        """Restore the state from `tensors`, in a new learner, after adding the same classes and with the same rule.

        Every restored column counts as changed.

        Raises:
            ValueError: A tensor is missing, has another shape or dtype, or this learner has learned from rows.
        """
        columns, K = tensors.get("columns", np.empty(0)), self.n_logits
        if not are_columns(columns, self.n_features):
            raise ValueError("the columns of a state must be int32, in range and ascending")
        check_same_tensors(self._tensors_of(columns), tensors)
        if self.touched.ever().size:
            raise ValueError("only a new learner can be restored")
        rows = row_numbers(columns)
        self._weights.base[rows, :K] = tensors["weights"]
        if "squares" in tensors:
            self._squares[rows, :K] = tensors["squares"]
        if "regret" in tensors:
            self._regret[:] = tensors["regret"]
        self._counts.totals[:], self._counts.recent[:] = tensors["progress"], tensors["recent"]
        self.touched.add(columns)

    def copy(self) -> "SparseLearner":
        """Return an independent copy."""
        start = SparseParameters(self.head, self._weights)
        other = SparseLearner(start, self.rule, self.thresholds, self._first_squares)
        other.added_classes = list(self.added_classes)
        for array, own in zip(other._arrays(), self._arrays(), strict=True):
            array[...] = own
        other.touched.saved_as = self.touched.saved_as
        return other

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        """Return all arrays that change, except the weights."""
        counts = self._counts
        return self._squares, self.touched.bits, self._regret, counts.totals, counts.recent, counts.window

    def _tensors_of(self, columns: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        rows, K = row_numbers(columns), self.n_logits
        tensors: dict[str, NDArray[Any]] = {"columns": columns, "weights": self._weights.base[rows, :K]}
        if self.rule.name in RULES_WITH_SQUARES:
            tensors["squares"] = self._squares[rows, :K]
        if self.rule.regret > 0:
            tensors["regret"] = self._regret.copy()
        return tensors | {"progress": self._counts.totals.copy(), "recent": self._counts.recent.copy()}

    def _reset_sums(self) -> None:
        """Set the rule's sums to their values before any step; without them `_squares` has no rows."""
        self._first = self._first_rows()
        self._cells = self._weights.cells.copy()
        if self.rule.name in RULES_WITH_SQUARES:
            self._squares = empty_at_cache_line(self._weights.base.shape, np.float32)
            self._squares[...] = self._first[:, None]
            self._cells[SQUARES] = self._squares.ctypes.data
        else:
            self._squares = np.empty((0, self._weights.width), np.float32)

    def _first_rows(self) -> Singles:
        """Return the first G of each row of W, (N + 1,), or of all, (1,)."""
        return np.full(1, self.rule.start, np.float32) if self._first_squares is None else self._first_squares


def _check_rule(rule: Rule) -> None:
    if rule.name not in SPARSE_RULES:
        raise ValueError(f"A sparse model learns by {', '.join(SPARSE_RULES)}; choose one of these rules.")
