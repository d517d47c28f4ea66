"""Probabilities of one row in float64 lanes, for either dtype of model.

The mixture and its experts learn from probabilities in float64; heads.py computes the served ones in the model's dtype.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.lane_operations import first_lanes, higher, load, spread, store
from service.softmax.kernels.lane_reductions import highest, total
from service.softmax.kernels.wide import WIDE


@inlined
def softmax_row(z, i, C, p, h):
    """p[h] = softmax(z[i, :C]) for finite z; rows of z and p hold whole vectors, and p is 0 past C up to one.

    The logits are shifted by their maximum, so that no exponential overflows.
    """
    tops = first_lanes(load(z, i, 0), C, -np.inf)
    for j in range(WIDE, C, WIDE):
        tops = higher(first_lanes(load(z, i, j), C - j, -np.inf), tops)
    shift, sums = spread(tops, highest(tops)), spread(tops, 0.0)
    for j in range(0, C, WIDE):
        e = exp_lanes(first_lanes(load(z, i, j), C - j, -np.inf) - shift)
        store(p, h, j, e)
        sums = sums + e
    scale = spread(sums, 1.0 / total(sums))
    for j in range(0, C, WIDE):
        store(p, h, j, load(p, h, j) * scale)


@inlined
def sigmoid_row(z, i, p, h):
    """p[h, 0] = the logistic function of a finite z[i, 0], by e**-|z| to avoid overflow; p[h, 1:8] = 0."""
    one = spread(load(z, i, 0), 1.0)
    e = exp_lanes(spread(one, -abs(z[i, 0])))
    above = e if z[i, 0] < 0.0 else one
    store(p, h, 0, first_lanes(above / (one + e), 1, 0.0))
