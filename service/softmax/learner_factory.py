"""Create the learner of given parameters."""

from service.softmax.arrays import Doubles
from service.softmax.input_stage import Stage
from service.softmax.linear_learner import LinearLearner
from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import Form, LinearParameters, Parameters, Rule


def create_learner(
    start: Parameters, form: Form, rule: Rule, thresholds: Doubles, learned_stage: Stage | None = None
) -> LinearLearner | NetworkLearner:
    """Return a learner of `start`; see `LinearLearner` and `NetworkLearner` for the arguments.

    Raises:
        ValueError: `start` is no model, or contradicts the form or the rule.
    """
    if isinstance(start, LinearParameters):
        return LinearLearner(start, form, rule, thresholds, learned_stage)
    if form != "layers":
        raise ValueError("a network has only the form layers")
    return NetworkLearner(start, rule, thresholds)
