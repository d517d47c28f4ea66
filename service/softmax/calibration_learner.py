"""Learn a calibration from rows that a model has scored."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import Calibration
from service.softmax.classifier import HEADS, Head
from service.softmax.fold_arguments import check_targets_and_weights
from service.softmax.kernels.calibration_kernels import SUMS, scaling_fold_forward
from service.softmax.learner_tensors import copy_tensors
from service.softmax.progress import ProgressCounts


class CalibrationLearner:
    """A calibration that learns from scored rows.

    Args:
        head: The model's head.
        first: The first calibration, towards which learning is regularized.
        learn: Whether the numbers change; else rows are only scored with them.
    """

    def __init__(self, head: Head, first: Calibration, *, learn: bool) -> None:
        self.head: Final = head
        self.first: Final = first
        self.learn: Final = learn
        self._numbers, self._sums = first.kernel_numbers(), np.zeros(SUMS)
        self._counts: Final = ProgressCounts()

    @property
    def window(self) -> Doubles:
        """Confidence and accuracy of each recent calibrated answer, (2, R)."""
        return self._counts.window

    def calibration(self) -> Calibration:
        """Return the current calibration."""
        return Calibration(self.first.kind, tuple(self._numbers[: len(self.first.numbers)].tolist()))

    def fold(
        self,
        scores: Floats,
        losses: Doubles,
        labels: Integers | None,
        Y: Doubles | None,
        weights: Doubles | None,
        *,
        learning: bool,
        outcomes: Doubles | None = None,
    ) -> Doubles:
        """Count each row with its calibrated answer, then learn from it, in order.

        Args:
            scores: (B, K) logits of each row before its step, of the model's dtype.
            losses: (B,) its loss; NaN if the row was skipped. It is overwritten.
            labels: (B,) class indices, or None with Y.
            Y: (B, K) targets, or None with labels.
            weights: (B,) importance, or None if each is 1.
            learning: Whether to learn.
            outcomes: (OUTCOMES, B), or None: overwritten with what was counted for each row; see progress.py.

        Returns:
            (B,) the loss of each calibrated answer; NaN for a row that was skipped, here or before.
        """
        arguments = check_targets_and_weights(labels, Y, weights, scores.shape)

        def fold_with(counts: ProgressCounts) -> None:
            scaling_fold_forward(
                scores, *arguments, HEADS[self.head], learning and self.learn, self._numbers,
                self.first.kernel_numbers(), self._sums, counts.totals, counts.recent, counts.window, losses,
            )  # fmt: skip

        if outcomes is None:
            fold_with(self._counts)
        else:
            self._counts.fold_outcomes(fold_with, losses, outcomes)
        return losses

    def progress(self, uncalibrated: dict[str, float]) -> dict[str, float]:
        """Return the counts by name, given those of the model without calibration."""
        counts = self._counts.summarize()
        counts |= {name: uncalibrated[name] for name in ("steps", "step_norm", "mean_step_norm")}
        return counts | {"skipped_rows": uncalibrated["skipped_rows"] + counts["skipped_rows"]}

    def tensors(self) -> dict[str, Doubles]:
        """Return copies of all changing arrays; `restore` restores them bit by bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        """Restore the state from `tensors`.

        Raises:
            ValueError: A tensor is missing, or has another shape or dtype.
        """
        copy_tensors(self._arrays(), tensors)

    def copy(self) -> "CalibrationLearner":
        """Return an independent copy."""
        other = CalibrationLearner(self.head, self.first, learn=self.learn)
        other.restore(dict(self._arrays()))
        return other

    def _arrays(self) -> dict[str, Doubles]:
        return {
            "numbers": self._numbers,
            "sums": self._sums,
            "progress": self._counts.totals,
            "recent": self._counts.recent,
            "window": self._counts.window,
        }
