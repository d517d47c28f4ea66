"""The base class of learners: models that learn from rows, one by one and deterministically.

`LinearLearner`, `NetworkLearner` and `MixtureLearner` implement it; sparse_learner.py has the same methods for sparse
rows. Callers that save, publish or replay states use
only this interface and the parameters that it returns; learner_factory.py creates the learner of given parameters.
"""

from abc import ABC, abstractmethod
from typing import Any, Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import Calibration
from service.softmax.classifier import HEADS, NO_LABELS
from service.softmax.fold_arguments import FoldArguments, check_fold_arguments
from service.softmax.kernels import fold
from service.softmax.kernels.calibration_kernels import head_forward, scaling_forward
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.learner_tensors import check_same_tensors
from service.softmax.parameters import LinearParameters, MixtureParameters, NetworkParameters
from service.softmax.progress import ProgressCounts
from service.softmax.rule import Form, Rule

RULES: Final[dict[str, int]] = {"sgd": fold.SGD, "adagrad": fold.ADAGRAD, "ftrl": fold.FTRL, "newton": fold.NEWTON}
# The threshold of an added class.
THRESHOLD: Final = 0.5

ParametersT = TypeVar("ParametersT", LinearParameters, NetworkParameters, LinearParameters | MixtureParameters)


class Learner(ABC, Generic[ParametersT]):
    """A model that learns from rows.

    Args:
        start: The first parameters.
        form: Which weights learn.
        rule: The learning rule.
        thresholds: (K,), the p from which a class is predicted; only a multilabel head uses them.

    Attributes:
        rule: The current rule.
        added_classes: The number of classes of each call of `add_classes`.
        dtype: The model's dtype.

    Raises:
        ValueError: `start` is no model, or there is not one threshold for each logit.
    """

    def __init__(self, start: ParametersT, form: Form, rule: Rule, thresholds: Doubles) -> None:
        start.build_model()
        self.form: Final = form
        self.rule = rule
        self.thresholds = np.array(thresholds, np.float64)
        if self.thresholds.shape != (start.n_logits,):
            raise ValueError("there must be one threshold for each logit")
        self.n_features: Final = start.n_features
        self.dtype: Final[np.dtype[Any]] = start.dtype
        self.added_classes: list[int] = []
        self._start: ParametersT = start
        self._head: Final = HEADS[start.head]
        self._counts = ProgressCounts()

    @property
    def n_logits(self) -> int:
        """K, the current number of logits."""
        return self._start.n_logits

    @property
    def progress(self) -> dict[str, float]:
        """The counts so far, by name; see `summarize_progress`."""
        return self._counts.summarize()

    @property
    def window(self) -> Doubles:
        """Confidence and accuracy of the answer to each recent row, (2, R)."""
        return self._counts.window

    def fold(
        self,
        X: Floats,
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
            X: (B, N), C-contiguous, of the model's dtype.
            labels: (B,) int64 class indices; or None with Y.
            Y: (B, K) targets in [0, 1]: a distribution, or for multilabel one for each class. K = 1 for sigmoid.
            weights: (B,) importance of each row, or None if each is 1.
            learning: Whether to learn; else rows are only scored and counted.
            scores: (B, K) of the model's dtype, or None: overwritten with the logits of each row before its step.
            outcomes: (OUTCOMES, B), or None: overwritten with what was counted for each row; see progress.py.

        Returns:
            (B,) the loss of each row before its step; NaN for a row that was skipped (see kernels/fold.py).

        Raises:
            ValueError: Shapes contradict each other, or not exactly one of labels and Y is given.
            TypeError: X has another dtype or layout.
        """
        arguments = check_fold_arguments(
            X, labels, Y, weights, n_features=self.n_features, n_logits=self.n_logits, dtype=self.dtype
        )
        losses = np.empty(len(X))
        written = np.empty((0, self.n_logits), self.dtype) if scores is None else scores
        if outcomes is None:
            self._fold_rows(X, arguments, losses, written, learning=learning)
            return losses

        def fold_with(counts: ProgressCounts) -> None:
            own, self._counts = self._counts, counts
            try:
                self._fold_rows(X, arguments, losses, written, learning=learning)
            finally:
                self._counts = own

        self._counts.fold_outcomes(fold_with, losses, outcomes)
        return losses

    def classify(self, row: Floats, calibration: Calibration | None) -> tuple[Floats, int] | None:
        """Return the answer to a row with the current weights, in about the time of a step; the row is not counted.

        Args:
            row: (1, N), C-contiguous, of the model's dtype.
            calibration: The calibration of the answer, or None.

        Returns:
            P (1, n_classes) and the label, as the model of `parameters` gives them; None for a row that `fold` skips.
        """
        Z = np.empty((1, self.n_logits), self.dtype)
        counted, self._counts = self._counts, self._counts.with_totals()
        try:
            losses = self.fold(row, Y=np.zeros(Z.shape), learning=False, scores=Z)
        finally:
            self._counts = counted
        if np.isnan(losses[0]):
            return None
        return answer_logits(Z, self._head, calibration)

    def set_rule(self, rule: Rule) -> None:
        """Continue with another rule or other constants. A rule of another name starts with new sums."""
        changed, self.rule = rule.name != self.rule.name, rule
        if changed:
            self._reset_sums()

    def add_classes(self, count: int) -> None:
        """Add classes after the others, each at the mean of their weights, and of their bias minus ln 100.

        No other logit changes, so the order of other classes stays the same in every row.
        """
        tensors = self.tensors()
        self._start = self._start.with_classes(count)
        self.added_classes.append(count)
        self.thresholds = np.concatenate([self.thresholds, np.full(count, THRESHOLD)])
        self._extend_weights(tensors, count)

    def restore(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        """Restore the state from `tensors`, after adding the same classes and with the same rule.

        Raises:
            ValueError: A tensor is missing, or has another shape or dtype.
        """
        check_same_tensors(self.tensors(), tensors)
        for name, tensor in tensors.items():
            if name == "progress":
                self._counts.totals[:] = tensor
            elif name == "recent":
                self._counts.recent[:] = tensor
        self._restore_weights(tensors)

    def copy(self) -> Self:
        """Return an independent copy."""
        other = self._new()
        other.added_classes = list(self.added_classes)
        other.restore(self.tensors())
        other.window[:] = self.window
        return other

    @abstractmethod
    def parameters(self) -> ParametersT:
        """Return copies of the current parameters, in the model's dtype."""

    @abstractmethod
    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return copies of all changing arrays, for a checkpoint; `restore` restores them bit by bit."""

    @abstractmethod
    def _fold_rows(
        self, X: Floats, arguments: FoldArguments, losses: Doubles, scores: Floats, *, learning: bool
    ) -> None:
        """Call the fold kernel; losses (B,) and scores (B, K) or (0, K) are written."""

    @abstractmethod
    def _reset_sums(self) -> None:
        """Set the rule's sums to their values before any step."""

    @abstractmethod
    def _extend_weights(self, tensors: dict[str, NDArray[np.floating[Any]]], count: int) -> None:
        """Set masters and sums for `count` more classes, given the tensors before."""

    @abstractmethod
    def _restore_weights(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        """Restore everything in tensors except the counts."""

    @abstractmethod
    def _new(self) -> Self:
        """Return a new learner of the same parameters, form and rule."""

    def _count_tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        return {"progress": self._counts.totals.copy(), "recent": self._counts.recent.copy()}


def rule_constants(rule: Rule, own_clip: float) -> Doubles:
    """Return the constants (CONSTANTS,) of a rule in the order of kernels/fold.py.

    Args:
        rule: The rule.
        own_clip: The clip of the stage of the trained weights.
    """
    constants = np.zeros(fold.CONSTANTS)
    constants[[fold.RATE, fold.OFFSET, fold.FLOOR, fold.PULL]] = rule.rate, rule.offset, rule.floor, rule.pull
    constants[[fold.FORGET, fold.START, fold.STEP_CLIP]] = rule.forget, rule.start, rule.step_clip
    constants[[fold.OWN_CLIP, fold.CLIP, fold.SURPRISE]] = own_clip, rule.clip, rule.surprise
    constants[fold.REGRET] = rule.regret
    return constants


def answer_logits(Z: Floats, head: int, calibration: Calibration | None) -> tuple[Floats, int] | None:
    """Return the answer to one row.

    Args:
        Z: Its logits (1, K), overwritten.
        head: The head's code.
        calibration: The calibration of the answer, or None.

    Returns:
        P (1, n_classes) and the label; None if a logit is not finite.
    """
    if calibration is not None:
        scaling_forward(Z, head, calibration.kernel_numbers())
    P = np.empty((1, 2 if head == HEADS["sigmoid"] else Z.shape[1]), Z.dtype)
    label: int = head_forward(Z, head, P, NO_LABELS)
    return None if label == NOT_FINITE else (P, label)
