"""Contributions of each feature to each logit, and the slope of each probability with respect to each feature.

    X (B, N)           raw rows
    stagings (S, 2N+1) mean, 1 / scale and limit of each stage, as in single.py; S is 0 where weights take raw rows
    weights (K, F)     of each logit; F is N, or S N with stages: the model's weights, then the delta's
    panels             the same weights and the bias, packed for matmul.py
    Z (B, K), P (B, C) logits and probabilities, bit-identical to a prediction; C is 2 for sigmoid, else K
    labels (B,)        int64: the label, or NOT_FINITE where a number of the row is not finite
    parts (B, K, N)    c_kj = w_kj s_j, and with a delta + d_kj t_j, where s and t are the staged features;
                       b_k + sum_j c_kj is the logit z_k, except for the rounding of that sum
    slopes (B, K, N)   dz_k / dx_j = w_kj s'_j (+ d_kj t'_j); a stage's slope is 1 / scale, and 0 where it clips
    S (B, C, N)        dp_c / dx_j, by the chain rule through the head:

softmax      p_c (g_cj - sum_k p_k g_kj), g = dz / dx (source: jacobians.py)
ovr          the same with g_kj = sigma(-z_k) dz_k / dx_j, as p = softmax(ln sigma(z))
multilabel   sigma(z_c) sigma(-z_c) dz_c / dx_j
sigmoid      sigma(z) sigma(-z) dz / dx_j for the second class, and its negative for the first

    Y (B, K), D (B, N) float64 targets, and dL / dx_j, where L is the loss of the returned probabilities: sum_k of
                       (p_k sum(y) - y_k) g_kj for softmax and ovr, (sigma(z_k) - y_k) dz_k / dx_j otherwise

As in jacobians.py, the g of the most probable class is subtracted from every g. This changes no sum and keeps the
digits of the other classes. Sums run in the order of classes, in the dtype of the arrays.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.heads import NOT_FINITE, OVR, SIGMOID, SOFTMAX, head_block, sigma
from service.softmax.kernels.lane_operations import lane_count, load, store
from service.softmax.kernels.loss import answer_loss_row, scratch
from service.softmax.kernels.matmul import linear_row
from service.softmax.kernels.stages import stage_row


@inlined
def _stage(X, i, stagings, staged, steps):
    """staged (1, F) = row i as the weights take it; steps (1, F) = its slopes. Returns whether x is finite."""
    N, S, finite = X.shape[1], stagings.shape[0], True
    if S == 0:
        for j in range(N):
            staged[0, j] = X[i, j]
            steps[0, j] = 1
    for s in range(S):
        inverse, limit = stagings[s, N : 2 * N], stagings[s, 2 * N]
        finite &= stage_row(X, i, stagings[s, :N], inverse, limit, staged, 0, s * N)
        for j in range(N):
            steps[0, s * N + j] = inverse[j] if abs(staged[0, s * N + j]) < limit else X.dtype.type(0)
    return finite


@inlined
def _products(weights, k, values, out):
    """out[j] = the sum over stages of weights[k, s N + j] values[0, s N + j]. Returns whether all are finite."""
    N, finite, zero = out.size, True, out.dtype.type(0)
    for j in range(N):
        # Adding to 0 prevents a result of -0.0.
        out[j] = zero + weights[k, j] * values[0, j]
    for start in range(N, weights.shape[1], N):
        for j in range(N):
            out[j] += weights[k, start + j] * values[0, start + j]
    for j in range(N):
        finite &= abs(out[j]) < np.inf
    return finite


@kernel(
    "void(float32[:,::1],float32[:,::1],float32[:,:,::1],float32[:,::1],int64,float32[:,::1],float32[:,::1],int64[::1],"
    "float32[:,:,::1],float32[:,:,::1])",
    "void(float64[:,::1],float64[:,::1],float64[:,:,::1],float64[:,::1],int64,float64[:,::1],float64[:,::1],int64[::1],"
    "float64[:,:,::1],float64[:,:,::1])",
)
def linear_parts(X, stagings, panels, weights, head, Z, P, labels, parts, slopes):
    """X (B, N) of a linear model; Z, P, labels, parts and slopes are written, see above."""
    K, F = weights.shape
    staged, steps = np.empty((1, F), X.dtype), np.empty((1, F), X.dtype)
    z, label = np.empty((1, panels.shape[0] * panels.shape[2]), X.dtype), np.empty(1, np.int64)
    for i in range(X.shape[0]):
        finite = _stage(X, i, stagings, staged, steps)
        linear_row(staged, panels, z)
        for k in range(K):
            Z[i, k] = z[0, k]
        finite &= head_block(head, z, 1, K, P, i, label, True)
        for k in range(K):
            finite &= _products(weights, k, staged, parts[i, k]) & _products(weights, k, steps, slopes[i, k])
        labels[i] = label[0] if finite else NOT_FINITE


@inlined
def _complements(Z, i, K, row):
    """row[0, k] = sigma(-z_k) of the logits Z[i, :K]; row has whole vectors."""
    for k in range(K):
        row[0, k] = -Z[i, k]
    row[0, K:] = 0
    for j in range(0, row.shape[1], lane_count(row)):
        store(row, 0, j, sigma(load(row, 0, j)))


@inlined
def _coupled_slopes(g, p, y, has_targets, mean, S, D):
    """S (K, N), and with targets y (K,) also D (N,), of probabilities p (K,) that sum to 1; g (K, N)."""
    (K, N), zero = g.shape, g.dtype.type(0)
    top = 0
    mean[:] = 0
    for k in range(K):
        if p[k] > p[top]:
            top = k
    for k in range(K):
        for j in range(N):
            mean[j] += p[k] * (g[k, j] - g[top, j])
    for k in range(K):
        for j in range(N):
            S[k, j] = zero + p[k] * ((g[k, j] - g[top, j]) - mean[j])
    if has_targets:
        mass = y.sum()
        for k in range(K):
            error = g.dtype.type(p[k] * mass - y[k])
            for j in range(N):
                D[j] += error * (g[k, j] - g[top, j])


@inlined
def _independent_slopes(g, k, p, q, y, has_targets, s, D):
    """s (N,) of one sigmoid's probability p, with q = 1 - p; with a target y also D (N,)."""
    zero = g.dtype.type(0)
    for j in range(g.shape[1]):
        s[j] = zero + p * q * g[k, j]
    if has_targets:
        error = g.dtype.type(p * (1 - y) - y * q)  # p - y, in which nothing cancels for y of 0 or 1
        for j in range(g.shape[1]):
            D[j] += error * g[k, j]


@inlined
def _coupled_row(Z, P, i, head, g, y, has_targets, q, mean, S, D):
    """Row i of the heads whose probabilities sum to 1; g (K, N), q (1, K) and mean (N,) are scratch."""
    K, N = g.shape
    if head == OVR:
        _complements(Z, i, K, q)
        for k in range(K):
            for j in range(N):
                g[k, j] *= q[0, k]
    _coupled_slopes(g, P[i], y, has_targets, mean, S, D)


@inlined
def _independent_row(Z, P, i, head, g, y, has_targets, q, S, D):
    """Row i of the heads of independent logits; g (K, N), q (1, K) is scratch."""
    (K, N), zero = g.shape, g.dtype.type(0)
    if head == SIGMOID:
        _independent_slopes(g, 0, P[i, 1], P[i, 0], y[0], has_targets, S[1], D)
        for j in range(N):
            S[0, j] = zero - S[1, j]
    else:
        _complements(Z, i, K, q)
        for k in range(K):
            _independent_slopes(g, k, P[i, k], q[0, k], y[k], has_targets, S[k], D)


@inlined
def _finite(values):
    """Whether all of values (n,) are finite."""
    finite = True
    for j in range(values.size):
        finite &= abs(values[j]) < np.inf
    return finite


@kernel(
    "void(float32[:,::1],float32[:,::1],float64[:,::1],int64,float32[:,:,::1],int64[::1],float32[:,:,::1],"
    "float32[:,::1])",
    "void(float64[:,::1],float64[:,::1],float64[:,::1],int64,float64[:,:,::1],int64[::1],float64[:,:,::1],"
    "float64[:,::1])",
)
def sensitivities_forward(Z, P, Y, head, slopes, labels, S, D):
    """Z (B, K), P (B, C), slopes (B, K, N) overwritten; S (B, C, N) written, labels where a row is not finite.

    With targets Y (B, K), D (B, N) is written too; without targets Y and D have no rows.
    """
    B, K, N = slopes.shape
    has_targets, lanes = Y.shape[0] > 0, lane_count(Z)
    q, mean = np.empty((1, (K + lanes - 1) // lanes * lanes), Z.dtype), np.empty(N, Z.dtype)
    no_targets, no_slopes = np.empty(K), np.empty(N, Z.dtype)
    for i in range(B):
        if labels[i] == NOT_FINITE:
            continue
        y, d = Y[i] if has_targets else no_targets, D[i] if has_targets else no_slopes
        d[:] = 0
        if head in (SOFTMAX, OVR):
            _coupled_row(Z, P, i, head, slopes[i], y, has_targets, q, mean, S[i], d)
        else:
            _independent_row(Z, P, i, head, slopes[i], y, has_targets, q, S[i], d)
        if not (_finite(S[i].reshape(-1)) and _finite(d)):
            labels[i] = NOT_FINITE


@kernel(
    "void(float32[:,::1],float64[:,::1],int64,int64[::1],float64[::1])",
    "void(float64[:,::1],float64[:,::1],int64,int64[::1],float64[::1])",
)
def answered_losses(Z, Y, head, labels, losses):
    """Z (B, K), Y (B, K), labels (B,), losses (B,) written: the losses by `answer_loss_row`.

    The loss of a row that is NOT_FINITE is NaN.
    """
    B, K = Z.shape
    row, soft, logs = scratch(K), np.empty(K), np.empty(K)
    for i in range(B):
        if labels[i] == NOT_FINITE:
            losses[i] = np.nan
        else:
            losses[i] = answer_loss_row(Z, i, K, Y, head, row, soft, logs)
