"""The inputs of the three experts of the rule `mixture`, from raw rows, in the model's dtype.

    z = (x - mean) / scale                           standardized features
    g = sign(x) log(1 + 10 |x| / mean |x|)           log-scaled features
    l = (g - mean of g) / scale of g, cut at +-2.5   standardized log-scaled features
    A = (z cut at +-2, phi)                          random features phi of z cut at +-2 and of l; random_features.py
    B = z cut at +-1.25
    L = z cut at +-4

No input has a bias column. A wide model has no sparse features: then A = phi, and neither l nor L is computed.

    X (B, N)                raw rows
    stage (5, S)            the numbers of the stage, in the rows named below; S is N up to a multiple of 16, with zeros
                            past N. An inverse of 0 marks a feature of unknown scale: each value of it becomes 0
    clips (4,)              the cuts of B, A, L and l, in the model's dtype
    features                (dense, pairs, pair_numbers), see PackedFeatures
    A (R, N + M), B (R, N), L (R, N)   written; A (R, M) for a wide model, whose L may have any shape
    scratch                 of `inputs_scratch`; row r of `cut` and `logs_cut` belongs to row r of A, B and L
    statistics (5, S)       float64 sums over the rows that were learned, in the rows named below; zeros past N

Serving takes a stage that does not change: `inputs_block`. The fold takes `inputs_row` and then, if it learns from the
row, `update_stage`, so the stage of a row is that of the rows before it, and the last one is published.
Each number of a row depends on its own row alone, by operations in a fixed order: the bits of a row are the same alone
and in a block.
"""

import math

import numpy as np
from numba.extending import register_jitable

from service.compiler import FAMILY, inlined
from service.softmax.kernels.cosine import cos_lanes
from service.softmax.kernels.fold import INVERSE_MAX_32, INVERSE_MAX_64, VARIANCE_MIN
from service.softmax.kernels.lane_bits import gather
from service.softmax.kernels.lane_operations import (
    absolute,
    choose,
    fma,
    higher,
    lane_count,
    load,
    load_part,
    lower,
    spread,
    store,
    store_part,
)
from service.softmax.kernels.lane_reductions import all_below
from service.softmax.kernels.logarithm import log_lanes
from service.softmax.kernels.matmul import linear_block, tile
from service.softmax.kernels.wide import WIDE, load_wide, root, store_narrow

# Rows of `stage`: the mean and 1 / scale of x; 10 / mean |x|; the mean and 1 / scale of g.
MEAN, INVERSE, LOG_FACTOR, LOG_MEAN, LOG_INVERSE = 0, 1, 2, 3, 4
STAGE_ROWS = 5
# Rows of `statistics`: the mean and the sum of squared deviations of x (Welford), the sum of |x|, and those of g.
SQUARES, ABSOLUTE, LOG_SQUARES = 1, 2, 4
# Elements of `clips`.
CLIP_B, CLIP_A, CLIP_L, CLIP_LOG = 0, 1, 2, 3
CLIPS = (1.25, 2.0, 4.0, 2.5)
# The standard deviation of the random features of a row, together, is FEATURES_SIZE sqrt(256), whatever their number.
FEATURES_SIZE = 0.3
# g of a feature at its mean size is log(1 + LOG_STEEPNESS).
LOG_STEEPNESS = 10.0
# 10 |x| / mean |x| stops here, so that the logarithm is finite; in either dtype.
LOG_RATIO_MAX = 2.0**120
# Vectors of dense features that a single row computes together: their sums do not wait for each other. Processors
# without AVX-512 have registers for four.
TOGETHER = 8 if FAMILY == "avx512" else 4


@register_jitable  # type: ignore[untyped-decorator]  # Numba has no types
def feature_scale(M: int) -> float:
    """The factor of M cosines: FEATURES_SIZE sqrt(2) sqrt(256 / M)."""
    return FEATURES_SIZE * math.sqrt(512.0 / M)


@inlined
def inputs_scratch(X, S, rows, dense):
    """Scratch for blocks of `rows` rows: (raw, logs, cut, logs_cut, projected), zeros."""
    N, kind = X.shape[1], X.dtype
    narrow = np.zeros((1, S), kind), np.zeros((1, S), kind), np.zeros((rows, N), kind), np.zeros((rows, N), kind)
    return *narrow, np.zeros((rows, dense.shape[0] * dense.shape[2]), kind)


@inlined
def cut_lanes(v, limit):
    """Each lane of v between -limit and limit."""
    return higher(lower(v, spread(v, limit)), spread(v, -limit))


@inlined
def _store_first(out, r, j, n, v):
    """out[r, j : j + n] = the first n lanes of v."""
    if n == lane_count(out):
        store(out, r, j, v)
    else:
        store_part(out, r, j, n, v)


@inlined
def standardize(x, mean, inverse):
    """(x - mean) / scale in each lane; 0 where the scale is unknown."""
    zero = spread(x, 0.0)
    return choose(inverse, ">", zero, (x - mean) * inverse, zero)


@inlined
def _standardize(x, stage, row, j):
    """standardize by rows `row` and row + 1 of the stage."""
    return standardize(x, load(stage, row, j), load(stage, row + 1, j))


@inlined
def log_scale(x, factor):
    """g in each lane, with factor = 10 / mean |x|; 0 where the factor is 0."""
    one, zero = spread(x, 1.0), spread(x, 0.0)
    g = log_lanes(one + lower(absolute(x) * factor, spread(x, LOG_RATIO_MAX)))
    return choose(x, "<", zero, zero - g, g)


@inlined
def _stage_row(X, i, stage, clips, narrow, scratch, A, B, L, r):
    """Write row r of B, L, the scratch, and the first N columns of A. Returns whether every x is finite."""
    raw, logs, cut, logs_cut, _ = scratch
    N, lanes = X.shape[1], lane_count(X)
    finite = True
    for j in range(0, N, lanes):
        n = min(lanes, N - j)
        x = load(X, i, j) if n == lanes else load_part(X, i, j, n, 0.0)
        finite &= all_below(x, np.inf)
        store(raw, 0, j, x)
        z = _standardize(x, stage, MEAN, j)
        v = cut_lanes(z, clips[CLIP_A])
        _store_first(B, r, j, n, cut_lanes(z, clips[CLIP_B]))
        _store_first(cut, r, j, n, v)
        if narrow:
            g = log_scale(x, load(stage, LOG_FACTOR, j))
            store(logs, 0, j, g)
            _store_first(logs_cut, r, j, n, cut_lanes(_standardize(g, stage, LOG_MEAN, j), clips[CLIP_LOG]))
            _store_first(A, r, j, n, v)
            _store_first(L, r, j, n, cut_lanes(z, clips[CLIP_L]))
    return finite


@inlined
def _project_row(cut, r, dense, projected):
    """projected[r] = the arguments of the dense features of one row; the bits are those of linear_block."""
    c = 0
    while c + TOGETHER <= dense.shape[0]:
        tile(1, TOGETHER, 1, cut, r, dense, c, projected, r)
        c += TOGETHER
    while c < dense.shape[0]:
        tile(1, 1, 1, cut, r, dense, c, projected, r)
        c += 1


@inlined
def _sparse_cosines(source, r, pairs, numbers, start, stop, scale, A, first):
    """Write the sparse features start to stop of row r of A, from its coordinates in `source`."""
    for m in range(start, stop, lane_count(A)):
        u = fma(load(numbers, 0, m), gather(source, r, pairs, 0, m), load(numbers, 2, m))
        u = fma(load(numbers, 1, m), gather(source, r, pairs, 1, m), u)
        store(A, r, first + m, scale * cos_lanes(u))


@inlined
def _cosines(scratch, r, features, scale, A, first):
    """Write the random features of row r of A, from column `first` on."""
    _, _, cut, logs_cut, projected = scratch
    _, pairs, numbers = features
    n_dense, n_sparse = projected.shape[1], pairs.shape[1]
    scales = spread(load(projected, 0, 0), scale)
    for m in range(0, n_dense, lane_count(A)):
        store(A, r, first + m, scales * cos_lanes(load(projected, r, m)))
    first += n_dense
    half = n_sparse // 2
    _sparse_cosines(cut, r, pairs, numbers, 0, half, scales, A, first)
    _sparse_cosines(logs_cut, r, pairs, numbers, half, n_sparse, scales, A, first)


@inlined
def inputs_row(X, i, stage, clips, features, scale, scratch, A, B, L):
    """Row 0 of A, B and L = the inputs of row i of X. Returns whether every x is finite.

    `raw` and `logs` in the scratch keep what `update_stage` needs.
    """
    narrow = features[1].shape[1] > 0
    finite = _stage_row(X, i, stage, clips, narrow, scratch, A, B, L, 0)
    _project_row(scratch[2], 0, features[0], scratch[4])
    _cosines(scratch, 0, features, scale, A, X.shape[1] if narrow else 0)
    return finite


@inlined
def inputs_block(X, i, rows, stage, clips, features, scale, scratch, A, B, L):
    """Rows 0 to rows - 1 of A, B and L = the inputs of rows i to i + rows - 1 of X. Returns whether all are finite."""
    narrow = features[1].shape[1] > 0
    finite = True
    for r in range(rows):
        finite &= _stage_row(X, i + r, stage, clips, narrow, scratch, A, B, L, r)
    if rows == 1:
        _project_row(scratch[2], 0, features[0], scratch[4])
    else:
        linear_block(scratch[2], 0, rows, features[0], scratch[4])
    for r in range(rows):
        _cosines(scratch, r, features, scale, A, X.shape[1] if narrow else 0)
    return finite


@inlined
def _inverse_scale(squares, mean, n, most):
    """1 / scale in each lane, from the sum of squared deviations of n rows; 0 where it is unknown."""
    zero = spread(mean, 0.0)
    least = mean * mean * spread(mean, VARIANCE_MIN) * n
    inverse = choose(squares, ">", least, root(n / squares), zero)
    return choose(inverse, "<", most, inverse, zero)


@inlined
def _update_moments(x, statistics, row, stage, j, n, share, most):
    """Add x to the moments in rows `row` and row + 1, and write both rows of the stage."""
    mean = load(statistics, row, j)
    off = x - mean
    mean = fma(off, share, mean)
    squares = fma(off, x - mean, load(statistics, row + 1, j))
    store(statistics, row, j, mean)
    store(statistics, row + 1, j, squares)
    store_narrow(stage, row, j, mean)
    store_narrow(stage, row + 1, j, _inverse_scale(squares, mean, n, most))


@inlined
def update_stage(scratch, seen, fixed, narrow, statistics, stage):
    """Add the row of `inputs_row` to the statistics, and write the stage of the rows so far.

    `seen` counts rows including this one. If `fixed`, the mean and scale of x do not change.
    """
    raw, logs = scratch[0], scratch[1]
    zero = spread(load(statistics, 0, 0), 0.0)
    n, share = spread(zero, seen), spread(zero, 1.0 / seen)
    most = spread(zero, INVERSE_MAX_32 if stage.itemsize == 4 else INVERSE_MAX_64)
    for j in range(0, statistics.shape[1], WIDE):
        x = load_wide(raw, 0, j)
        if not fixed:
            _update_moments(x, statistics, MEAN, stage, j, n, share, most)
        if narrow:
            sizes = load(statistics, ABSOLUTE, j) + absolute(x)
            store(statistics, ABSOLUTE, j, sizes)
            factor = n * spread(zero, LOG_STEEPNESS) / sizes
            store_narrow(stage, LOG_FACTOR, j, choose(factor, "<", most, factor, zero))
            _update_moments(load_wide(logs, 0, j), statistics, LOG_MEAN, stage, j, n, share, most)
