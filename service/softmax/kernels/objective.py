"""The loss of a block of training rows, and its gradient with respect to the weights of a linear model.

    X, or ends, columns, values   the rows, dense (b, N) or sparse, float32
    labels (b,) int32             numbers of classes, for softmax and sigmoid; (0,) for multilabel
    targets (b, K) uint8          0 or 1, for multilabel; (0, 0) for the others
    weights (b,)                  float64
    W, bias                       float64: (K, S) for dense rows, see row_tiles.py, (N, K) for sparse ones; (K,)
    G, g                          of the shapes of W and bias; the gradient of the block is added

    loss      sum over rows i of w_i L(z_i, y_i), the cross-entropy of loss.py, z_i = W x_i + bias
    gradient  dJ / dW = sum over rows of r_i x_i^T and dJ / dbias = sum of r_i, r_i = w_i (p_i - y_i)

Rows are taken in groups of GROUP. The lanes of a vector are rows when losses and residuals are computed, so a model of
few classes wastes none. Each lane adds the losses and residuals of its rows in order, and lanes are added at the end.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.heads import MULTILABEL, SOFTMAX
from service.softmax.kernels.lane_operations import absolute, choose, higher, load, spread, store
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.logarithm import log_lanes
from service.softmax.kernels.row_tiles import (
    GROUP,
    LANES,
    LOGIT_CLASSES,
    LOGIT_ROWS,
    add_group,
    copy_tail,
    multiply_group,
)


def _read(dtype, ndim):
    """The type of an array that a kernel reads, which may be a mapped file."""
    return types.Array(dtype, ndim, "C", readonly=True)


MATRIX, LABELS, TARGETS = _read(types.float32, 2), _read(types.int32, 1), _read(types.uint8, 2)
ENDS, COLUMNS, VALUES, WEIGHTS = (
    _read(types.int64, 1),
    _read(types.int32, 1),
    _read(types.float32, 1),
    _read(types.float64, 1),
)
OUT_OF_RANGE = -1.0  # no loss is negative


@inlined
def _log1p_lanes(x):
    """ln(1 + x) in each lane, x >= 0; `log1p_64` has the formula."""
    one = spread(x, 1.0)
    u = one + x
    return log_lanes(u) + (x - (u - one)) / u


@inlined
def _softmax_residuals(Z, t, labels, first, rows, w, gaps):
    """Replace the logits Z[:, t : t + 8] by residuals w (p - y). Returns the weighted losses in lanes.

    w (1, GROUP) holds the group's weights, gaps (1, 8) is scratch. Lanes past the last row have the weight 0.
    """
    K, count = Z.shape[0], min(LANES, rows - t)
    top = load(Z, 0, t)
    for k in range(1, K):
        top = higher(load(Z, k, t), top)
    gaps[0, :] = 0.0
    for r in range(count):
        gaps[0, r] = Z[labels[first + t + r], t + r]
    zero, one = spread(top, 0.0), spread(top, 1.0)
    # The largest logits count 1 each. One of them is left out of the rest, so that ln(1 + rest) keeps every bit of it.
    rest, ties = zero, spread(top, -1.0)
    for k in range(K):
        z = load(Z, k, t) - top
        e = exp_lanes(z)
        store(Z, k, t, e)
        rest = rest + choose(z, "<", zero, e, zero)
        ties = ties + choose(z, "<", zero, zero, one)
    rest = rest + ties
    weights = load(w, 0, t)
    scale = weights / (one + rest)
    gap = choose(weights, ">", zero, top - load(gaps, 0, 0), zero)
    for k in range(K):
        store(Z, k, t, load(Z, k, t) * scale)
    for r in range(count):
        Z[labels[first + t + r], t + r] -= w[0, t + r]
    return weights * (_log1p_lanes(rest) + gap)


@inlined
def _sigmoid_residuals(Z, k, t, y, weights):
    """Replace the logits Z[k, t : t + 8] by residuals w (sigma(z) - y). Returns the weighted losses in lanes."""
    z = load(Z, k, t)
    zero, one = spread(z, 0.0), spread(z, 1.0)
    e = exp_lanes(zero - absolute(z))
    sigma = choose(z, ">=", zero, one, e) / (one + e)
    store(Z, k, t, weights * (sigma - y))
    return weights * (_log1p_lanes(e) + choose(z, ">", zero, (one - y) * z, zero - y * z))


@inlined
def residuals_group(Z, labels, targets, head, first, rows, w, scratch, losses):
    """Replace the logits (K, GROUP) of a group by residuals, and add its losses to the lanes losses (1, 8).

    labels and targets are the block's, the group's begin at `first`; w (1, GROUP); scratch (1, 8).
    """
    for t in range(0, rows, LANES):
        weights, count = load(w, 0, t), min(LANES, rows - t)
        sums = load(losses, 0, 0)
        if head == SOFTMAX:
            sums = sums + _softmax_residuals(Z, t, labels, first, rows, w, scratch)
        else:
            for k in range(Z.shape[0]):
                scratch[0, :] = 0.0
                for r in range(count):
                    scratch[0, r] = targets[first + t + r, k] if head == MULTILABEL else labels[first + t + r]
                sums = sums + _sigmoid_residuals(Z, k, t, load(scratch, 0, 0), weights)
        store(losses, 0, 0, sums)


@inlined
def _add_biases(Z, bias, rows):
    """Add the bias to the logits of a group; those past the last row become the bias."""
    for k in range(Z.shape[0]):
        for t in range(rows):
            Z[k, t] += bias[k]
        Z[k, rows:] = bias[k]


@inlined
def _add_residuals(R, rows, sums):
    """Add the residuals of a group to the lanes sums (K, 8)."""
    for k in range(R.shape[0]):
        s = load(sums, k, 0)
        for t in range(0, rows, LANES):
            s = s + load(R, k, t)
        store(sums, k, 0, s)


@inlined
def _load_weights(weights, first, rows, w):
    """Copy the weights of a group, and zeros for the rows that are not there."""
    w[0, :rows] = weights[first : first + rows]
    w[0, rows:] = 0.0


@inlined
def _add_lanes(sums, g):
    """Add the sums of lanes (K, 8) to g (K,)."""
    for k in range(g.size):
        g[k] += total(load(sums, k, 0))


@kernel(
    types.float64(
        MATRIX, LABELS, TARGETS, WEIGHTS, types.int64, types.float64[:, ::1], types.float64[::1],
        types.float64[:, ::1], types.float64[::1],
    )
)  # fmt: skip
def dense_objective(X, labels, targets, weights, head, W, bias, G, g):
    """X (b, N), W and G (K, S), bias and g (K,); see the docstring of this module. Returns the block's loss."""
    (b, N), K = X.shape, W.shape[0]
    whole = N - N % LANES
    Z, sums, losses = np.empty((K, GROUP)), np.zeros((K, LANES)), np.zeros((1, LANES))
    w, scratch, tail = np.empty((1, GROUP)), np.empty((1, LANES)), np.zeros((GROUP, LANES), np.float32)
    tiles = np.empty((LOGIT_ROWS * LOGIT_CLASSES, LANES))
    for first in range(0, b, GROUP):
        rows = min(GROUP, b - first)
        copy_tail(X, first, rows, whole, tail)
        multiply_group(X, first, rows, tail, whole, W, tiles, Z)
        _add_biases(Z, bias, rows)
        _load_weights(weights, first, rows, w)
        residuals_group(Z, labels, targets, head, first, rows, w, scratch, losses)
        _add_residuals(Z, rows, sums)
        add_group(X, first, rows, tail, whole, Z, G)
    _add_lanes(sums, g)
    return total(load(losses, 0, 0))


@kernel(
    types.float64(
        ENDS, COLUMNS, VALUES, LABELS, TARGETS, WEIGHTS, types.int64, types.float64[:, ::1], types.float64[::1],
        types.float64[:, ::1], types.float64[::1],
    )
)  # fmt: skip
def sparse_objective(ends, columns, values, labels, targets, weights, head, W, bias, G, g):
    """Sparse rows of N columns, W and G (N, K), bias and g (K,); see the docstring of this module.

    Returns the block's loss, or OUT_OF_RANGE if a column is not below N.
    """
    b, (N, K) = ends.size, W.shape
    Z, sums, losses = np.empty((K, GROUP)), np.zeros((K, LANES)), np.zeros((1, LANES))
    w, scratch, row = np.empty((1, GROUP)), np.empty((1, LANES)), np.empty(K)
    for e in range(columns.size):
        if not 0 <= columns[e] < N:
            return OUT_OF_RANGE
    for first in range(0, b, GROUP):
        rows = min(GROUP, b - first)
        start = ends[first - 1] if first > 0 else 0
        for t in range(rows):
            row[:] = 0.0
            for e in range(start, ends[first + t]):
                x, column = np.float64(values[e]), columns[e]
                for k in range(K):
                    row[k] += x * W[column, k]
            start = ends[first + t]
            Z[:, t] = row
        _add_biases(Z, bias, rows)
        _load_weights(weights, first, rows, w)
        residuals_group(Z, labels, targets, head, first, rows, w, scratch, losses)
        _add_residuals(Z, rows, sums)
        start = ends[first - 1] if first > 0 else 0
        for t in range(rows):
            row[:] = Z[:, t]
            for e in range(start, ends[first + t]):
                x, column = np.float64(values[e]), columns[e]
                for k in range(K):
                    G[column, k] += x * row[k]
            start = ends[first + t]
    _add_lanes(sums, g)
    return total(load(losses, 0, 0))
