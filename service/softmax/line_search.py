"""Find a step along a descent direction that satisfies the strong Wolfe conditions.

With phi(a) = f(x + a d), phi'(0) < 0 and 0 < c1 < c2 < 1 (Nocedal & Wright, Numerical Optimization, 2006, section 3.1):

    sufficient decrease    phi(a) <= phi(0) + c1 a phi'(0)
    curvature              |phi'(a)| <= c2 |phi'(0)|

Near a minimum phi falls by less than its rounding e. There the slope shows the decrease, as in the approximate Wolfe
conditions of Hager & Zhang ("A new conjugate gradient method with guaranteed descent and an efficient line search",
SIAM J. Optim. 16, 2005): phi(a) <= phi(0) + e and phi'(a) <= (2 c1 - 1) phi'(0).

The search keeps a bracket as they do. At its lower end phi <= phi(0) + e, and phi falls; at its upper end phi rises, or
is larger. So a minimum is between them. A new point is where the slopes' secant is 0, or the middle of the bracket.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

# c1 and c2 as usual for quasi-Newton methods (Nocedal & Wright, section 3.1).
DECREASE: Final = 1e-4
CURVATURE: Final = 0.9
# The rounding e of phi, as a part of |phi(0)|.
ROUNDING: Final = 1e-12
# Tries of one search. Every third new point halves the bracket, so these narrow it to 1e-4 of its width.
TRIALS_MAX: Final = 40
HALVING: Final = 3
# A longer step is at least twice and at most ten times the last one. A point within a bracket keeps a tenth of it from
# both ends.
EXTENSION_MIN: Final = 2.0
EXTENSION_MAX: Final = 10.0
MARGIN: Final = 0.1


class Point(NamedTuple):
    """A point on the line: `step` a, `value` phi(a) and `slope` phi'(a)."""

    step: float
    value: float
    slope: float


def search_step(evaluate: Callable[[float], Point], start: Point, step: float) -> Point | None:
    """Return a point that satisfies the conditions, or None if TRIALS_MAX tries find none.

    Args:
        evaluate: Returns the point at a step; a value or slope that is not finite counts as too large.
        start: The point at step 0; its slope is negative.
        step: The first step to try.
    """
    low, high, ceiling = start, None, start.value + ROUNDING * abs(start.value)
    for trial in range(1, TRIALS_MAX + 1):
        point = evaluate(step)
        if _satisfies(point, start, ceiling):
            return point
        if point.slope < 0 and point.value <= ceiling:
            low = point
        else:
            high = point
        step = _extend(start, low) if high is None else _narrow(low, high, halve=trial % HALVING == 0)
    return None


def _satisfies(point: Point, start: Point, ceiling: float) -> bool:
    """Return whether a point satisfies the conditions; False for NaN."""
    falls = point.value <= start.value + DECREASE * point.step * start.slope
    near = point.value <= ceiling and point.slope <= (2 * DECREASE - 1) * start.slope
    return (falls or near) and abs(point.slope) <= -CURVATURE * start.slope


def _extend(start: Point, low: Point) -> float:
    """Return a longer step: the zero of the secant through the slopes of both points, within limits."""
    rise = low.slope - start.slope
    factor = -start.slope / rise if rise > 0 else EXTENSION_MAX
    return low.step * min(max(factor, EXTENSION_MIN), EXTENSION_MAX)


def _narrow(low: Point, high: Point, *, halve: bool) -> float:
    """Return a step between two points."""
    width = high.step - low.step
    if not (math.isfinite(high.value) and math.isfinite(high.slope)):
        return low.step + MARGIN * width
    if halve or high.slope <= 0:
        return low.step + width / 2
    return low.step + width * min(max(low.slope / (low.slope - high.slope), MARGIN), 1 - MARGIN)
