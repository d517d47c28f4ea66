"""Parameters: copies, and round trips through arrays."""

import numpy as np
import pytest

from service.softmax.input_stage import Delta
from service.softmax.parameters import LinearParameters
from tests.support.folds import RULES, Case
from tests.support.reference import HEADS


@pytest.mark.parametrize("head", HEADS)
def test_parameters_are_copies_with_a_round_trip(head: str) -> None:
    """Parameters do not change with the learner, and are restored from their arrays and clips bit by bit."""
    case = Case(head, RULES["newton"], "delta", staged=True)
    learner = case.learner()
    served = learner.parameters()
    before = served.build_model().predict(case.X)
    learner.fold(case.X, Y=case.Y)
    assert np.array_equal(served.build_model().predict(case.X), before)
    now = learner.parameters()
    again = LinearParameters.from_arrays(now.head, now.arrays(), now.clips())
    assert again.build_model().predict(case.X).tobytes() == now.build_model().predict(case.X).tobytes()
    assert isinstance(again.delta, Delta)
