"""Fits reach the objective of scikit-learn, from any start, by any number of threads, also where data is degenerate."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from service.softmax.balanced_blocks import BalancedBlocks, balance_factors
from service.softmax.block_sums import sum_labels
from service.softmax.fitting import Fit, fit, fit_path, mean_loss
from service.softmax.lbfgs import minimize
from service.softmax.linear_objective import LinearObjective
from service.softmax.row_blocks import BLOCK_ROWS, MemoryBlocks
from service.softmax.sparse_rows import SparseRows
from tests.support.training_blocks import Problem, draw_problem, plain_objective


def set_of(load: Any) -> Problem:
    """Return a set of scikit-learn, standardized, with the weight 1 for each row."""
    X, y = load(return_X_y=True)
    X = np.ascontiguousarray(StandardScaler().fit_transform(X), np.float32)
    return Problem(X, y, np.ones(len(y)), "sigmoid" if y.max() == 1 else "softmax", int(y.max()) + 1)


def fit_problem(problem: Problem, C: float, **options: Any) -> Fit:
    """Fit a model to dense rows."""
    return fit(problem.dense(), problem.head, problem.n_classes, C, **options)


@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("load", [load_iris, load_breast_cancer, load_wine])
def test_objective_is_that_of_scikit_learn(load: Any, C: float) -> None:
    """At most one part in a million above its best, with rows of other weights too."""
    problem = set_of(load)._replace(weights=np.random.default_rng(0).random(len(load().target)) + 0.5)
    found = fit_problem(problem, C)
    peer = LogisticRegression(C=C, tol=1e-10, max_iter=10**5).fit(
        problem.X.astype(np.float64), problem.labels, problem.weights
    )
    best = plain_objective(problem, peer.coef_.T, peer.intercept_, C)
    assert found.reason == "gradient"
    assert found.objective <= best * (1 + 1e-6)
    assert found.objective == pytest.approx(plain_objective(problem, found.weights, found.bias, C), rel=1e-12)
    assert found.loss * problem.weights.sum() == pytest.approx(
        plain_objective(problem, found.weights, found.bias, np.inf), rel=1e-12
    )


def test_labels_of_a_row_are_fitted_like_models_of_their_own() -> None:
    """The multilabel objective is the sum of those of its labels."""
    problem = draw_problem(5, "multilabel", 3, 200, 6)
    found = fit_problem(problem, 0.5, tolerance=1e-9)
    for k in range(3):
        one = MemoryBlocks(problem.X, problem.labels[:, k], problem.weights)
        alone = fit(one, "sigmoid", 2, 0.5, tolerance=1e-9)
        assert np.allclose(alone.weights[:, 0], found.weights[:, k], atol=1e-6)
        assert alone.bias[0] == pytest.approx(found.bias[k], abs=1e-6)


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_threads_and_repetition_change_no_bit(hidden: tuple[int, ...]) -> None:
    """The weights of three fits are equal."""
    problem = draw_problem(2, "softmax", 4, 3 * BLOCK_ROWS + 9, 7)
    options: dict[str, Any] = {"hidden": hidden, "iterations_max": 30}
    fits = [fit_problem(problem, 1.0, threads=threads, **options) for threads in (1, 1, 3)]
    for other in fits[1:]:
        assert np.array_equal(other.weights, fits[0].weights)
        assert np.array_equal(other.bias, fits[0].bias)
        assert (other.objective, other.iterations) == (fits[0].objective, fits[0].iterations)


def test_sparse_fit_is_the_dense_one() -> None:
    """To the tolerance, with columns that do not occur, whose weights are 0."""
    problem = draw_problem(6, "softmax", 3, 300, 30, kept=0.2)
    problem.X[:, ::3] = 0
    dense = fit_problem(problem, 1.0, tolerance=1e-9)
    sparse = fit(problem.sparse(), "softmax", 3, 1.0, tolerance=1e-9)
    assert np.allclose(dense.weights, sparse.weights, atol=1e-6)
    assert not sparse.weights[::3].any()
    assert not dense.weights[::3].any()


def test_rare_categories_take_few_steps() -> None:
    """The squares of the columns scale the steps; without them, the same fit takes three times as many."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 401)
    columns = rng.choice(400, 4000, p=shares / shares.sum()).astype(np.int32)
    labels = rng.random(4000) < 1 / (1 + np.exp(-rng.normal(size=400)))[columns]
    rows = SparseRows(np.arange(1, 4001), columns, np.ones(4000, np.float32))
    blocks = MemoryBlocks(rows, labels, n_columns=400)
    scaled = fit(blocks, "sigmoid", 2, 30.0)
    objective = LinearObjective(blocks, "sigmoid", 2, 30.0)
    plain = minimize(objective.evaluate, objective.draw(0), tolerance=1e-6, iterations_max=1000)
    assert scaled.objective == pytest.approx(plain.value * objective.weight, rel=1e-6)
    assert 3 * scaled.iterations < plain.iterations


def test_separable_data_is_fitted() -> None:
    """With a penalty to its minimum, without one to the last step that is allowed."""
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]], np.float32)
    problem = Problem(X, np.array([0, 0, 1, 1]), np.ones(4), "sigmoid", 2)
    assert fit_problem(problem, 1e4).reason == "gradient"
    free = fit_problem(problem, np.inf, iterations_max=50, tolerance=1e-30)
    assert np.isfinite(free.weights).all()
    assert free.loss < 1e-12


def test_constant_column_and_absent_class() -> None:
    """A constant column shares the bias's part and stays finite; a class without rows becomes improbable."""
    problem = draw_problem(8, "softmax", 3, 200, 4)
    problem.X[:, 1] = 5
    labels = np.where(problem.labels == 2, 0, problem.labels)
    found = fit_problem(problem._replace(labels=labels), 1.0)
    assert found.reason == "gradient"
    Z = problem.X @ found.weights + found.bias
    P = np.exp(Z - Z.max(axis=1, keepdims=True))
    assert (P / P.sum(axis=1, keepdims=True))[:, 2].max() < 1e-3


def test_start_saves_steps_and_keeps_the_minimum() -> None:
    """From the minimum no step is left; from that of another C there are fewer than from zeros."""
    problem = set_of(load_wine)
    first = fit_problem(problem, 1.0)
    again = fit_problem(problem, 1.0, start=first)
    assert again.iterations <= 2
    near = fit_problem(problem, 1.2, start=first)
    assert near.iterations < fit_problem(problem, 1.2).iterations
    with pytest.raises(ValueError, match="no hidden layers"):
        fit_problem(problem, 1.0, start=fit_problem(problem, 1.0, hidden=(3,), iterations_max=2))


def test_path_has_the_held_out_loss_of_each_strength() -> None:
    """In the order of the strengths; each is the fit of its C, and the reports say which."""
    train, held_out = draw_problem(9, "softmax", 3, 400, 20), draw_problem(9, "softmax", 3, 300, 20)
    seen: list[float] = []

    def report(C: float) -> Any:
        return lambda *_progress: seen.append(C)

    path = fit_path(train.dense(), held_out.dense(), "softmax", 3, [0.01, 1.0, 0.1], tolerance=1e-8, report=report)
    assert [found.C for found, _ in path] == [0.01, 1.0, 0.1]
    assert list(dict.fromkeys(seen)) == [1.0, 0.1, 0.01]
    for found, loss in path:
        assert found.objective == pytest.approx(fit_problem(train, found.C, tolerance=1e-8).objective, rel=1e-9)
        plain = plain_objective(held_out, found.weights, found.bias, np.inf) / held_out.weights.sum()
        assert loss == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_network_learns_what_no_line_separates(activation: Any) -> None:
    """Exclusive or, by eight hidden outputs; the held-out loss is that of its layers."""
    X = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    problem = Problem(X, (X[:, 0] * X[:, 1] > 0).astype(int), np.ones(400), "sigmoid", 2)
    assert fit_problem(problem, 100.0).loss > 0.68
    found = fit_problem(problem, 100.0, hidden=(8,), activation=activation)
    assert found.loss < 0.2
    assert found.objective == pytest.approx(
        plain_objective(problem, found.weights, found.bias, 100.0, found.hidden), rel=1e-10
    )
    assert mean_loss(found, problem.dense()) == pytest.approx(found.loss, rel=1e-12)
    other = fit_problem(problem, 100.0, hidden=(8,), activation=activation, seed=1)
    assert not np.array_equal(other.weights, found.weights)


def test_balanced_rows_have_the_weights_of_scikit_learn() -> None:
    """All classes weigh the same, and the sum of weights is kept; a class without rows changes nothing."""
    problem = set_of(load_breast_cancer)
    sums = sum_labels(problem.dense(), "sigmoid", 2)
    balanced = BalancedBlocks(problem.dense(), balance_factors(sums.classes))
    again = sum_labels(balanced, "sigmoid", 2)
    assert np.allclose(again.classes, sums.weight / 2)
    found = fit(balanced, "sigmoid", 2, 0.1)
    peer = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-10, max_iter=10**4).fit(
        problem.X.astype(np.float64), problem.labels
    )
    assert np.allclose(found.weights[:, 0], peer.coef_[0], atol=1e-4)
    assert np.array_equal(balance_factors(np.array([3.0, 0.0, 1.0])), [2 / 3, 1, 2])


def test_values_that_are_not_finite_are_refused() -> None:
    """In one sentence."""
    problem = draw_problem(1, "softmax", 3, 20, 4)
    problem.X[3, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_problem(problem, 1.0)
