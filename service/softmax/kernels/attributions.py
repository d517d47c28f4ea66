"""What an answer is made of, for each feature: its part of each logit, and the slope of each probability.

    X (B, N)           raw rows
    stagings (S, 2N+1) of each stage the mean, 1 / scale and limit, as in single.py; S is 0 where weights take raw rows
    weights (K, F)     of each logit; F is N, or S N with stages, the delta's weights behind the others
    panels             the same weights and the bias, packed for tile.py
    Z (B, K), P (B, C) logits and probabilities, those of a prediction to the bit; C is 2 for sigmoid, else K
    labels (B,)        int64: the label, or NOT_FINITE where a number of the row is not finite
    parts (B, K, N)    c_kj = w_kj s_j, and with a delta + d_kj t_j, s and t being the staged features; b_k + sum_j c_kj
                       is the logit z_k, but for the rounding of that sum
    slopes (B, K, N)   dz_k / dx_j = w_kj s'_j (+ d_kj t'_j); a stage's slope is 1 / scale, and 0 where it clips
    S (B, C, N)        dp_c / dx_j, by the chain rule through the head:

softmax      p_c (g_cj - sum_k p_k g_kj), g = dz / dx (jacobians.py has the source)
ovr          the same with g_kj = sigma(-z_k) dz_k / dx_j, as p = softmax(ln sigma(z))
multilabel   sigma(z_c) sigma(-z_c) dz_c / dx_j
sigmoid      sigma(z) sigma(-z) dz / dx_j for the second class, and less that for the first

    Y (B, K), D (B, N) targets float64, and dL / dx_j, L being the loss of the answered probabilities: sum_k of
                       (p_k sum(y) - y_k) g_kj for softmax and ovr, (sigma(z_k) - y_k) dz_k / dx_j otherwise

As in jacobians.py, g is taken less that of the most probable class, which changes no sum and keeps the digits of what
the others have. Sums run in the order of classes, in the dtype of the arrays.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.heads import NOT_FINITE, OVR, SIGMOID, SOFTMAX, head_block, sigma
from service.softmax.kernels.lanes import lane_count, load, store
from service.softmax.kernels.loss import cross_entropy_row, log_probabilities_row, scratch
from service.softmax.kernels.matmul import linear_row
from service.softmax.kernels.stages import stage_row


@inlined
def _stage(X, i, stagings, staged, steps):
    """Row i as the weights see it, staged (1, F), and the slopes of that, steps (1, F). Returns whether x is finite."""
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
        # A zero with a sign would be told as -0.0.
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
def _opposites(Z, i, K, row):
    """row[0, k] = sigma(-z_k) of the logits Z[i, :K]; row has whole vectors."""
    for k in range(K):
        row[0, k] = -Z[i, k]
    row[0, K:] = 0
    for j in range(0, row.shape[1], lane_count(row)):
        store(row, 0, j, sigma(load(row, 0, j)))


@inlined
def _coupled(g, p, y, taught, mean, S, D):
    """S (K, N), and D (N,) where there are targets y (K,), of probabilities p (K,) that share one sum; g (K, N)."""
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
    if taught:
        mass = y.sum()
        for k in range(K):
            error = g.dtype.type(p[k] * mass - y[k])
            for j in range(N):
                D[j] += error * (g[k, j] - g[top, j])


@inlined
def _apart(g, k, p, q, y, taught, s, D):
    """s (N,) of one sigmoid's probability p, q being that of its opposite, and D (N,) where there is a target y."""
    zero = g.dtype.type(0)
    for j in range(g.shape[1]):
        s[j] = zero + p * q * g[k, j]
    if taught:
        error = g.dtype.type(p * (1 - y) - y * q)  # p - y, in which nothing cancels for y of 0 or 1
        for j in range(g.shape[1]):
            D[j] += error * g[k, j]


@inlined
def _together(Z, P, i, head, g, y, taught, q, mean, S, D):
    """Row i of the heads whose classes share one sum; g (K, N) is scratch, q (1, K) and mean (N,) too."""
    K, N = g.shape
    if head == OVR:
        _opposites(Z, i, K, q)
        for k in range(K):
            for j in range(N):
                g[k, j] *= q[0, k]
    _coupled(g, P[i], y, taught, mean, S, D)


@inlined
def _separately(Z, P, i, head, g, y, taught, q, S, D):
    """Row i of the heads whose logits stand by themselves; g (K, N), q (1, K) is scratch."""
    (K, N), zero = g.shape, g.dtype.type(0)
    if head == SIGMOID:
        _apart(g, 0, P[i, 1], P[i, 0], y[0], taught, S[1], D)
        for j in range(N):
            S[0, j] = zero - S[1, j]
    else:
        _opposites(Z, i, K, q)
        for k in range(K):
            _apart(g, k, P[i, k], q[0, k], y[k], taught, S[k], D)


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
    """Z (B, K), P (B, C), slopes (B, K, N), left as scratch; S (B, C, N) written, labels where a row is not finite.

    With targets Y (B, K) also D (B, N); without, Y and D have no rows.
    """
    B, K, N = slopes.shape
    taught, lanes = Y.shape[0] > 0, lane_count(Z)
    q, mean = np.empty((1, (K + lanes - 1) // lanes * lanes), Z.dtype), np.empty(N, Z.dtype)
    nothing, none = np.empty(K), np.empty(N, Z.dtype)
    for i in range(B):
        if labels[i] == NOT_FINITE:
            continue
        y, d = Y[i] if taught else nothing, D[i] if taught else none
        d[:] = 0
        if head in (SOFTMAX, OVR):
            _together(Z, P, i, head, slopes[i], y, taught, q, mean, S[i], d)
        else:
            _separately(Z, P, i, head, slopes[i], y, taught, q, S[i], d)
        if not (_finite(S[i].reshape(-1)) and _finite(d)):
            labels[i] = NOT_FINITE


@kernel(
    "void(float32[:,::1],float64[:,::1],int64,int64[::1],float64[::1])",
    "void(float64[:,::1],float64[:,::1],int64,int64[::1],float64[::1])",
)
def answered_losses(Z, Y, head, labels, losses):
    """Z (B, K), Y (B, K), labels (B,), losses (B,) written: the loss of the probabilities as they are answered.

    That is the training loss of loss.py, but for ovr -sum_k y_k ln p_k of the normalised row; NaN where a row is
    NOT_FINITE.
    """
    B, K = Z.shape
    row, soft, logs = scratch(K), np.empty(K), np.empty(K)
    for i in range(B):
        if labels[i] == NOT_FINITE:
            losses[i] = np.nan
        elif head == OVR:
            log_probabilities_row(Z, i, K, head, row, soft, logs)
            loss = 0.0
            for k in range(K):
                if Y[i, k] != 0.0:
                    loss -= Y[i, k] * logs[k]
            losses[i] = loss
        else:
            losses[i] = cross_entropy_row(Z, i, K, Y, head, row, soft)
