"""L-BFGS finds minima that are known, and says why it ends."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from service.softmax.lbfgs import MEMORY, StepMemory, minimize
from service.softmax.line_search import CURVATURE, DECREASE, Point, search_step


def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the Rosenbrock function, whose minimum is 0 at ones."""
    return float(rosen(x)), rosen_der(x)


@pytest.mark.parametrize("n", [2, 10, 50])
def test_curved_valley_is_followed_to_its_end(n: int) -> None:
    """From the usual start, to the known minimum."""
    start = np.where(np.arange(n) % 2, 1.0, -1.2)
    end = minimize(rosenbrock, start, tolerance=1e-8, iterations_max=1000)
    assert end.reason == "gradient"
    assert np.allclose(end.x, 1, atol=1e-7)
    assert end.evaluations < 1.3 * end.iterations + 20
    assert np.array_equal(start, np.where(np.arange(n) % 2, 1.0, -1.2)), "the start is not changed"


@pytest.mark.parametrize("known", [False, True])
def test_diagonal_of_the_hessian_saves_steps(known: bool) -> None:  # noqa: FBT001
    """A quadratic function with curvatures from 1 to 10**6 takes two steps if they are known."""
    curvatures = np.logspace(0, 6, 40)
    end = minimize(
        lambda x: (float(curvatures @ (x * x)) / 2, curvatures * x), np.ones(40),
        tolerance=1e-6, iterations_max=50, diagonal=curvatures if known else None,
    )  # fmt: skip
    assert (end.reason == "gradient") == known
    assert not known or end.iterations <= 2


def test_product_is_that_of_the_bfgs_matrix() -> None:
    """The two-loop recursion equals the matrix that BFGS updates build, also once pairs are replaced."""
    rng, n = np.random.default_rng(0), 6
    diagonal = rng.random(n) + 0.5
    curvature = np.diag(rng.random(n) + 0.5)
    pairs = [(s, curvature @ s) for s in rng.normal(size=(MEMORY + 3, n))]
    memory = StepMemory(n, diagonal)
    for s, y in pairs:
        memory.add(s, y)
    s, y = pairs[-1]
    H = np.diag(1 / diagonal) * (s @ y) / (y @ (y / diagonal))
    for s, y in pairs[-MEMORY:]:
        V = np.eye(n) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    gradient = rng.normal(size=n)
    assert np.allclose(memory.direction(gradient), -H @ gradient, rtol=1e-10)


def test_step_without_curvature_is_not_remembered() -> None:
    """So H stays positive definite."""
    memory = StepMemory(2, np.ones(2))
    memory.add(np.array([1.0, 0.0]), np.array([-1.0, 0.0]))
    assert len(memory) == 0


def test_end_has_its_reason() -> None:
    """Steps that are used up, a value that no longer falls, and a start where the function is not finite."""
    assert minimize(rosenbrock, np.zeros(4), tolerance=1e-8, iterations_max=3).reason == "iterations"
    assert minimize(rosenbrock, np.ones(4), tolerance=1e-8, iterations_max=3).iterations == 0
    stalled = minimize(lambda x: (1e18 + float(x @ x), 2 * x), np.ones(3), tolerance=0.0, iterations_max=100)
    assert stalled.reason in {"value", "step"}
    assert minimize(lambda x: (np.inf, x), np.ones(3), tolerance=0.0, iterations_max=100).reason == "step"


def test_progress_is_reported() -> None:
    """After each step, with falling values; the last ones are those of the result."""
    seen: list[tuple[int, float, float]] = []
    end = minimize(
        rosenbrock, np.zeros(5), tolerance=1e-8, iterations_max=500,
        report=lambda *progress: seen.append(progress),
    )  # fmt: skip
    assert [number for number, _, _ in seen] == list(range(1, end.iterations + 1))
    assert all(after <= before for (_, before, _), (_, after, _) in pairwise(seen))
    assert seen[-1][1:] == (end.value, end.gradient)


@pytest.mark.parametrize("first", [1e-6, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("name", ["bowl", "wall", "waves"])
def test_step_satisfies_the_strong_wolfe_conditions(name: str, first: float) -> None:
    """From steps that are far too short and far too long, also where the function is not finite."""

    def evaluate(a: float) -> Point:
        if name == "bowl":
            return Point(a, (a - 3) ** 2, 2 * (a - 3))
        if name == "wall":
            return Point(a, -a - np.log(5 - a), -1 + 1 / (5 - a)) if a < 5 else Point(a, np.nan, np.nan)
        return Point(a, -a + 0.9 * np.sin(a) + a * a / 50, -1 + 0.9 * np.cos(a) + a / 25)

    start = evaluate(0.0)
    found = search_step(evaluate, start, first)
    assert found is not None
    assert found.value <= start.value + DECREASE * found.step * start.slope
    assert abs(found.slope) <= CURVATURE * abs(start.slope)


def test_unbounded_function_has_no_step() -> None:
    """The search gives up."""
    assert search_step(lambda a: Point(a, -a, -1.0), Point(0.0, 0.0, -1.0), 1.0) is None
