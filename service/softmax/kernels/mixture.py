"""The mixture: one answer from the answers of H experts, and how it learns.

For a row with the expert probabilities p_h over C classes (a sigmoid head has two):

    L_h = ln(0.99 p_h + 0.01 / C)                      the floor bounds the effect of one expert's wrong certainty
    m = softmax(sum_h a_h L_h)                         the learned mixture
    f_c = n_c / sum n                                  the frequencies of the classes; n_c starts at 1
    answer = v_0 m + v_1 f + sum_h v_(h + 1) p_h       the guarded average
    logits = ln answer; for sigmoid ln answer_1 - ln answer_0

    A <- keep A + t Cov_m(L)                           t the importance of the row
    a <- a - (A + lambda I)^-1 t (E_m L - L_y)         online Newton on the cross-entropy of m; a starts at 1 / H
    v_0 <- share(v_0 m_y^t),  v_1 <- share(v_1 f_y^t),  v_(h + 1) <- share(v_(h + 1) p_hy^t)

For soft targets, sum_y y L_y takes the place of L_y, and the same holds for the logarithms of m_y, f_y and p_hy.
share divides by the sum, then spreads a small part of the whole evenly (Herbster & Warmuth, "Tracking the best expert",
Machine Learning 32, 1998). So the answer is never much worse than the best expert, whatever a does. It is never much
worse than a uniform guess either, because f is not.

The experts are, in this order: one or two heads of A, then B, then L unless rows are wide. A second head is there if
the model has an offset: logits that are added to those of each expert except this head. While v is 0, nothing has been
learned, and the answer is the offset alone, or uniform.

    Zs                           the logits of A (R, W), heads side by side, of B and of L, in rows of whole vectors
    mix (2 H + 2,) float64       a, then v
    A (H, H) float64             the curvature of a
    frequencies (2, C) float64   n, then f
    probabilities (H + 2, W)     scratch: m, f, then the p_h; zeros past C up to a whole vector
    logs (H, W)                  scratch: L; finite past C
"""

import numpy as np

from service.compiler import inlined
from service.softmax.arrays import Doubles
from service.softmax.kernels.exp_log import exp_lanes, log_64
from service.softmax.kernels.lane_operations import absolute, first_lanes, fma, higher, load, spread, store
from service.softmax.kernels.lane_reductions import all_below, highest, total
from service.softmax.kernels.logarithm import log_lanes
from service.softmax.kernels.probability_rows import softmax_row
from service.softmax.kernels.rules import clip_factor
from service.softmax.kernels.wide import WIDE, load_wide, store_narrow

# The part of a uniform distribution in the logarithms of the experts' probabilities.
UNIFORM = 0.01
# Probabilities count as at least this where their logarithm moves v.
PROBABILITY_MIN = 1e-12
# The least answer of which a logarithm is taken: no float32 logit is infinite.
ANSWER_MIN = 1e-300


def mixture_start(H: int) -> Doubles:
    """Return the first `mix` of H experts: equal exponents, and v = 0."""
    return np.concatenate([np.full(H, 1.0 / H), np.zeros(H + 2)])


@inlined
def expert_place(h, heads, K):
    """The index in Zs of expert h, and its first column there."""
    return (0, h * K) if h < heads else (h - heads + 1, 0)


@inlined
def _expert(Z, r, column, K, C, h, z, probabilities, logs):
    """probabilities[h + 2] and logs[h] from the logits Z[r, column : column + K]. Returns whether they are finite."""
    if K == 1:
        z[0, 0], z[0, 1] = 0.0, Z[r, column]
    elif column == 0:
        for j in range(0, C, WIDE):
            store(z, 0, j, first_lanes(load_wide(Z, r, j), C - j, 0.0))
    else:
        for k in range(K):
            z[0, k] = Z[r, column + k]
    finite = True
    for j in range(0, C, WIDE):
        finite &= all_below(first_lanes(load(z, 0, j), C - j, 0.0), np.inf)
    if not finite:
        return False
    softmax_row(z, 0, C, probabilities, h + 2)
    floor = spread(load(z, 0, 0), UNIFORM / C)
    part = spread(floor, 1.0 - UNIFORM)
    for j in range(0, C, WIDE):
        store(logs, h, j, log_lanes(fma(load(probabilities, h + 2, j), part, floor)))
    return True


@inlined
def _answer(mix, H, K, C, Z, r, z, probabilities, logs):
    """Z[r, :K] = the logits of the answer from probabilities[1:] and logs; writes m to probabilities[0]."""
    for j in range(0, C, WIDE):
        v = load(logs, 0, j) * spread(load(logs, 0, j), mix[0])
        for h in range(1, H):
            v = fma(load(logs, h, j), spread(v, mix[h]), v)
        store(z, 0, j, v)
    softmax_row(z, 0, C, probabilities, 0)
    for j in range(0, C, WIDE):
        v = load(probabilities, 0, j) * spread(load(probabilities, 0, j), mix[H])
        for h in range(1, H + 2):
            v = fma(load(probabilities, h, j), spread(v, mix[H + h]), v)
        store(z, 0, j, log_lanes(higher(v, spread(v, ANSWER_MIN))))
    if K == 1:
        Z[r, 0] = z[0, 1] - z[0, 0]
    else:
        for j in range(0, C, WIDE):
            store_narrow(Z, r, j, first_lanes(load(z, 0, j), C - j, 0.0))


@inlined
def count_classes(target, importance, C, frequencies, probabilities):
    """Count a row's targets in frequencies (2, C), and write f to probabilities[1]."""
    whole = 0.0
    for c in range(C):
        frequencies[0, c] += importance * target[0, c]
        whole += frequencies[0, c]
    for c in range(C):
        frequencies[1, c] = frequencies[0, c] / whole
        probabilities[1, c] = frequencies[1, c]


@inlined
def mix_logits(Zs, r, offsets, i, K, heads, mix, Z, z, probabilities, logs):
    """Z[r, :K] = the logits of the answer from the experts' logits Zs[...][r], to which offsets[i] is added in place.

    offsets (B, K) has no rows if there is no offset. Z[r, 0] is NaN, and the returned value False, if a logit of an
    expert is not finite. probabilities[1] is f. z (1, W) is scratch.
    """
    C, H, finite = max(K, 2), logs.shape[0], True
    for h in range(H):
        at, column = expert_place(h, heads, K)
        if offsets.shape[0] > 0 and (h == 0 or h >= heads):
            for k in range(K):
                Zs[at][r, k] += offsets[i, k]
        finite &= _expert(Zs[at], r, column, K, C, h, z, probabilities, logs)
    if not finite:
        Z[r, 0] = np.nan
        return False
    _answer(mix, H, K, C, Z, r, z, probabilities, logs)
    if mix[H] == 0.0:
        for k in range(K):
            Z[r, k] = offsets[i, k] if offsets.shape[0] > 0 else 0.0
    return True


@inlined
def _solve(A, ridge, g, H, R, step):
    """step (>= H,) = (A + ridge I)^-1 g by Cholesky's method in one order; R (H, H) is scratch."""
    for i in range(H):
        for j in range(i + 1):
            s = A[i, j] + (ridge if i == j else 0.0)
            for k in range(j):
                s -= R[i, k] * R[j, k]
            R[i, j] = np.sqrt(s) if i == j else s / R[j, j]
    for i in range(H):
        s = g[i]
        for k in range(i):
            s -= R[i, k] * step[k]
        step[i] = s / R[i, i]
    for i in range(H - 1, -1, -1):
        s = step[i]
        for k in range(i + 1, H):
            s -= R[k, i] * step[k]
        step[i] = s / R[i, i]


@inlined
def _gradient(target, mass, importance, H, C, keep, A, probabilities, logs, off, g):
    """A and g (>= H,) = the curvature and the gradient of a; off (H, W) is scratch."""
    for h in range(H):
        mean = load(logs, h, 0) - load(logs, h, 0)
        truth = mean
        for j in range(0, C, WIDE):
            mean = fma(load(probabilities, 0, j), load(logs, h, j), mean)
            truth = fma(load(target, 0, j), load(logs, h, j), truth)
        mean_h = total(mean)
        g[h] = importance * (mass * mean_h - total(truth))
        for j in range(0, C, WIDE):
            store(off, h, j, load(logs, h, j) - spread(mean, mean_h))
    for h in range(H):
        for k in range(h + 1):
            sums = load(off, 0, 0) - load(off, 0, 0)
            for j in range(0, C, WIDE):
                sums = fma(load(probabilities, 0, j) * load(off, h, j), load(off, k, j), sums)
            A[h, k] = keep * A[h, k] + importance * mass * total(sums)
            A[k, h] = A[h, k]


@inlined
def _update_guard(target, importance, H, C, share, v, probabilities, powers):
    """v (H + 2,) by exponential weights with a fixed share; powers (1, 8) is scratch."""
    top = -np.inf
    for h in range(H + 2):
        s = 0.0
        for c in range(C):
            if target[0, c] != 0.0:
                s += target[0, c] * log_64(max(probabilities[h, c], PROBABILITY_MIN))
        powers[0, h] = importance * s
        top = max(top, powers[0, h])
    # The first row that is learned finds v = 0, which stands for equal weights.
    first = v[0] == 0.0
    e = exp_lanes(first_lanes(load(powers, 0, 0), H + 2, top) - spread(load(powers, 0, 0), top))
    store(powers, 0, 0, e)
    whole = 0.0
    for h in range(H + 2):
        v[h] = (1.0 if first else v[h]) * powers[0, h]
        whole += v[h]
    for h in range(H + 2):
        v[h] = (1.0 - share) * v[h] / whole + share / (H + 2)


@inlined
def mixture_step(target, mass, importance, H, C, numbers, mix, A, probabilities, logs, space):
    """One step of a and v by the row that mix_logits wrote probabilities and logs of.

    target (1, W) holds the targets of the C classes, with the sum `mass` and zeros past C. numbers is (lambda, keep,
    share, step_clip); a step changes no sum_h a_h L_h by more than step_clip. space is scratch: off (H, W), g and step
    (>= H,), R (H, H) and powers (1, 8).
    """
    ridge, keep, share, step_clip = numbers
    off, g, step, R, powers = space
    _gradient(target, mass, importance, H, C, keep, A, probabilities, logs, off, g)
    _solve(A, ridge, g, H, R, step)
    change = 0.0
    for j in range(0, C, WIDE):
        v = load(logs, 0, j) * spread(load(logs, 0, j), step[0])
        for h in range(1, H):
            v = fma(load(logs, h, j), spread(v, step[h]), v)
        change = max(change, highest(absolute(first_lanes(v, C - j, 0.0))))
    factor = clip_factor(change, step_clip)
    for h in range(H):
        mix[h] -= factor * step[h]
    _update_guard(target, importance, H, C, share, mix[H:], probabilities, powers)
