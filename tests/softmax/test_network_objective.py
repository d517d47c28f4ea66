"""The objective of networks: value by plain NumPy, gradient by differences, threads change no bit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.classifier import Head
from service.softmax.kernels.network import Activation
from service.softmax.network_objective import NetworkObjective
from service.softmax.row_blocks import BLOCK_ROWS
from tests.support.budgets import examples
from tests.support.training_blocks import draw_problem, plain_objective

ACTIVATIONS = st.sampled_from(["relu", "sigmoid", "tanh"])
HIDDEN = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple)


@settings(max_examples=examples(80), deadline=None)
@given(st.sampled_from(["softmax", "sigmoid", "multilabel"]), ACTIVATIONS, HIDDEN, st.integers(0, 99))
def test_value_and_gradient(head: Head, activation: Activation, hidden: tuple[int, ...], seed: int) -> None:
    """The value is that of plain NumPy; the gradient is that of central differences, where these have no kink."""
    n_classes = 2 if head == "sigmoid" else 3
    problem = draw_problem(seed, head, n_classes, 30, 7)
    objective = NetworkObjective(problem.dense(), head, n_classes, 0.5, hidden=hidden, activation=activation)
    rng = np.random.default_rng(seed)
    parameters, direction = rng.normal(size=(2, objective.n_parameters))
    layers, weights, bias = objective.unpack(parameters)
    assert np.array_equal(objective.pack(layers, weights, bias), parameters)
    value, gradient = objective.evaluate(parameters)
    assert value * objective.weight == pytest.approx(plain_objective(problem, weights, bias, 0.5, layers), rel=1e-11)
    assert objective.mean_loss(parameters) * objective.weight == pytest.approx(
        plain_objective(problem, weights, bias, np.inf, layers), rel=1e-11
    )
    h = 1e-6
    difference = objective.evaluate(parameters + h * direction)[0] - objective.evaluate(parameters - h * direction)[0]
    tolerance = 1e-2 if activation == "relu" else 1e-5
    assert float(gradient @ direction) == pytest.approx(difference / (2 * h), rel=tolerance, abs=1e-3 * tolerance)


def test_threads_change_no_bit() -> None:
    """Several blocks, with one thread and with three."""
    problem = draw_problem(1, "softmax", 3, 3 * BLOCK_ROWS + 5, 6)
    with ThreadPoolExecutor(3) as pool:
        several = NetworkObjective(problem.dense(), "softmax", 3, 1.0, hidden=(9,), activation="tanh", pool=pool)
        parameters = several.draw(0)
        value, gradient = several.evaluate(parameters)
    alone = NetworkObjective(problem.dense(), "softmax", 3, 1.0, hidden=(9,), activation="tanh")
    assert alone.evaluate(parameters)[0] == value
    assert np.array_equal(alone.evaluate(parameters)[1], gradient)


def test_start_follows_the_seed() -> None:
    """Other seeds draw other weights within the bound; biases and the head's layer are 0."""
    blocks = draw_problem(1, "softmax", 3, 20, 6).dense()
    for activation, bound in (("relu", np.sqrt(6 / 6)), ("tanh", np.sqrt(6 / (6 + 9)))):
        objective = NetworkObjective(blocks, "softmax", 3, 1.0, hidden=(9,), activation=activation)  # type: ignore[arg-type]
        assert np.array_equal(objective.draw(4), objective.draw(4))
        assert not np.array_equal(objective.draw(4), objective.draw(5))
        (layer,), weights, bias = objective.unpack(objective.draw(4))
        assert 0.8 * bound < np.abs(layer.weights).max() <= bound
        assert not any(part.any() for part in (layer.bias, weights, bias))


def test_sparse_rows_and_empty_layers_are_refused() -> None:
    """Networks read dense rows."""
    problem = draw_problem(1, "softmax", 3, 20, 6)
    with pytest.raises(TypeError, match="no matrix"):
        NetworkObjective(problem.sparse(), "softmax", 3, 1.0, hidden=(9,), activation="tanh")
    with pytest.raises(ValueError, match="at least one output"):
        NetworkObjective(problem.dense(), "softmax", 3, 1.0, hidden=(9, 0), activation="tanh")
