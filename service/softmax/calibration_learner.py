"""The safe door to the learning of a calibration, and how well confidence and truth agree, calibrated or not."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.calibration import Calibration
from service.softmax.classifier import HEADS, Head
from service.softmax.fold_arguments import Integers, checked
from service.softmax.input_stage import Doubles, Floats
from service.softmax.kernels import fold
from service.softmax.kernels.calibration_kernels import SUMS, scaling_fold_forward
from service.softmax.linear_learner import RECENT
from service.softmax.parameters import progress_of

BINS: Final = 10


class CalibrationLearner:
    """A calibration that follows rows as they are scored.

    Args:
        head: The model's head.
        first: The calibration that it begins with, and that learning is drawn to.
        learn: Whether the numbers move; else rows are only scored with them.
    """

    def __init__(self, head: Head, first: Calibration, *, learn: bool) -> None:
        self.head: Final = head
        self.first: Final = first
        self.learn: Final = learn
        self._numbers, self._sums = first.cells(), np.zeros(SUMS)
        self._progress = np.zeros(fold.PROGRESS)
        self._recent, self._window = np.zeros((2, RECENT)), np.zeros((2, RECENT))

    @property
    def window(self) -> Doubles:
        """How sure and how right each recent row's calibrated answer was, (2, R)."""
        return self._window

    def calibration(self) -> Calibration:
        """What is done to logits now."""
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
    ) -> Doubles:
        """Take rows that a model has scored, in order: each is counted as it is answered, then learned from.

        Args:
            scores: (B, K) logits of each row before its step, of the model's dtype.
            losses: (B,) its loss; NaN where the row was skipped. It is overwritten.
            labels: (B,) class indices, or None with Y.
            Y: (B, K) targets, or None with labels.
            weights: (B,) importance, or None where each is 1.
            learning: Whether to learn.

        Returns:
            (B,) the loss of each calibrated answer; NaN for a row that was skipped, here or before.
        """
        B, K = scores.shape
        scaling_fold_forward(
            scores, checked(labels, (B,), np.int64, (0,)), checked(Y, (B, K), np.float64, (0, K)),
            checked(weights, (B,), np.float64, (0,)), HEADS[self.head], learning and self.learn,
            self._numbers, self.first.cells(), self._sums, self._progress, self._recent, self._window, losses,
        )  # fmt: skip
        return losses

    def progress(self, before: dict[str, float]) -> dict[str, float]:
        """What was counted, given what the model without calibration counted."""
        own = progress_of(self._progress, self._recent)
        own |= {name: before[name] for name in ("steps", "step_norm", "mean_step_norm")}
        return own | {"skipped_rows": before["skipped_rows"] + own["skipped_rows"]}

    def tensors(self) -> dict[str, Doubles]:
        """Everything that moves, as copies; `restore` takes it back to the bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        """Take back what `tensors` gave.

        Raises:
            ValueError: A tensor is missing, or has another shape or dtype.
        """
        fill(self._arrays(), tensors)

    def copy(self) -> "CalibrationLearner":
        """Another one with the same state, which goes its own way."""
        other = CalibrationLearner(self.head, self.first, learn=self.learn)
        other.restore(dict(self._arrays()))
        return other

    def _arrays(self) -> dict[str, Doubles]:
        return {
            "numbers": self._numbers,
            "sums": self._sums,
            "progress": self._progress,
            "recent": self._recent,
            "window": self._window,
        }


def fill(own: dict[str, Doubles], tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
    """Write tensors into the arrays of the same names.

    Raises:
        ValueError: They are not those that are wanted.
    """
    if {name: (t.shape, t.dtype) for name, t in own.items()} != {
        name: (t.shape, t.dtype) for name, t in tensors.items()
    }:
        raise ValueError("these tensors are not those of this state")
    for name, tensor in tensors.items():
        own[name][...] = tensor


def reliability_of(window: Doubles, rows: int) -> dict[str, Any]:
    """How far confidence and truth agree over the recent rows, of which `window` (2, R) holds the last R.

    The rows are put into ten bins of equal width by how sure their answers were. Of each bin: its rows, and over them
    the mean confidence and the share that was right. The expected calibration error is the mean difference of the two,
    each bin counting by its rows (Naeini, Cooper & Hauskrecht, Obtaining well calibrated probabilities using Bayesian
    binning, 2015).
    """
    confidence, right = window[:, : min(rows, window.shape[1])]
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sure, true = (np.bincount(bins, weights=one, minlength=BINS) for one in (confidence, right))
    told = [
        {"rows": int(n), "confidence": float(s / n) if n else None, "accuracy": float(t / n) if n else None}
        for n, s, t in zip(counts, sure, true, strict=True)
    ]
    error = float(np.abs(sure - true).sum()) / confidence.size if confidence.size else None
    return {"rows": int(confidence.size), "expected_error": error, "bins": told}
