"""The learning rules: one row's step on the weights, in place, in the panels that predictions read.

    x (1, >= D) float64          the learned row: x_0 = 1 for the bias, then the learned features; D = N + 1
    E (1, C V L) float64         h (p - y) for each class: importance times the gradient of the logit; 0 past K
    masters (C D, V L) float64   the weights in full precision: panel c, row j, in the layout of the panels
    panels (C (F + 1), V L)      the served weights: masters rounded to the model's dtype; the learned rows are the bias
                                 and the last N features of each panel
    squares (C D, V L)           the sums of squared gradients, in the model's dtype

A step's effect on the logits of its own row, max_k |x^T dW_k|, is limited to `step_clip` by scaling the whole step.
Masters stay within `LIMIT`, so that their rounded values are always finite. Each function returns the sum of squares of
its step.

    sgd      W <- W - rate x^T e
    adagrad  G <- G + g^2;  W <- W - rate g / (epsilon + sqrt(G))      g = x^T e; Duchi, Hazan & Singer, JMLR 12, 2011
    ftrl     the same with beta in place of epsilon: FTRL-Proximal without l1 and l2 (McMahan et al., KDD 2013) is
             z <- z + g - s w with s = (sqrt(G') - sqrt(G)) / rate and w = -z rate / (beta + sqrt(G)), hence
             w' (beta + sqrt(G')) = w (beta + sqrt(G)) - rate g + w (sqrt(G') - sqrt(G)), which is
             w' = w - rate g / (beta + sqrt(G'))
    newton   see newton.py

After each step G <- (1 - forget) G + forget G_0, so that no step size ever reaches 0.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.kernels.lane_operations import absolute, fma, higher, lane_count, load, lower, spread, store
from service.softmax.kernels.lane_reductions import highest, total
from service.softmax.kernels.newton import newton_product, newton_update
from service.softmax.kernels.wide import WIDE, load_wide, root, store_narrow

# Half of float32's and of float64's largest power of two: rounding and one more step stay finite.
LIMIT_32, LIMIT_64 = 2.0**126, 2.0**1022
# Sums of squares stop here, in either dtype.
SQUARES_MAX = 2.0**126
# The largest f of newton.py, the part by which one row returns the matrices to their first values.
FORGET_MAX = 0.5
# The least curvature that a row adds for Newton: its reciprocal, and the product of both, stay finite.
CURVATURE_MIN = 2.0**-1000


@inlined
def clip_factor(change, step_clip):
    """The factor that limits the change of a logit to step_clip."""
    return 1.0 if change <= step_clip else step_clip / change


@inlined
def weight_limit(panels):
    """The largest master that is stored for panels of this dtype."""
    return LIMIT_32 if panels.itemsize == 4 else LIMIT_64


@inlined
def set_weights(masters, row, panels, served, j, v, limit):
    """masters[row, j :] = v within the limit, and panels[served, j :] = v rounded."""
    v = higher(lower(v, limit), spread(v, 0.0) - limit)
    store(masters, row, j, v)
    store_narrow(panels, served, j, v)


@inlined
def _squares_of(rows, i):
    """The sum of squares of row i of a scratch array of whole vectors."""
    sums = spread(load(rows, i, 0), 0.0)
    for j in range(0, rows.shape[1], WIDE):
        v = load(rows, i, j)
        sums = fma(v, v, sums)
    return total(sums)


@inlined
def largest(row):
    """The largest |number| of a whole scratch row."""
    top = spread(load(row, 0, 0), 0.0)
    for j in range(0, row.shape[1], WIDE):
        top = higher(absolute(load(row, 0, j)), top)
    return highest(top)


@inlined
def sgd_step(x, D, E, masters, panels, rate, step_clip):
    """One step of plain gradient descent."""
    count, width = masters.shape[0] // D, masters.shape[1]
    F = panels.shape[0] // count - 1
    size = _squares_of(x, 0)
    rate *= clip_factor(rate * largest(E) * size, step_clip)
    limit = spread(load(E, 0, 0), weight_limit(panels))
    for c in range(count):
        for j in range(D):
            row, served = c * D + j, c * (F + 1) + (0 if j == 0 else F + 1 - D + j)
            factor = spread(limit, -rate * x[0, j])
            for k in range(0, width, WIDE):
                w = fma(factor, load(E, 0, c * width + k), load(masters, row, k))
                set_weights(masters, row, panels, served, k, w, limit)
    return rate * rate * size * _squares_of(E, 0)


@inlined
def adaptive_step(x, D, E, masters, panels, squares, steps, rate, offset, keep, refill, step_clip):
    """One step of AdaGrad (offset = epsilon) or FTRL (offset = beta); steps, shaped as squares, is scratch."""
    count, width, lanes = masters.shape[0] // D, masters.shape[1], lane_count(squares)
    F = panels.shape[0] // count - 1
    kind = squares.dtype.type
    zero = spread(load(squares, 0, 0), kind(0))
    rates, offsets, keeps = spread(zero, kind(rate)), spread(zero, kind(offset)), spread(zero, kind(keep))
    refills, most = spread(zero, kind(refill)), spread(zero, kind(SQUARES_MAX))
    size, change = 0.0, 0.0
    for c in range(count):
        for k in range(0, width, lanes):
            effect, sums = zero, zero
            e = load(E, 0, c * width + k)
            for j in range(D):
                x_j = spread(zero, kind(x[0, j]))
                g = x_j * e
                G = lower(fma(g, g, load(squares, c * D + j, k)), most)
                step = rates * g / (offsets + root(G))
                store(squares, c * D + j, k, fma(G, keeps, refills))
                store(steps, c * D + j, k, step)
                effect = fma(x_j, step, effect)
                sums = fma(step, step, sums)
            change = max(change, np.float64(highest(absolute(effect))))
            size += np.float64(total(sums))
    factor = clip_factor(change, step_clip)
    wide = spread(load(masters, 0, 0), -factor)
    limit = spread(wide, weight_limit(panels))
    for c in range(count):
        for j in range(D):
            row, served = c * D + j, c * (F + 1) + (0 if j == 0 else F + 1 - D + j)
            for k in range(0, width, WIDE):
                w = fma(wide, load_wide(steps, row, k), load(masters, row, k))
                set_weights(masters, row, panels, served, k, w, limit)
    return factor * factor * size


@inlined
def newton_step(x, D, p, errors, h, K, masters, panels, P, U, numbers, scratch, unit):
    """One Newton step of every class; p and errors = p - y (1, >= K), h the importance of the row.

    numbers is (rate, floor, pull, forget, surprise, start, step_clip). scratch (3, >= max(D, K)) holds the row sums of
    a product, a scaled row, and the factor of each class.
    """
    rate, floor, pull, forget, surprise, start, step_clip = numbers
    count, width = masters.shape[0] // D, masters.shape[1]
    F = panels.shape[0] // count - 1
    change = 0.0
    for k in range(K):
        e = errors[0, k]
        w = max(h * max(p[0, k] * (1.0 - p[0, k]), floor, pull * abs(e)), CURVATURE_MIN)
        q = newton_product(P, k, x, D, U, scratch)
        den = 1.0 / w + max(q, 0.0)
        part = min(forget * (1.0 + surprise * ((e * e) * (e * e))), FORGET_MAX)
        newton_update(P, k, D, U, den, 1.0 - part, part * start, scratch[1:], unit)
        scratch[2, k] = rate * h * e / (w * den)
        change = max(change, abs(scratch[2, k]) * q)
    factor, size, limit = clip_factor(change, step_clip), 0.0, weight_limit(panels)
    for k in range(K):
        scale, c, lane = factor * scratch[2, k], k // width, k % width
        size += scale * scale * _squares_of(U, k)
        for j in range(D):
            w = min(max(masters[c * D + j, lane] - scale * U[k, j], -limit), limit)
            masters[c * D + j, lane] = w
            panels[c * (F + 1) + (0 if j == 0 else F + 1 - D + j), lane] = w
    return size
