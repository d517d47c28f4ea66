"""Cross-entropy of rows that have one label each, eight rows at a time.

    Z (B, K)               logits; those of the sigmoid head, K = 1, stand for the two logits 0 and z
    C                      the number of classes: K, or 2 for the sigmoid head
    labels (B,) int64      0 <= label < C
    losses (B,) float64    written: -ln p of the label, by softmax
    answers (B,) int64     written: the lowest class whose logit is the largest, z_m

With r = sum over k != m of e**(z_k - z_m), the loss is ln(1 + r) + (z_m - z_label): no large number is added and
subtracted again, as in loss.py. There a row's classes lie in the lanes of a vector. Here eight rows do, which is
several times as fast for few classes. Each lane adds its row's classes in their order, so no bit of a row depends on
the others.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.lane_operations import load, spread, store
from service.softmax.kernels.logarithm import log_lanes

ROWS = 8  # the float64 lanes of a vector


@inlined
def _logit(Z, i, k, C):
    """The logit of class k in float64; a sigmoid head has 0 and z."""
    if Z.shape[1] == C:
        return np.float64(Z[i, k])
    return np.float64(Z[i, 0]) if k == 1 else 0.0


@inlined
def _log1p_lanes(x):
    """ln(1 + x) in each lane, x >= 0; `log1p_64` has the formula."""
    one = spread(x, 1.0)
    u = one + x
    return log_lanes(u) + (x - (u - one)) / u


@kernel(
    "boolean(float32[:,::1],int64,int64[::1],float64[::1],int64[::1])",
    "boolean(float64[:,::1],int64,int64[::1],float64[::1],int64[::1])",
)
def label_losses_forward(Z, C, labels, losses, answers):
    """Z (B, K), labels (B,), losses (B,) and answers (B,) written. Returns whether every logit is finite.

    If one is not, the losses and answers are unset.
    """
    B = Z.shape[0]
    differences, gaps, sums = np.zeros((C, ROWS)), np.zeros(ROWS), np.zeros((1, ROWS))
    probe = 0.0  # a finite logit times 0 is 0, any other gives NaN
    for start in range(0, B, ROWS):
        rows = min(ROWS, B - start)
        for r in range(rows):
            i, best = start + r, 0
            top = _logit(Z, i, 0, C)
            for k in range(C):
                z = _logit(Z, i, k, C)
                probe += z * 0.0
                if z > top:
                    top, best = z, k
            for k in range(C):
                differences[k, r] = _logit(Z, i, k, C) - top
            gaps[r], answers[i] = -differences[labels[i], r], best
            differences[best, r] = -np.inf
        total = exp_lanes(load(differences, 0, 0))
        for k in range(1, C):
            total = total + exp_lanes(load(differences, k, 0))
        store(sums, 0, 0, _log1p_lanes(total))
        for r in range(rows):
            losses[start + r] = sums[0, r] + gaps[r]
    return probe == 0.0
