"""The description of a served state: means over no rows are None, and the hash is that of the function."""

import numpy as np
import pytest

from service.softmax.input_stage import Delta, Stage
from service.softmax.parameters import LinearParameters
from service.store.artifact.hashing import hash_tensors
from service.store.states.served_state import describe_progress, served_sha256

WEIGHTS, BIAS = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
STAGE = Stage(np.zeros(2), np.ones(2), 8.0)


@pytest.mark.parametrize(
    ("counts", "empty"),
    [
        ({"rows": 0, "recent_rows": 0, "steps": 0}, {"loss", "recent_loss", "step_norm", "mean_step_norm"}),
        ({"rows": 5, "recent_rows": 5, "steps": 0}, {"step_norm", "mean_step_norm"}),
        ({"rows": 5, "recent_rows": 5, "steps": 5}, set()),
    ],
)
def test_means_over_no_rows_are_none(counts: dict[str, int], empty: set[str]) -> None:
    """Counts and everything else stay as they are; 0 is a mean where rows stand behind it."""
    means = {"loss": 0.0, "recent_loss": 0.0, "step_norm": 0.0, "mean_step_norm": 0.0}
    described = describe_progress({**counts, **means, "unfit_events": 0})
    assert described == {**counts, **means, "unfit_events": 0, **dict.fromkeys(empty)}


def test_a_delta_of_zeros_is_left_out_of_the_hash() -> None:
    """The stored hash of all tensors is used where they all have an effect."""
    delta = np.zeros((2, 3), np.float32)
    without = LinearParameters("softmax", WEIGHTS, BIAS)
    zero = LinearParameters("softmax", WEIGHTS, BIAS, delta=Delta(delta, STAGE))
    learned = LinearParameters("softmax", WEIGHTS, BIAS, delta=Delta(delta + np.float32(0.5), STAGE))
    assert served_sha256(zero, {"weights_sha256": "stored"}) == hash_tensors([WEIGHTS, BIAS])
    assert served_sha256(without, {"weights_sha256": "stored"}) == "stored"
    assert served_sha256(learned, {"weights_sha256": "stored"}) == "stored"
    X = np.random.default_rng(0).uniform(-5, 5, (50, 2)).astype(np.float32)
    assert zero.build_model().predict(X).tobytes() == without.build_model().predict(X).tobytes()
