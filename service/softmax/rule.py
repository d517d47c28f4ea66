"""Learning rules with all their constants."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Form = Literal["plain", "running", "delta", "layers", "mixture"]
RuleName = Literal["sgd", "adagrad", "ftrl", "newton", "mixture"]
# The rules that have a sum G for each weight.
RULES_WITH_SQUARES: Final[frozenset[RuleName]] = frozenset(("adagrad", "ftrl"))


@dataclass(frozen=True)
class Rule:
    """A learning rule with all its constants; docs/rules.md describes each.

    `start` is the first value of the rule's sums: G_0 for adagrad and ftrl, the diagonal of P for newton. `offset` is
    adagrad's epsilon and ftrl's beta. `clip` limits learned features, `step_clip` a step's effect on its own logits.
    `regret` limits the losses in excess of a uniform guess's, in losses of such a guess; 0 sets no limit.
    """

    name: RuleName
    rate: float
    offset: float = 0.0
    floor: float = 0.0
    pull: float = 0.0
    forget: float = 0.0
    surprise: float = 0.0
    start: float = 0.0
    step_clip: float = np.inf
    clip: float = np.inf
    regret: float = 0.0
    mixture: "MixtureConstants | None" = None


@dataclass(frozen=True)
class MixtureConstants:
    """The numbers that only the rule mixture has.

    Attributes:
        features: M, the number of random features.
        seed: The seed of the random features.
        offset_start: The first diagonal of P for weights that a trained model has too; `start` is that of others.
        share: The exponent of a class's share of the curvature, for the expert on random features.
        linear_share: The same for the linear expert.
        base: The rule of the expert `base`.
        is_wide: Whether rows are wide: all random features are dense, and there is no linear expert.
    """

    features: int
    seed: int
    offset_start: float
    share: float
    linear_share: float
    base: "Rule"
    is_wide: bool
