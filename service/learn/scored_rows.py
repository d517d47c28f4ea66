"""How rows were answered before they were learned from."""

from typing import NamedTuple

from service.softmax.arrays import Doubles, Floats


class ScoredRows(NamedTuple):
    """How B rows were answered, each before its step.

    Attributes:
        losses: (B,), NaN for a row that was skipped.
        outcomes: (OUTCOMES, B), see progress.py; NaN for a row that was skipped.
        scores: (B, K) the logits without calibration, of the model's dtype.
    """

    losses: Doubles
    outcomes: Doubles
    scores: Floats
