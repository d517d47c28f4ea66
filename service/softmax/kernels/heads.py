"""The heads: probabilities and the label from logits.

    Z (R, whole vectors >= K)  logits of a block of rows; used as scratch, values past K are ignored
    P (B, K)                   probabilities of all rows, written; K = 2 for sigmoid, whose model has one logit
    labels (>= rows,)          of the block, written: the lowest index of the largest rounded probability; if `wanted`
                               is false, only NOT_FINITE is reliable

A block is the rows Z[r] = P[start + r]. Each row is computed separately with the vectors of lanes.py, in one fixed
order. A row with an overflowed logit gets the label NOT_FINITE, and each function returns whether there was none. The
exponentials are shifted by the row maximum (log-sum-exp), so that none overflows and the largest is exactly 1.
"""

import numpy as np
from numba import carray

from service.compiler import FAMILY, inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.lane_operations import (
    absolute,
    choose,
    first_lanes,
    fma,
    higher,
    lane_count,
    load,
    lower,
    spread,
    stack,
    store,
    store_part,
)
from service.softmax.kernels.lane_reductions import all_below, first_at, highest, total
from service.softmax.kernels.matmul import linear_block
from service.softmax.kernels.row_groups import (
    GROUP,
    first_at_group,
    first_lanes_group,
    highest_group,
    inverse_total_group,
    load_group,
    store_group,
)

SOFTMAX, SIGMOID, MULTILABEL, OVR = 0, 1, 2, 3
NOT_FINITE = -1
# Rows of a block. Their logits fit into the second-level cache for a thousand classes, and a panel of weights is read
# from memory once for many rows.
BLOCK = 64
# A group of eight rows needs the 32 registers of AVX-512.
GROUPS_PAY = FAMILY == "avx512"


@inlined
def _softmax_narrow(Z, rows, K, P, start, labels, wanted):
    """softmax_block for K classes that fit into one vector: a row stays in registers."""
    # A finite logit times 0 is 0, any other gives NaN: one fused operation per row checks whether all are finite.
    probe = spread(load(Z, 0, 0), 0.0)
    done = 0
    if GROUPS_PAY and rows >= GROUP:
        group_probe = load_group(Z, 0)
        group_probe = group_probe - group_probe
        while rows - done >= GROUP:
            z = load_group(Z, done)
            group_probe = fma(z, spread(z, 0.0), group_probe)
            z = first_lanes_group(Z, z, K, -np.inf)
            e = exp_lanes(z - highest_group(Z, z))
            inverse = inverse_total_group(Z, e)
            p = e * inverse
            store_group(P, start + done, K, p)
            if wanted:
                first_at_group(labels, done, Z, p, inverse)
            done += GROUP
        if not all_below(group_probe, np.inf):
            probe = spread(probe, np.inf)
    for r in range(done, rows):
        z = load(Z, r, 0)
        probe = fma(z, spread(z, 0.0), probe)
        z = first_lanes(z, K, -np.inf)
        e = exp_lanes(z - spread(z, highest(z)))
        inverse = 1 / total(e)
        p = e * spread(e, inverse)
        store_part(P, start + r, 0, K, p)
        if wanted:
            labels[r] = first_at(p, inverse)
    if all_below(probe, np.inf):
        return True
    for r in range(rows):
        if not all_below(load(Z, r, 0), np.inf):
            labels[r] = NOT_FINITE
    return False


@inlined
def _softmax_wide(Z, r, K, P, i):
    """One row of softmax_block for K of more than one vector. Returns the label."""
    lanes = lane_count(Z)
    rest = K % lanes
    whole = K - rest
    z_rest = first_lanes(load(Z, r, min(whole, Z.shape[1] - lanes)), rest, -np.inf)
    top, finite = z_rest, all_below(first_lanes(z_rest, rest, 0.0), np.inf)
    for j in range(0, whole, lanes):
        z = load(Z, r, j)
        top = higher(top, z)
        finite &= all_below(z, np.inf)
    if not finite:
        return NOT_FINITE
    shift = spread(top, highest(top))
    e_rest = exp_lanes(z_rest - shift)
    sums = e_rest
    for j in range(0, whole, lanes):
        e = exp_lanes(load(Z, r, j) - shift)
        store(Z, r, j, e)
        sums = sums + e
    inverse = 1 / total(sums)
    scale = spread(top, inverse)
    label = K
    for j in range(0, whole, lanes):
        p = load(Z, r, j) * scale
        store(P, i, j, p)
        if label == K and first_at(p, inverse) < lanes:
            label = j + first_at(p, inverse)
    p = e_rest * scale
    store_part(P, i, whole, rest, p)
    return min(label, whole + first_at(p, inverse))


@inlined
def softmax_block(Z, rows, K, P, start, labels, wanted):
    """P[start + r, :K] = softmax(Z[r, :K]): p_k = e**(z_k - max z) / sum_j e**(z_j - max z)."""
    if K <= lane_count(Z):
        return _softmax_narrow(Z, rows, K, P, start, labels, wanted)
    finite = True
    for r in range(rows):
        labels[r] = _softmax_wide(Z, r, K, P, start + r)
        finite &= labels[r] != NOT_FINITE
    return finite


@inlined
def sigmoid_block(Z, rows, P, start, labels, wanted):
    """P[start + r] = (sigma(-z), sigma(z)) of the logit z = Z[r, 0]: exactly the two-class softmax of (0, z)."""
    for r in range(rows):
        Z[r, 1] = Z[r, 0]
        Z[r, 0] = 0
    return _softmax_narrow(Z, rows, 2, P, start, labels, wanted)


@inlined
def sigma(z):
    """The logistic function of each lane, computed by e**-|z| to avoid overflow."""
    one = spread(z, 1.0)
    e = exp_lanes(spread(z, 0.0) - absolute(z))
    s = one / (one + e)
    return choose(z, ">=", spread(z, 0.0), s, e * s)


@inlined
def multilabel_block(Z, rows, K, P, start, labels):
    """P[start + r, k] = sigma(Z[r, k]), K independent sigmoids; the labels are set to 0, because thresholds decide."""
    lanes = lane_count(Z)
    finite = True
    for r in range(rows):
        known = True
        for j in range(0, K, lanes):
            z = first_lanes(load(Z, r, j), K - j, 0.0)
            known &= all_below(z, np.inf)
            store_part(P, start + r, j, min(lanes, K - j), sigma(z))
        labels[r] = 0 if known else NOT_FINITE
        finite &= known
    return finite


@inlined
def _ovr_row(Z, r, K, P, i):
    """One row of ovr_block. Returns the label.

    sigma(z) = e**min(z, 0) / (1 + e**-|z|), divided by e**min(max z, 0) so that the largest does not underflow.
    """
    lanes = lane_count(Z)
    top, finite = first_lanes(load(Z, r, 0), K, -np.inf), True
    for j in range(0, K, lanes):
        z = load(Z, r, j)
        top = higher(top, first_lanes(z, K - j, -np.inf))
        finite &= all_below(first_lanes(z, K - j, 0.0), np.inf)
    if not finite:
        return NOT_FINITE
    zero, one = spread(top, 0.0), spread(top, 1.0)
    shift = lower(spread(top, highest(top)), zero)
    sums = zero
    for j in range(0, K, lanes):
        z = first_lanes(load(Z, r, j), K - j, -np.inf)
        s = exp_lanes(lower(z, zero) - shift) / (one + exp_lanes(zero - absolute(z)))
        store(Z, r, j, s)
        sums = sums + s
    scale = spread(top, 1 / total(sums))
    best, label = Z.dtype.type(-1), 0
    for j in range(0, K, lanes):
        p = load(Z, r, j) * scale
        store_part(P, i, j, min(lanes, K - j), p)
        if highest(p) > best:
            best = highest(p)
            label = j + first_at(p, best)
    return label


@inlined
def ovr_block(Z, rows, K, P, start, labels):
    """P[start + r] = softmax(log sigma(Z[r])): K sigmoids divided by their sum, also if every sigmoid underflows."""
    finite = True
    for r in range(rows):
        labels[r] = _ovr_row(Z, r, K, P, start + r)
        finite &= labels[r] != NOT_FINITE
    return finite


@inlined
def head_block(head, Z, rows, K, P, start, labels, wanted):
    """P[start : start + rows] and their labels from the logits Z[:rows, :K]. Returns whether every logit is finite."""
    if head == SOFTMAX:
        return softmax_block(Z, rows, K, P, start, labels, wanted)
    if head == SIGMOID:
        return sigmoid_block(Z, rows, P, start, labels, wanted)
    if head == MULTILABEL:
        return multilabel_block(Z, rows, K, P, start, labels)
    return ovr_block(Z, rows, K, P, start, labels)


@inlined
def _predict_blocks(X, panels, head, K, P, labels, Z, block):
    """predict_forward with its scratch: Z for the logits of a block, and the block's labels."""
    B = X.shape[0]
    wanted = B == 1 or labels.size > 0
    finite, first = True, 0
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        linear_block(X, start, rows, panels, Z)
        finite &= head_block(head, Z, rows, K, P, start, block, wanted)
        if start == 0 and wanted:
            first = block[0]
        if labels.size > 0:
            labels[start : start + rows] = block[:rows]
    return first if finite else NOT_FINITE


@kernel(
    "int64(float32[:,::1],float32[:,:,::1],int64,int64,float32[:,::1],int64[::1])",
    "int64(float64[:,::1],float64[:,:,::1],int64,int64,float64[:,::1],int64[::1])",
)
def predict_forward(X, panels, head, K, P, labels):
    """X (B, N), panels (C, N + 1, V L), P (B, n_classes) written; K logits, of which sigmoid has 1.

    labels (B,) is written, or is empty if labels are not needed. Returns the first row's label (for more than one row
    only if labels are needed), or NOT_FINITE if any row has a logit that is not finite; P of that row is unset.
    """
    block = carray(stack(labels), BLOCK)
    width = panels.shape[0] * panels.shape[2]
    if width == lane_count(panels):  # a narrow block fits on the stack, which saves an allocation of 60 ns
        return _predict_blocks(X, panels, head, K, P, labels, carray(stack(X), (BLOCK, width)), block)
    return _predict_blocks(X, panels, head, K, P, labels, np.empty((min(X.shape[0], BLOCK), width), X.dtype), block)
