"""Predictions of a mixture for whole blocks of rows, which lie side by side; see side_by_side.py.

The arguments are those of mixture_predict.py, and so are the bits: each number of a row comes from the same operations
in the same order. A row there waits for its own results; here the rows of a block fill all lanes, so 256 rows of digits
take half the time. Only float32 has this kernel, because it takes long to compile.

    XT, cut, logs_cut, A, B, L    the raw rows and the numbers of mixture_inputs.py, transposed: (.., R)
    ZT                            the logits of A, B and L (columns, R), and of the offset (K, R)
    z (C, 8) float64              logits of eight rows
    P ((H + 2) C, 8) float64      probabilities of eight rows: m, f, then the p_h, C vectors each
    logs (H C, 8) float64         their logarithms L_h
    sums (8, 8) float64           partial sums over the classes
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.cosine import cos_lanes
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.heads import BLOCK, NOT_FINITE
from service.softmax.kernels.lane_operations import fma, higher, lane_count, load, load_part, spread, store
from service.softmax.kernels.lane_reductions import all_below
from service.softmax.kernels.logarithm import log_lanes
from service.softmax.kernels.mixture import ANSWER_MIN, UNIFORM, expert_place, mix_logits
from service.softmax.kernels.mixture_inputs import (
    CLIP_A,
    CLIP_B,
    CLIP_L,
    CLIP_LOG,
    CLIPS,
    INVERSE,
    LOG_FACTOR,
    LOG_INVERSE,
    LOG_MEAN,
    MEAN,
    cut_lanes,
    feature_scale,
    log_scale,
    standardize,
)
from service.softmax.kernels.mixture_predict import SIGNATURES, is_finite_row, write_answers
from service.softmax.kernels.side_by_side import block_rows, product, transpose
from service.softmax.kernels.wide import WIDE, load_wide, store_narrow

# With more classes a row fills its vectors, and the numbers of eight rows do not fit into the nearest cache.
CLASSES_MAX = 64


@inlined
def _transpose_rows(X, start, rows, padded, XT):
    """XT[:, r] = X[start + r], with zeros past the rows and past N. Returns whether all are finite.

    padded (R, S) is scratch, S whole vectors.
    """
    N, lanes, finite = X.shape[1], lane_count(X), True
    whole = N - N % lanes
    for r in range(rows):
        for j in range(0, whole, lanes):
            x = load(X, start + r, j)
            finite &= all_below(x, np.inf)
            store(padded, r, j, x)
        if whole < N:
            x = load_part(X, start + r, whole, N - whole, 0.0)
            finite &= all_below(x, np.inf)
            store(padded, r, whole, x)
    padded[rows:] = 0.0
    for r in range(0, padded.shape[0], lanes):
        for j in range(0, padded.shape[1], lanes):
            transpose(padded, r, j, XT, j, r)
    return finite


@inlined
def _stage_columns(XT, N, stage, clips, narrow, cut, logs_cut, A, B, L):
    """Write cut, B, and for narrow rows logs_cut, L and the first N rows of A."""
    lanes = lane_count(XT)
    for n in range(N):
        for r in range(0, XT.shape[1], lanes):
            x = load(XT, n, r)
            z = standardize(x, spread(x, stage[MEAN, n]), spread(x, stage[INVERSE, n]))
            v = cut_lanes(z, clips[CLIP_A])
            store(cut, n, r, v)
            store(B, n, r, cut_lanes(z, clips[CLIP_B]))
            if narrow:
                g = log_scale(x, spread(x, stage[LOG_FACTOR, n]))
                g = standardize(g, spread(x, stage[LOG_MEAN, n]), spread(x, stage[LOG_INVERSE, n]))
                store(logs_cut, n, r, cut_lanes(g, clips[CLIP_LOG]))
                store(A, n, r, v)
                store(L, n, r, cut_lanes(z, clips[CLIP_L]))


@inlined
def _sparse_columns(source, pairs, numbers, start, stop, scale, A, first):
    """Write the sparse features start to stop to the rows of A from first + start on."""
    for m in range(start, stop):
        i, j = pairs[0, m], pairs[1, m]
        for r in range(0, A.shape[1], lane_count(A)):
            v = load(source, i, r)
            u = fma(spread(v, numbers[0, m]), v, spread(v, numbers[2, m]))
            u = fma(spread(v, numbers[1, m]), load(source, j, r), u)
            store(A, first + m, r, spread(v, scale) * cos_lanes(u))


@inlined
def _feature_columns(features, scale, cut, logs_cut, A, first):
    """Write the random features to the rows of A from `first` on."""
    dense, pairs, numbers = features
    n_dense, n_sparse = dense.shape[0] * dense.shape[2], pairs.shape[1]
    product(cut, dense, n_dense, A, first)
    for m in range(first, first + n_dense):
        for r in range(0, A.shape[1], lane_count(A)):
            u = load(A, m, r)
            store(A, m, r, spread(u, scale) * cos_lanes(u))
    half = n_sparse // 2
    _sparse_columns(cut, pairs, numbers, 0, half, scale, A, first + n_dense)
    _sparse_columns(logs_cut, pairs, numbers, half, n_sparse, scale, A, first + n_dense)


@inlined
def _softmax_columns(z, C, P, base, sums):
    """P[base : base + C] = softmax of z in each lane; the sum runs over the classes as `total` does."""
    top = load(z, 0, 0)
    for c in range(1, C):
        top = higher(load(z, c, 0), top)
    for c in range(C):
        store(P, base + c, 0, exp_lanes(load(z, c, 0) - top))
    for j in range(WIDE):
        s = top - top
        for c in range(j, C, WIDE):
            s = s + load(P, base + c, 0)
        store(sums, j, 0, s)
    for half in (4, 2, 1):
        for j in range(half):
            store(sums, j, 0, load(sums, j, 0) + load(sums, j + half, 0))
    scale = spread(top, 1.0) / load(sums, 0, 0)
    for c in range(C):
        store(P, base + c, 0, load(P, base + c, 0) * scale)


@inlined
def _expert_columns(ZT, first, g, K, C, h, z, P, logs, sums):
    """P and logs of expert h for the rows 8 g to 8 g + 7. Returns whether all logits are finite."""
    probe = load_wide(ZT, first, g)
    probe = spread(probe, 0.0)
    if K == 1:
        store(z, 0, 0, probe)
    for k in range(K):
        v = load_wide(ZT, first + k, g)
        probe = fma(v, spread(v, 0.0), probe)  # NaN unless v is finite
        store(z, C - K + k, 0, v)
    if not all_below(probe, np.inf):
        return False
    _softmax_columns(z, C, P, (h + 2) * C, sums)
    floor = spread(probe, UNIFORM / C)
    part = spread(probe, 1.0 - UNIFORM)
    for c in range(C):
        store(logs, h * C + c, 0, log_lanes(fma(load(P, (h + 2) * C + c, 0), part, floor)))
    return True


@inlined
def _answer_columns(mix, H, K, C, ZT, g, z, P, logs, sums):
    """ZT[:K, 8 g : 8 g + 8] = the logits of the answer."""
    for c in range(C):
        v = load(logs, c, 0) * spread(load(logs, c, 0), mix[0])
        for h in range(1, H):
            v = fma(load(logs, h * C + c, 0), spread(v, mix[h]), v)
        store(z, c, 0, v)
    _softmax_columns(z, C, P, 0, sums)
    for c in range(C):
        v = load(P, c, 0) * spread(load(P, c, 0), mix[H])
        for h in range(1, H + 2):
            v = fma(load(P, h * C + c, 0), spread(v, mix[H + h]), v)
        v = log_lanes(higher(v, spread(v, ANSWER_MIN)))
        if K > 1:
            store_narrow(ZT, c, g, v)
        else:
            store(z, c, 0, v)
    if K == 1:
        store_narrow(ZT, 0, g, load(z, 1, 0) - load(z, 0, 0))


@inlined
def _add_offsets(offsets, start, rows, H, heads, K, Zs, OT):
    """Add the offset's logits to those of each expert but the second head of A; OT (K, R) is scratch."""
    for r in range(rows):
        for k in range(K):
            OT[k, r] = offsets[start + r, k]
    for h in range(H):
        at, first = expert_place(h, heads, K)
        if h == 0 or h >= heads:
            for k in range(K):
                for r in range(0, OT.shape[1], lane_count(OT)):
                    store(Zs[at], first + k, r, load(Zs[at], first + k, r) + load(OT, k, r))


@inlined
def _mix_columns(Zs, g, heads, K, mix, ZT, space):
    """ZT[:K, g : g + 8] = the logits of the answer. Returns whether those of all experts are finite."""
    z, P, logs, sums = space
    C, H, finite = max(K, 2), mix.size // 2 - 1, True
    for h in range(H):
        at, first = expert_place(h, heads, K)
        finite &= _expert_columns(Zs[at], first, g, K, C, h, z, P, logs, sums)
    if finite:
        _answer_columns(mix, H, K, C, ZT, g, z, P, logs, sums)
    return finite


@inlined
def _mix_rows(Zs, g, rows, offsets, heads, K, mix, ZT, one):
    """_mix_columns for the rows g to `rows` - 1, one after another; their offsets are in Zs already."""
    row_Zs, Z, z, probabilities, logs = one
    for r in range(g, rows):
        for at in range(len(Zs)):
            for k in range(Zs[at].shape[0]):
                row_Zs[at][0, k] = Zs[at][k, r]
        mix_logits(row_Zs, 0, offsets[:0], 0, K, heads, mix, Z, z, probabilities, logs)
        for k in range(K):
            ZT[k, r] = Z[0, k] if abs(Z[0, 0]) < np.inf else np.nan


@inlined
def _scratch(X, K, H, heads, panels, frequencies):
    """The arrays of the module docstring, and those of one row for mix_logits."""
    t, N, R, lanes = X.dtype, X.shape[1], block_rows(X), lane_count(X)
    S, C, W = (N + lanes - 1) // lanes * lanes, max(K, 2), panels[0].shape[0] * panels[0].shape[2]
    small = C if C <= CLASSES_MAX else 0
    P = np.empty(((H + 2) * small, WIDE))
    for c in range(small):
        P[small + c] = frequencies[c]
    probabilities = np.zeros((H + 2, W))
    probabilities[1, :C] = frequencies
    return (
        (np.empty((R, S), t), np.empty((S, R), t), np.empty((N, R), t), np.empty((N, R), t)),
        (np.empty((panels[0].shape[1] - 1, R), t), np.empty((N, R), t), np.empty((N, R), t)),
        (np.empty((heads * K, R), t), np.empty((K, R), t), np.empty((K, R), t)),
        (np.empty((K, R), t), np.empty((K, R), t), np.zeros((R, W), t)),
        (np.empty((small, WIDE)), P, np.empty((H * small, WIDE)), np.empty((WIDE, WIDE))),
        ((np.zeros((1, W), t), np.zeros((1, W), t), np.zeros((1, W), t)), np.zeros((1, W), t), np.zeros((1, W)),
         probabilities, np.zeros((H, W))),
    )  # fmt: skip


@inlined
def _logits_of_block(X, start, rows, offsets, features, scale, clips, panels, stage, mix, K, space):
    """The logits of the answer to rows from `start` on, in the rows of the last array of space[3]."""
    (padded, XT, cut, logs_cut), (A, B, L), Zs, (OT, ZT, Z), columns, one = space
    N, narrow, H = X.shape[1], features[1].shape[1] > 0, mix.size // 2 - 1
    heads = H - (2 if narrow else 1)
    finite = _transpose_rows(X, start, rows, padded, XT)
    _stage_columns(XT, N, stage, clips, narrow, cut, logs_cut, A, B, L)
    _feature_columns(features, scale, cut, logs_cut, A, N if narrow else 0)
    inputs = A, B, L
    for at in range(H - heads + 1):
        product(inputs[at], panels[at], Zs[at].shape[0], Zs[at], 0)
    if offsets.shape[0] > 0:
        _add_offsets(offsets, start, rows, H, heads, K, Zs, OT)
    for g in range(0, rows, WIDE):
        if max(K, 2) > CLASSES_MAX or not _mix_columns(Zs, g, heads, K, mix, ZT, columns):
            _mix_rows(Zs, g, min(rows, g + WIDE), offsets, heads, K, mix, ZT, one)
    for r in range(rows):
        for k in range(K):
            Z[r, k] = ZT[k, r]
    if not finite:
        for r in range(rows):
            if not is_finite_row(X, start + r):
                Z[r, 0] = np.nan


@kernel(SIGNATURES[0])
def mixture_block_forward(
    X, offsets, dense, pairs, pair_numbers, panels_A, panels_B, panels_L, stage, mix, frequencies, head, Z, P, labels
):  # fmt: skip
    """The same as mixture_predict_forward, for a mixture of float32 that has learned."""
    panels, K, H = (panels_A, panels_B, panels_L), Z.shape[1], mix.size // 2 - 1
    features, M = (dense, pairs, pair_numbers), dense.shape[0] * dense.shape[2] + pairs.shape[1]
    scale, clips = X.dtype.type(feature_scale(M)), np.array(CLIPS, X.dtype)
    heads = H - (2 if pairs.shape[1] > 0 else 1)
    space = _scratch(X, K, H, heads, panels, frequencies)
    logits, found = space[3][2], np.zeros(BLOCK, np.int64)
    wanted, finite, first = X.shape[0] == 1 or labels.size > 0, True, 0
    R = block_rows(X)
    for start in range(0, X.shape[0], R):
        rows = min(R, X.shape[0] - start)
        _logits_of_block(X, start, rows, offsets, features, scale, clips, panels, stage, mix, K, space)
        finite &= write_answers(logits, start, rows, head, Z, P, labels, found, wanted)
        if start == 0 and P.shape[0] > 0 and wanted:
            first = found[0]
    return first if finite else NOT_FINITE
