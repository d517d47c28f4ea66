"""Cross-entropy, forward and backward, from logits and targets.

    Z (B, K)       logits, K = 1 for the sigmoid head
    Y (B, K)       targets, float64: one-hot, a distribution, or K independent ones; the sigmoid head's is (B, 1)
    losses (B,)    float64, written
    dZ (B, K)      gradient of the loss with respect to the logits, written

Losses are summed in float64 for models of either dtype, because a loss is compared over millions of rows. The gradient
is computed from the returned probabilities, in the model's dtype, so that learning uses the numbers that were served.

Softmax cross-entropy (Goodfellow, Bengio & Courville, Deep Learning, 2016, sections 3.13 and 6.2.2):
    L = sum_k y_k (ln sum_j e**(z_j - max z) - (z_k - max z)),  dL/dz = p sum_k y_k - y
Binary cross-entropy, summed over outputs, with softplus(z) = max(z, 0) + ln(1 + e**-|z|):
    L = sum_k softplus(z_k) - y_k z_k,  dL/dz = sigma(z) - y
Neither form adds a large number and subtracts it again. So a loss near 0 has as many correct digits as any other, which
a mean over millions of rows needs.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes, log1p_64, log_64
from service.softmax.kernels.heads import BLOCK, OVR, SIGMOID, SOFTMAX, multilabel_block, softmax_block
from service.softmax.kernels.lane_operations import higher, load, spread, store
from service.softmax.kernels.lane_reductions import first_at, highest, total

LANES_64 = 8


@inlined
def scratch(K):
    """A row of whole float64 vectors with room for K values; those past K are -inf (their exponential is 0)."""
    row = np.empty((1, (K + LANES_64 - 1) // LANES_64 * LANES_64))
    row[0, K:] = -np.inf
    return row


@inlined
def _shift(row, K):
    """Subtract the largest of a scratch row's first K values v from each. Returns ln sum_k e**v_k of the result.

    The largest becomes 0, and the others are summed without it: near p = 1 the logarithm of 1 + rest keeps every bit
    of a rest that adding to 1 would round away.
    """
    tops = load(row, 0, 0)
    for j in range(LANES_64, row.shape[1], LANES_64):
        tops = higher(load(row, 0, j), tops)
    top = highest(tops)
    shift, sums, found = spread(tops, top), spread(tops, 0.0), False
    for j in range(0, row.shape[1], LANES_64):
        v = load(row, 0, j)
        at = LANES_64 if found else first_at(v, top)
        v = v - shift
        store(row, 0, j, v)
        if at < LANES_64:
            found = True
            row[0, j + at] = -np.inf
            v = load(row, 0, j)
            row[0, j + at] = 0.0
        sums = sums + exp_lanes(v)
    rest = total(sums)
    return log1p_64(rest) if rest <= 1.0 else log_64(1.0 + rest)


@inlined
def _log1p_exps(Z, i, K, row, out):
    """out[k] = ln(1 + e**-|Z[i, k]|): softplus(z) - max(z, 0). row is scratch, with -inf past K."""
    for k in range(K):
        row[0, k] = -abs(np.float64(Z[i, k]))
    for j in range(0, row.shape[1], LANES_64):
        store(row, 0, j, exp_lanes(load(row, 0, j)))
    for k in range(K):
        out[k] = log1p_64(row[0, k])
    row[0, K:] = -np.inf


@inlined
def _load_logits(Z, i, K, row):
    """row[0, :K] = the logits of row i."""
    for k in range(K):
        row[0, k] = Z[i, k]


@inlined
def log_probabilities_row(Z, i, K, head, row, soft, out):
    """out[k] = ln p_k of the logits Z[i, :K]; K is 1 for sigmoid, whose out has 2. row and soft are scratch."""
    if head == SOFTMAX:
        _load_logits(Z, i, K, row)
        rest = _shift(row, K)
        for k in range(K):
            out[k] = row[0, k] - rest
        return
    _log1p_exps(Z, i, K, row, soft)
    if head == SIGMOID:
        out[0] = -max(np.float64(Z[i, 0]), 0.0) - soft[0]
        out[1] = min(np.float64(Z[i, 0]), 0.0) - soft[0]
        return
    for k in range(K):
        out[k] = min(np.float64(Z[i, k]), 0.0) - soft[k]  # ln sigma(z) = min(z, 0) - ln(1 + e**-|z|)
    if head == OVR:
        for k in range(K):
            row[0, k] = out[k]
        rest = _shift(row, K)
        for k in range(K):
            out[k] = row[0, k] - rest


@inlined
def binary_cross_entropy(z, y, soft):
    """softplus(z) - y z, with soft = ln(1 + e**-|z|), as a sum without cancellation for y of 0 or 1."""
    return soft + ((1.0 - y) * z if z > 0.0 else -y * z)


@inlined
def cross_entropy_row(Z, i, K, Y, head, row, soft):
    """The loss of the logits Z[i, :K] for the targets Y[i]. row and soft are scratch."""
    loss = 0.0
    if head == SOFTMAX:
        _load_logits(Z, i, K, row)
        rest = _shift(row, K)
        for k in range(K):
            if Y[i, k] != 0.0:  # 0 times a difference that overflows would be NaN
                loss += Y[i, k] * (rest - row[0, k])
    else:
        _log1p_exps(Z, i, K, row, soft)
        for k in range(K):
            loss += binary_cross_entropy(np.float64(Z[i, k]), Y[i, k], soft[k])
    return loss


@inlined
def answer_loss_row(Z, i, K, Y, head, row, soft, logs):
    """The loss of row i's returned probabilities: the training loss, but for ovr -sum_k y_k ln p_k after normalizing.

    row, soft and logs are scratch.
    """
    if head != OVR:
        return cross_entropy_row(Z, i, K, Y, head, row, soft)
    log_probabilities_row(Z, i, K, head, row, soft, logs)
    loss = 0.0
    for k in range(K):
        if Y[i, k] != 0.0:
            loss -= Y[i, k] * logs[k]
    return loss


@kernel("void(float32[:,::1],int64,float64[:,::1])", "void(float64[:,::1],int64,float64[:,::1])")
def log_probabilities_forward(Z, head, out):
    """Z (B, K); out (B, K), or (B, 2) for sigmoid, written: ln of the probabilities, finite for finite logits."""
    B, K = Z.shape
    row, soft = scratch(K), np.empty(K)
    for i in range(B):
        log_probabilities_row(Z, i, K, head, row, soft, out[i])


@kernel(
    "void(float32[:,::1],float64[:,::1],int64,float64[::1])",
    "void(float64[:,::1],float64[:,::1],int64,float64[::1])",
)
def cross_entropy_forward(Z, Y, head, losses):
    """Z (B, K), Y (B, K), losses (B,) written: the training loss, see the docstring of this module."""
    B, K = Z.shape
    row, soft = scratch(K), np.empty(K)
    for i in range(B):
        losses[i] = cross_entropy_row(Z, i, K, Y, head, row, soft)


@kernel(
    "boolean(float32[:,::1],float64[:,::1],int64,float32[:,::1])",
    "boolean(float64[:,::1],float64[:,::1],int64,float64[:,::1])",
)
def cross_entropy_backward(Z, Y, head, dZ):
    """Z (B, K), Y (B, K), dZ (B, K) written: p sum(y) - y for softmax, sigma(z) - y otherwise.

    Returns whether every logit is finite. The gradient of a row with a logit that is not finite is unset.
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
