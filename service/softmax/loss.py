"""Cross-entropy, forward and backward, from logits and targets.

    Z (B, K)       logits, K = 1 for the sigmoid head
    Y (B, K)       targets, float64: one-hot, a distribution, or K independent ones; the sigmoid head's is (B, 1)
    losses (B,)    float64, written
    dZ (B, K)      gradient of the loss with respect to the logits, written

Losses are summed in float64 whatever the model's dtype is: a loss is compared over millions of rows. The gradient is
taken from the probabilities as they are answered, in the model's dtype, so that learning sees what was served.

Softmax cross-entropy (Goodfellow, Bengio & Courville, Deep Learning, 2016, sections 3.13 and 6.2.2):
    L = sum_k y_k (lse(z) - z_k),  lse(z) = max z + ln sum_k e**(z_k - max z),  dL/dz = p sum_k y_k - y
Binary cross-entropy, summed over outputs, with softplus(z) = max(z, 0) + ln(1 + e**-|z|):
    L = sum_k softplus(z_k) - y_k z_k,  dL/dz = sigma(z) - y
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.elementary import exp_lanes, log1p_64, log_64
from service.softmax.functions import BLOCK, OVR, SIGMOID, SOFTMAX, multilabel_block, softmax_block
from service.softmax.lanes import load, spread, store, total

LANES_64 = 8


@inlined
def _scratch(K):
    """A row of whole float64 vectors that holds K values, each past them -inf (its exponential is 0)."""
    row = np.empty((1, (K + LANES_64 - 1) // LANES_64 * LANES_64))
    row[0, K:] = -np.inf
    return row


@inlined
def _log_sum_exp(values, K):
    """ln sum_k e**v_k of the first K values of a scratch row, which is left as it was."""
    top = values[0, :K].max()
    sums = spread(load(values, 0, 0), 0.0)
    for j in range(0, values.shape[1], LANES_64):
        v = load(values, 0, j)
        sums = sums + exp_lanes(v - spread(v, top))
    return top + log_64(total(sums))


@inlined
def _softplus(Z, i, K, row, out):
    """out[k] = softplus(Z[i, k]) = ln(1 + e**z), without overflow; row is scratch."""
    for k in range(K):
        row[0, k] = -abs(np.float64(Z[i, k]))
    for j in range(0, row.shape[1], LANES_64):
        store(row, 0, j, exp_lanes(load(row, 0, j)))
    for k in range(K):
        out[k] = max(np.float64(Z[i, k]), 0.0) + log1p_64(row[0, k])
    row[0, K:] = -np.inf


@kernel("void(float32[:,::1],int64,float64[:,::1])", "void(float64[:,::1],int64,float64[:,::1])")
def log_probabilities_forward(Z, head, out):
    """Z (B, K); out (B, K), or (B, 2) for sigmoid, written: ln of the probabilities, finite for finite logits."""
    B, K = Z.shape
    row, soft = _scratch(K), np.empty(K)
    for i in range(B):
        if head == SOFTMAX:
            for k in range(K):
                row[0, k] = Z[i, k]
            lse = _log_sum_exp(row, K)
            for k in range(K):
                out[i, k] = Z[i, k] - lse
            continue
        _softplus(Z, i, K, row, soft)
        if head == SIGMOID:
            out[i, 0] = -soft[0]
            out[i, 1] = Z[i, 0] - soft[0]
            continue
        for k in range(K):
            out[i, k] = Z[i, k] - soft[k]  # ln sigma(z) = z - softplus(z)
        if head == OVR:
            row[0, :K] = out[i]
            lse = _log_sum_exp(row, K)
            for k in range(K):
                out[i, k] -= lse


@kernel(
    "void(float32[:,::1],float64[:,::1],int64,float64[::1])",
    "void(float64[:,::1],float64[:,::1],int64,float64[::1])",
)
def cross_entropy_forward(Z, Y, head, losses):
    """Z (B, K), Y (B, K), losses (B,) written: the loss that training lowers, see the head of this file."""
    B, K = Z.shape
    row, soft = _scratch(K), np.empty(K)
    for i in range(B):
        loss = 0.0
        if head == SOFTMAX:
            for k in range(K):
                row[0, k] = Z[i, k]
            lse = _log_sum_exp(row, K)
            for k in range(K):
                if Y[i, k] != 0.0:  # 0 times a difference that overflows would be NaN
                    loss += Y[i, k] * (lse - Z[i, k])
        else:
            _softplus(Z, i, K, row, soft)
            for k in range(K):
                loss += soft[k] - Y[i, k] * Z[i, k]
        losses[i] = loss


@kernel(
    "boolean(float32[:,::1],float64[:,::1],int64,float32[:,::1])",
    "boolean(float64[:,::1],float64[:,::1],int64,float64[:,::1])",
)
def cross_entropy_backward(Z, Y, head, dZ):
    """Z (B, K), Y (B, K), dZ (B, K) written: p sum(y) - y for softmax, sigma(z) - y otherwise.

    Returns whether every logit is finite; the gradient of a row with one that is not is unset.
    """
    B, K = Z.shape
    block = np.zeros((min(B, BLOCK), (K + 15) // 16 * 16), Z.dtype)
    labels = np.empty(BLOCK, np.int64)
    finite = True
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        for r in range(rows):
            block[r, :K] = Z[start + r]
        if head == SOFTMAX:
            finite &= softmax_block(block, rows, K, dZ, start, labels, False)
        else:
            finite &= multilabel_block(block, rows, K, dZ, start, labels)
        for i in range(start, start + rows):
            mass = Y[i].sum() if head == SOFTMAX else 1.0
            for k in range(K):
                dZ[i, k] = dZ[i, k] * mass - Y[i, k]
    return finite
