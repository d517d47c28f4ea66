"""The full Jacobians of the heads and of an affine layer, and Jacobian products that never build them.

    Z, P, V (B, K)   logits, probabilities, a direction or the derivatives of a loss
    J (B, K, K)      J[b, i, j] = d out_i / d in_j of row b, written

softmax (Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2.3; Bridle, 1990, "Probabilistic
interpretation of feedforward classification network outputs"):
    dp_i / dz_j = p_i (d_ij - p_j)                  symmetric, so that J v = J^T v; rows sum to 0
    J v = p_i (v_i - sum_j p_j v_j)
log-softmax:
    d ln p_i / dz_j = d_ij - p_j                    every row is e_i - p, so rows sum to 0
    J v = v_i - sum_j p_j v_j,  J^T u = u_j - p_j sum_i u_i      (u = -y gives the cross-entropy's p sum(y) - y)
affine layer z_k = sum_j x_j W_jk + b_k, with W as a vector in memory order, W_jk at j K + k:
    dz_k / dW_jm = x_j d_km                         (K, N K), of which 1 / K of the numbers are not 0

If one class has nearly all the probability, 1 - p_i has no digits of the others. So a diagonal is computed as their
sum, d_ii = p_i sum_(j != i) p_j. A product uses v - v_t, where t is the first class of the largest p: adding a constant
to v changes nothing. Sums run sequentially over classes in their order, in the dtype of the arrays.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.lane_operations import higher, lane_count, load, spread, store, store_part
from service.softmax.kernels.lane_reductions import highest, total


@inlined
def _exps(row, W):
    """row (1, W) in and out: e**(z - max z), with -inf becoming 0. Returns 1 / their sum.

    The sum has the order of heads.py: the last vector first, then the others from the left.
    """
    lanes, last = lane_count(row), W - lane_count(row)
    top = load(row, 0, last)
    for j in range(0, last, lanes):
        top = higher(load(row, 0, j), top)
    shift = spread(top, highest(top))
    e = exp_lanes(load(row, 0, last) - shift)
    store(row, 0, last, e)
    sums = e
    for j in range(0, last, lanes):
        e = exp_lanes(load(row, 0, j) - shift)
        store(row, 0, j, e)
        sums = sums + e
    return 1 / total(sums)


@kernel(
    "void(float32[:,::1],boolean[::1],float32[:,::1])",
    "void(float64[:,::1],boolean[::1],float64[:,::1])",
)
def masked_softmax_forward(Z, allowed, P):
    """Z (B, K) finite, allowed (K,) with at least one True, P (B, K) written: softmax over the allowed classes.

    The others' logits count as -inf, and their probabilities are exactly 0.
    """
    B, K = Z.shape
    lanes = lane_count(Z)
    # One vector past the last whole one, as in heads.py, even if it holds no class.
    rest = K % lanes
    whole = K - rest
    row = np.empty((1, whole + lanes), Z.dtype)
    for i in range(B):
        row[0, K:] = -np.inf
        for k in range(K):
            row[0, k] = Z[i, k] if allowed[k] else -np.inf
        scale = _exps(row, whole + lanes)
        for j in range(0, whole, lanes):
            v = load(row, 0, j)
            store(P, i, j, v * spread(v, scale))
        v = load(row, 0, whole)
        store_part(P, i, whole, rest, v * spread(v, scale))


@kernel("void(float32[:,::1],float32[:,:,::1])", "void(float64[:,::1],float64[:,:,::1])")
def softmax_jacobian(P, J):
    """P (B, K), J (B, K, K) written: J_ij = p_i (d_ij - p_j)."""
    B, K = P.shape
    for b in range(B):
        for i in range(K):
            others = P[b, i] - P[b, i]
            for j in range(K):
                if j != i:
                    J[b, i, j] = -(P[b, i] * P[b, j])
                    others += P[b, j]
            J[b, i, i] = P[b, i] * others


@kernel("void(float32[:,::1],float32[:,:,::1])", "void(float64[:,::1],float64[:,:,::1])")
def log_softmax_jacobian(P, J):
    """P (B, K) = softmax(Z), J (B, K, K) written: J_ij = d_ij - p_j, of ln p by the logits."""
    B, K = P.shape
    for b in range(B):
        for i in range(K):
            others = P[b, i] - P[b, i]
            for j in range(K):
                if j != i:
                    J[b, i, j] = -P[b, j]
                    others += P[b, j]
            J[b, i, i] = others


@kernel(
    "void(float32[:,::1],float32[:,::1],float32[:,::1])",
    "void(float64[:,::1],float64[:,::1],float64[:,::1])",
)
def log_softmax_product(P, V, out):
    """P (B, K) = softmax(Z), V (B, K), out (B, K) written: J v of log-softmax, v_i - sum_j p_j v_j."""
    B, K = P.shape
    for b in range(B):
        top = 0
        for k in range(K):
            if P[b, k] > P[b, top]:
                top = k
        mean = P[b, 0] - P[b, 0]
        for k in range(K):
            mean += P[b, k] * (V[b, k] - V[b, top])
        for k in range(K):
            out[b, k] = (V[b, k] - V[b, top]) - mean


@kernel(
    "void(float32[:,::1],float32[:,::1],float32[:,::1])",
    "void(float64[:,::1],float64[:,::1],float64[:,::1])",
)
def softmax_product(P, V, out):
    """P (B, K), V (B, K), out (B, K) written: J v = J^T v of softmax, p_i (v_i - sum_j p_j v_j)."""
    log_softmax_product(P, V, out)
    B, K = P.shape
    for b in range(B):
        for i in range(K):
            out[b, i] *= P[b, i]


@kernel(
    "void(float32[:,::1],float32[:,::1],float32[:,::1])",
    "void(float64[:,::1],float64[:,::1],float64[:,::1])",
)
def log_softmax_backward(P, dL, dZ):
    """P (B, K) = softmax(Z), dL (B, K) by ln p, dZ (B, K) written: J^T u of log-softmax, u_j - p_j sum_i u_i."""
    B, K = P.shape
    for b in range(B):
        mass = P[b, 0] - P[b, 0]
        for k in range(K):
            mass += dL[b, k]
        for k in range(K):
            dZ[b, k] = dL[b, k] - P[b, k] * mass


@kernel("void(float32[:,::1],float32[:,:,::1])", "void(float64[:,::1],float64[:,:,::1])")
def affine_jacobian(X, J):
    """X (B, N), J (B, K, N K) of zeros; the elements that are not 0 are written: J[b, k, j K + k] = x_j."""
    B, N = X.shape
    K = J.shape[1]
    for b in range(B):
        for j in range(N):
            for k in range(K):
                J[b, k, j * K + k] = X[b, j]
