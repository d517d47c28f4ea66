"""What a fold drives, and what it gives, whether the model is linear or a network.

    what answers            Served (learned.py)    ServedNetwork (network_steps.py)    their model() predicts
    what learns             Steps (steps.py)       NetworkSteps (network_steps.py)     both are a Learner

Whoever keeps, publishes or replays states knows a `Learner` and what it serves, and nothing of layers.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.softmax.fold_arguments import Integers
from service.softmax.input_stage import Doubles, Floats, Stage
from service.softmax.linear_learner import LinearLearner
from service.softmax.network_learner import NetworkLearner, NetworkParameters
from service.softmax.parameters import Form, LinearParameters, Rule

Parameters = LinearParameters | NetworkParameters


class Learner(Protocol):
    """A model that learns, row by row, deterministically; each method is described at `LinearLearner`.

    Attributes:
        rule: By which rule.
        added: How many classes were added, each time that some were.
        window: How sure and how right the answer to each recent row was, (2, R); see fold.py.
        dtype: The model's.
    """

    rule: Rule
    added: list[int]
    window: Doubles
    dtype: np.dtype[Any]

    @property
    def n_logits(self) -> int:
        """The number of logits now."""

    @property
    def form(self) -> Form:
        """What learns."""

    @property
    def progress(self) -> dict[str, float]:
        """What was counted so far."""

    def fold(
        self,
        X: Floats,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
        *,
        learning: bool = True,
        scores: Floats | None = None,
    ) -> Doubles:
        """Take rows in order; returns the loss of each before its step."""

    def set_rule(self, rule: Rule) -> None:
        """Go on by another rule, or other numbers."""

    def add_classes(self, count: int) -> None:
        """Add classes behind the others."""

    def served(self) -> Parameters:
        """What answers now, as copies."""

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Everything that moves, as copies."""

    def restore(self, tensors: dict[str, NDArray[np.floating[Any]]]) -> None:
        """Take back what `tensors` gave."""

    def copy(self) -> "Learner":
        """Another one with the same state, which goes its own way."""


def learner_of(start: Parameters, form: Form, rule: Rule, thresholds: Doubles, learned: Stage | None = None) -> Learner:
    """The learner for what answers first; see `LinearLearner` and `NetworkLearner` for the arguments.

    Raises:
        ValueError: `start` is no model, or contradicts the form or the rule.
    """
    if isinstance(start, LinearParameters):
        return LinearLearner(start, form, rule, thresholds, learned)
    if form != "layers":
        raise ValueError("a network learns in all its layers")
    return NetworkLearner(start, rule, thresholds)
