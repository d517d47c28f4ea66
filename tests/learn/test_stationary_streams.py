"""No default rule does much worse than a uniform guess on a stationary stream, whatever its width, scale and signal."""

import pytest

from tests.support.stationary_streams import StationaryStream, linear_rule, loss_to_uniform

# The most that a loss may exceed that of a uniform guess after 4,000 rows.
LOSS_MAX = 1.03
# By default all of these learn by mixture; other heads of these sizes learn by newton, or by ftrl.
NEWTON = [
    StationaryStream(1, 2, 0),
    StationaryStream(1, 100, 0, "heavy", scale=1e-6),
    StationaryStream(4, 3, 0.3, scale=1e6),
    StationaryStream(10, 10, 0, "correlated", scale=0),
    StationaryStream(30, 50, 0.3, imbalance=0.05),
    StationaryStream(64, 10, 0, scale=1e-6),
    StationaryStream(64, 10, 0.3, "heavy", scale=0),
    StationaryStream(127, 16, 0, "correlated"),
    StationaryStream(300, 2, 0.5),
    StationaryStream(511, 2, 0, scale=1e6),
]
FTRL = [
    StationaryStream(50, 101, 0),
    StationaryStream(128, 17, 0, "common", scale=1e6),
    StationaryStream(384, 12, 0),
    StationaryStream(384, 12, 0.3, "correlated", scale=0),
    StationaryStream(1024, 2, 0.5, scale=1e-6),
    StationaryStream(1024, 100, 0, "sparse"),
    StationaryStream(4096, 2, 0, "common", scale=1e6),
]
# Streams whose loss exceeds LOSS_MAX without a limit of the regret, by this factor at least.
UNLIMITED = [
    (StationaryStream(511, 2, 0), "newton", 2.0),
    (StationaryStream(64, 10, 0), "newton", 1.2),
    (StationaryStream(384, 12, 0), "ftrl", 1.1),
]
LEARNED = [
    (StationaryStream(64, 10, 3), "newton", 0.75),
    (StationaryStream(384, 12, 3, "correlated"), "ftrl", 0.7),
]


@pytest.mark.parametrize("stream", [*NEWTON, *FTRL], ids=str)
def test_no_default_rule_loses_much_against_a_uniform_guess(stream: StationaryStream) -> None:
    """The progressive loss from zero weights is at most 3 % above that of equal probabilities for all classes."""
    assert loss_to_uniform(stream) <= LOSS_MAX
    assert loss_to_uniform(stream, rule=linear_rule(stream)) <= LOSS_MAX


@pytest.mark.parametrize(("stream", "rule", "least"), UNLIMITED)
def test_it_is_the_limit_of_the_regret_that_keeps_losses_low(stream: StationaryStream, rule: str, least: float) -> None:
    """Without the limit the same rules lose far more."""
    assert loss_to_uniform(stream, rule=rule, constants={"regret": 0.0}) > least


@pytest.mark.parametrize(("stream", "rule", "most"), LEARNED)
def test_a_clear_signal_is_learned(stream: StationaryStream, rule: str, most: float) -> None:
    """The limit does not keep a model from learning, nor do the frequencies of the classes a mixture."""
    assert loss_to_uniform(stream) < most
    assert loss_to_uniform(stream, rule=rule) < most
