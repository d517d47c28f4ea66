"""The methods of models and learners that callers use, whichever form of rows these take.

A caller passes rows of the form that the model has: a matrix X (B, N), or sparse rows. `Classifier` and `SparseModel`
are row models, `Learner` and `SparseLearner` row learners.
"""

from typing import Any, Protocol

import numpy as np

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import Calibration
from service.softmax.classifier import RowWork


class RowModel(Protocol):
    """A model that answers to rows; see `Classifier` for each method."""

    @property
    def n_classes(self) -> int:
        """The number of columns of P."""

    @property
    def row_work(self) -> RowWork:
        """The work of a row, without that of the head."""

    def predict(self, rows: Any, /) -> Floats:  # noqa: ANN401  # the form of rows that the model takes
        """Return the probabilities P (B, n_classes)."""

    def classify(self, rows: Any, /) -> tuple[Floats, list[int]]:  # noqa: ANN401  # as above
        """Return the probabilities and the label of each row."""

    def log_probabilities(self, rows: Any, /) -> Doubles:  # noqa: ANN401  # as above
        """Return the logarithms (B, n_classes) of the probabilities."""

    def losses(self, rows: Any, Y: Doubles, /) -> Doubles:  # noqa: ANN401  # as above
        """Return the training loss (B,) for targets Y (B, K)."""

    def label_losses(self, rows: Any, labels: Integers, /) -> tuple[Doubles, Integers]:  # noqa: ANN401  # as above
        """Return -ln p (B,) of the label of each row, and the most probable class (B,)."""


class RowLearner(Protocol):
    """A model that learns from rows; see `Learner` for each method."""

    @property
    def n_logits(self) -> int:
        """K, the current number of logits."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The model's dtype."""

    def fold(  # the parts of rows
        self,
        rows: Any,  # noqa: ANN401  # as above
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
        /,
        *,
        learning: bool = True,
        scores: Floats | None = None,
        outcomes: Doubles | None = None,
    ) -> Doubles:
        """Score each row with the state before it, then learn from it, in order; return the losses (B,)."""

    def classify(self, row: Any, calibration: Calibration | None, /) -> tuple[Floats, int] | None:  # noqa: ANN401
        """Return the answer to one row with the current weights, or None for a row that `fold` skips."""
