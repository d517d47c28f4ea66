"""Create the learner of given parameters."""

from service.softmax.arrays import Doubles, Floats
from service.softmax.input_stage import Stage
from service.softmax.linear_learner import LinearLearner
from service.softmax.mixture_learner import MixtureLearner
from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import LinearParameters, NetworkParameters, Parameters
from service.softmax.rule import Form, Rule
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters

AnyLearner = LinearLearner | NetworkLearner | MixtureLearner | SparseLearner


def create_learner(  # noqa: PLR0917  # each kind of learner takes some of them
    start: Parameters,
    form: Form,
    rule: Rule,
    thresholds: Doubles,
    learned_stage: Stage | None = None,
    first_squares: Floats | None = None,
) -> AnyLearner:
    """Return a learner of `start`; see the learners for the arguments.

    Raises:
        ValueError: `start` is no model, or contradicts the form or the rule.
    """
    if isinstance(start, SparseParameters):
        if form != "plain":
            raise ValueError("a sparse model has only the form plain")
        return SparseLearner(start, rule, thresholds, first_squares)
    if form == "mixture":
        if isinstance(start, NetworkParameters):
            raise ValueError("a network does not learn by the rule mixture")
        return MixtureLearner(start, rule, thresholds, learned_stage)
    if isinstance(start, LinearParameters):
        return LinearLearner(start, form, rule, thresholds, learned_stage, first_squares)
    if form != "layers" or not isinstance(start, NetworkParameters):
        raise ValueError("a network has only the form layers, and a mixture only the form mixture")
    return NetworkLearner(start, rule, thresholds)
