"""The online Newton step with one curvature for all classes, implicit in the error.

For a row with the input x, the probabilities p, the errors e = p - y and the importance h, and P as in
shared_curvature.py:

    w = h max((1 - sum_k p_k^2) / 2, floor, pull max|e|)   the curvature that the row adds; sigmoid: max(p (1 - p), ...)
    u = P x,  q = x^T u,  den = 1 / w + q
    f = forget (1 + surprise max|e|^4), at most 1/2        the part of P_0 that returns
    S <- S + w                                             starts at 1
    S_k <- S_k + h max(p_k (1 - p_k), floor, pull |e_k|)   the curvature of class k alone, starts at 1
    r_k = rate h (S / S_k)^power / (w den)
    W_k <- W_k - r_k (p'_k - y_k) u                        p' = softmax(z'), z'_k = z_k - r_k q (p'_k - y_k)

A class that is rare has a small S_k, and so a larger step than the shared matrix gives it. The step is implicit: it
uses the error p' - y that is left after it, found by `ITERATIONS` diagonal Newton iterations. So a large rate does not
overshoot.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.kernels.exp_log import exp_lanes, log_64
from service.softmax.kernels.lane_operations import first_lanes, load, spread, store
from service.softmax.kernels.probability_rows import sigmoid_row, softmax_row
from service.softmax.kernels.rules import CURVATURE_MIN, FORGET_MAX, clip_factor, sgd_step
from service.softmax.kernels.wide import WIDE, load_wide

ITERATIONS = 4
# Rows of `errors` for each head: the logit, its probability p, p mass - y, and the importance times that.
LOGIT, PROBABILITY, ERROR, WEIGHTED = 0, 1, 2, 3
ERROR_ROWS = 4


@inlined
def _curvature(errors, top, h, K, own, floor, pull):
    """The curvature w of a row and its largest |e|; adds to own (K,) the curvature of each class."""
    largest, squares = 0.0, 0.0
    for k in range(K):
        p, e = errors[top + PROBABILITY, k], abs(errors[top + ERROR, k])
        largest, squares = max(largest, e), squares + p * p
        own[k] += h * max(p * (1.0 - p), floor, pull * e)
    p = errors[top + PROBABILITY, 0]
    first = 0.5 * (1.0 - squares) if K > 1 else p * (1.0 - p)
    return max(h * max(first, floor, pull * largest), CURVATURE_MIN), largest


@inlined
def _implicit_errors(errors, top, target, mass, q, K, rates, next_z, next_p):
    """next_p (1, W) = the probabilities of next_z = z - rates q (mass next_p - target), z from row `top` of errors."""
    for j in range(0, K, WIDE):
        store(next_z, 0, j, load(errors, top + LOGIT, j))
        store(next_p, 0, j, load(errors, top + PROBABILITY, j))
    for _ in range(ITERATIONS):
        for k in range(K):
            r, p = rates[0, k] * q, next_p[0, k]
            off = next_z[0, k] - errors[top + LOGIT, k] + r * (p * mass - target[0, k])
            next_z[0, k] -= off / (1.0 + r * (mass * p * (1.0 - p)))
        if K > 1:
            softmax_row(next_z, 0, K, next_p, 0)
        else:
            sigmoid_row(next_z, 0, next_p, 0)


@inlined
def shared_step(
    errors, top, heads, target, mass, h, K, u, q, own, whole, at, power, numbers, masters, panels, D, space
):  # fmt: skip
    """One step of all classes. Returns den and f for shared_update, and the step's sum of squares.

    errors (R, W) and target (1, W) float64, W whole vectors: z, p and p mass - y in ERROR_ROWS rows from `top` on for
    each head, and y; mass is the sum of y, 1 for sigmoid. Head n has the columns from n K on; the curvature is that of
    the first. own (K,) holds S_k and whole[at] is S. numbers is (rate, floor, pull, forget, surprise, step_clip). space
    is scratch: three rows (1, W), the steps (1, W) with zeros past the heads, and u in float64.
    """
    rate, floor, pull, forget, surprise, step_clip = numbers
    rates, next_z, next_p, steps, wide_u = space
    w, e = _curvature(errors, top, h, K, own, floor, pull)
    whole[at] += w
    den = 1.0 / w + q
    part = min(forget * (1.0 + surprise * ((e * e) * (e * e))), FORGET_MAX)
    log_whole = log_64(whole[at])
    for k in range(K):
        rates[0, k] = power * (log_whole - log_64(own[k]))
    scale = spread(load(rates, 0, 0), rate * h / (w * den))
    for j in range(0, K, WIDE):
        store(rates, 0, j, first_lanes(exp_lanes(load(rates, 0, j)) * scale, K - j, 0.0))
    for n in range(heads):
        _implicit_errors(errors, top + n * ERROR_ROWS, target, mass, q, K, rates, next_z, next_p)
        change = 0.0
        for k in range(K):
            next_p[0, k] = rates[0, k] * (next_p[0, k] * mass - target[0, k])
            change = max(change, abs(next_p[0, k]) * q)
        factor = clip_factor(change, step_clip)
        for k in range(K):
            steps[0, n * K + k] = factor * next_p[0, k]
    for j in range(0, wide_u.shape[1], WIDE):
        store(wide_u, 0, j, load_wide(u, 0, j))
    return den, part, sgd_step(wide_u, D, steps, masters, panels, 1.0, np.inf)
