"""Minimize a smooth function by L-BFGS in float64, with the same bits on every processor.

SciPy's results differ between systems, because its dot products are those of the system's BLAS. Here every sum has one
order (kernels/vector_sums.py), and the rest is computed element by element.

    direction    d = -H g, where H is the BFGS matrix of the last MEMORY steps s = x' - x and changes y = g' - g of the
                 gradient, by the two-loop recursion (Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.4).
                 H starts from (s^T y) / (y^T D^-1 y) D^-1, where D estimates the diagonal of the Hessian (section 7.2
                 has D = 1)
    step         x' = x + a d, where a satisfies the strong Wolfe conditions (line_search.py); a = 1 is tried first
    end          the largest |g_i| is at most the tolerance and a full step would hardly lower f; or f no longer falls
                 by more than its rounding
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.kernels.vector_sums import add_scaled, dot
from service.softmax.line_search import Point, search_step

Objective = Callable[[Doubles], tuple[float, Doubles]]
"""Return the value at x (n,), and the gradient (n,), in an array of its own."""
Report = Callable[[int, float, float], object]
"""Receive the number of finished iterations, the value, and the largest absolute value of the gradient."""
Reason = Literal["gradient", "value", "iterations", "step"]

# Pairs of s and y. More than ten seldom save an iteration, and each takes two vectors of memory.
MEMORY: Final = 10
# Numbers in all pairs, 1 GiB: of more than 6.7 million parameters, fewer pairs are kept, but at least MEMORY_MIN.
MEMORY_NUMBERS_MAX: Final = 2**27
MEMORY_MIN: Final = 3
# The rounding of f, as a part of it: a smaller fall is none.
VALUE_ROUNDING: Final = 1e-15
# A minimum also has an expected fall of f, -g^T d / 2, of at most this times the tolerance times |f|: where the Hessian
# is small, a small gradient alone says little. A smaller value counts as VALUE_MIN, for f may approach 0 without
# end, as does the loss of rows that a plane separates.
EXPECTED_FALL: Final = 0.01
VALUE_MIN: Final = 1e-3
# Below this part of |s| |y|, the curvature s^T y of a step is rounding, and the step is not remembered.
CURVATURE_MIN: Final = 1e-14


@dataclass(frozen=True, eq=False)
class Minimum:
    """The end of a minimization.

    Attributes:
        x: (n,), the best point.
        value: f(x).
        gradient: The largest absolute value of the gradient there.
        iterations: The number of steps.
        evaluations: The number of times that f was computed.
        reason: The cause of the end: the "gradient" is small; the "value" no longer falls; the number of "iterations"
            is reached; or no "step" along the steepest descent satisfies the conditions, or f is not finite at the
            start.
    """

    x: Doubles
    value: float
    gradient: float
    iterations: int
    evaluations: int
    reason: Reason


class StepMemory:
    """The last pairs of s and y, and the product of H with a vector.

    Args:
        n: The number of parameters.
        diagonal: (n,) positive, D.
    """

    def __init__(self, n: int, diagonal: Doubles) -> None:
        self._size: Final = max(MEMORY_MIN, min(MEMORY, MEMORY_NUMBERS_MAX // (2 * n)))
        self._steps: Final = np.empty((self._size, n))
        self._changes: Final = np.empty((self._size, n))
        self._products: Final = np.empty(self._size)
        self._diagonal: Final = diagonal
        self._count = 0
        self._scale = 1.0

    def __len__(self) -> int:
        return min(self._count, self._size)

    def clear(self) -> None:
        """Forget all pairs; H is D^-1 again."""
        self._count, self._scale = 0, 1.0

    def add(self, step: Doubles, change: Doubles) -> None:
        """Remember a pair, in place of the oldest one, unless its curvature is rounding."""
        row = self._count % self._size
        product = _dot(step, change)
        if product <= CURVATURE_MIN * np.sqrt(_dot(step, step) * _dot(change, change)):
            return
        self._steps[row], self._changes[row], self._products[row] = step, change, product
        self._scale = product / _dot(change, change / self._diagonal)
        self._count += 1

    def direction(self, gradient: Doubles) -> Doubles:
        """Return -H g (n,)."""
        d = -gradient.reshape(1, -1)
        rows = [number % self._size for number in range(self._count - len(self), self._count)]
        factors = np.empty(self._size)
        for row in reversed(rows):
            factors[row] = dot(self._steps, row, d, 0) / self._products[row]
            add_scaled(self._changes, row, -factors[row], d, 0)
        d *= self._scale
        d /= self._diagonal
        for row in rows:
            add_scaled(self._steps, row, factors[row] - dot(self._changes, row, d, 0) / self._products[row], d, 0)
        direction: Doubles = d[0]
        return direction


def minimize(
    objective: Objective,
    start: Doubles,
    *,
    tolerance: float,
    iterations_max: int,
    diagonal: Doubles | None = None,
    report: Report | None = None,
) -> Minimum:
    """Minimize f from a start.

    Args:
        objective: f and its gradient; a value that is not finite counts as too large.
        start: (n,) float64.
        tolerance: The largest |g_i| of a minimum; see EXPECTED_FALL too.
        iterations_max: The largest number of steps.
        diagonal: (n,) positive, an estimate of the diagonal of the Hessian; None for none.
        report: Receives the progress after each step.
    """
    known = diagonal is not None
    memory = StepMemory(start.size, np.ones(start.size) if diagonal is None else diagonal)
    value, gradient = objective(start)
    x, evaluations, iterations = start, 1, 0
    reason: Reason = "step"
    while np.isfinite(value):
        largest, d = float(np.abs(gradient).max()), memory.direction(gradient)
        slope = _dot(gradient, d)
        fall_max = EXPECTED_FALL * tolerance * max(abs(value), VALUE_MIN)
        small = largest <= tolerance and -slope / 2 <= fall_max
        if small or iterations == iterations_max:
            reason = "gradient" if small else "iterations"
            break
        line = _Line(objective, x, d)
        # Without curvature, the length of the first step is a guess: it changes no parameter by more than 1.
        guess = 1.0 if len(memory) or known else min(1.0, 1.0 / largest)
        found = search_step(line.evaluate, Point(0.0, value, slope), guess) if slope < 0 else None
        evaluations += line.evaluations
        if found is None and len(memory):
            memory.clear()
            continue
        if found is None:
            break
        following = line.gradients[found.step]
        memory.add(found.step * d, following - gradient)
        fall, value = value - found.value, found.value
        x, gradient, iterations = x + found.step * d, following, iterations + 1
        if report is not None:
            report(iterations, value, float(np.abs(gradient).max()))
        if fall <= VALUE_ROUNDING * abs(value):
            reason = "value"
            break
    return Minimum(x, value, float(np.abs(gradient).max()), iterations, evaluations, reason)


class _Line:
    """f along x + a d: evaluates a, and keeps the gradients of the points."""

    def __init__(self, objective: Objective, x: Doubles, d: Doubles) -> None:
        self.gradients: Final[dict[float, Doubles]] = {}
        self.evaluations = 0
        self._objective: Final = objective
        self._x: Final = x
        self._d: Final = d

    def evaluate(self, step: float) -> Point:
        """Return value and slope at a step."""
        value, gradient = self._objective(self._x + step * self._d)
        self.evaluations += 1
        self.gradients[step] = gradient
        return Point(step, value, _dot(gradient, self._d))


def _dot(a: Doubles, b: Doubles) -> float:
    """Return the dot product of two vectors."""
    return float(dot(a.reshape(1, -1), 0, b.reshape(1, -1), 0))
