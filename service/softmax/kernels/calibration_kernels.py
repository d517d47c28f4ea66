"""Apply a calibration to logits, and learn its numbers from scored rows.

    Z (B, K)          logits of the model, in its dtype
    numbers (2,)      float64: (T, 0) of a softmax head, whose logits become z / T; (a, b) of a sigmoid head, a z + b
    first (2,)        float64: the numbers that learning is regularized towards
    sums (5,)         float64: A_00, A_01, A_11 and c_0, c_1 below

Dividing by a temperature keeps the order of the classes (Guo, Pleiss, Sun & Weinberger, On calibration of modern neural
networks, 2017). a z + b with a > 0 moves the threshold too (Platt, Probabilistic outputs for support vector machines,
1999). The learned parameters are u = (-ln T,) or (ln a, b), relative to their first values. So no step leads to a scale
below 0, and a step means the same for logits of any size.

Let v be the scaled logits, cut to [-REACH, REACH]: for softmax each minus the largest one, for sigmoid a z. The
derivative x of the scaled logit with respect to u is v, or (v, 1), and

    softmax   g = sum_k e_k v_k                      H = sum(y) Var_p(v)
    sigmoid   g = e (v, 1)                           H = p (1 - p) (v, 1) (v, 1)^T        e = p sum(y) - y, or p - y

Each row, with the importance h, moves u by a Newton step on all rows so far. Older rows count less:

    A <- keep A + h H,   c <- keep c + h (H u - g),   d = (A + D)^-1 c,   w = max(0, 1 - r / (c . d)) d
    u <- u + (w - u cut to [-STEP, STEP])

d leads to the minimum of the sum of the rows' quadratic models and of sum_i D_i u_i^2 / 2. The last term does not
decay: without evidence from rows, the numbers return to their first values. c . d is the evidence against the first
values. It averages r, the number of parameters, if they are right. That much is treated as noise, and with no more than
that nothing moves (James & Stein, Estimation with quadratic loss, 1961). H is the mean over labels drawn from p of g
g^T.

As in newton.py, a badly wrong row counts with the curvature PULL |e| at least, because its own curvature is near 0 and
its step would be unbounded. The cut depends on the logits and not on the label, so the g of a calibrated model stays 0
on average. With the cut a row adds at most h REACH^2 / 4 to A and h REACH to c, for logits of any size.

The logits are those of a model that goes on learning, each before its step. The model learns as if there were no
calibration, so calibration changes no weight.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes, log_64
from service.softmax.kernels.fold import LOSS_MAX, SKIPPED, count_answer, set_target
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, SIGMOID, head_block
from service.softmax.kernels.lane_operations import lane_count, load, spread
from service.softmax.kernels.lane_reductions import highest
from service.softmax.kernels.loss import cross_entropy_row, scratch

# The bounds of 1 / T, T and a, and of b. Beyond them a head is certain, or uninformative.
SCALE_MIN, SCALE_MAX, SHIFT_MAX = 0.01, 100.0, 100.0
# The weight D of the first numbers. A row of medium confidence weighs about 0.3.
FIRMNESS = 14.0
# The weight of a row halves after 2,000 others, so that the calibration follows a model that goes on learning.
KEEP = 1.0 - 1.0 / 2885.0
PULL = 0.125
# The cut of a scaled logit: e^-4 is 0.02, and p (1 - p) v^2 is largest at 2.4.
REACH = 4.0
# The most that one row moves u: the scale by a tenth, b by 0.1.
STEP = 0.1
# The largest importance that a row counts with.
MOST = 10.0
A_00, A_01, A_11, C_0, C_1 = 0, 1, 2, 3, 4
SUMS = 5


@inlined
def _scale_row(Z, i, K, head, numbers, out, r):
    """out[r, :K] = the calibrated logits of Z[i], each operation rounded to their dtype."""
    scale, shift = Z.dtype.type(numbers[0]), Z.dtype.type(numbers[1])
    if head == SIGMOID:
        out[r, 0] = Z[i, 0] * scale + shift
        return
    for k in range(K):
        out[r, k] = Z[i, k] / scale


@inlined
def _bounded(t, least, most):
    return min(max(t, least), most)


@inlined
def _shrinkage(evidence, numbers):
    """The James-Stein factor of a step, from its evidence and the count of numbers that it moves."""
    return 1.0 - numbers / evidence if evidence > numbers else 0.0


@inlined
def _limited_step(at, to):
    """`to`, or the point at the distance STEP from `at` in its direction."""
    return at + _bounded(to - at, -STEP, STEP)


@inlined
def _scaled_by_exp(first, u, like):
    """first e**u within the bounds of a scale; exactly first for u = 0."""
    return _bounded(first * highest(exp_lanes(spread(like, u))), SCALE_MIN, SCALE_MAX)


@inlined
def _temperature_step(Z, i, K, target, answer, label, h, numbers, first, sums, like):
    """Move T by row i, with its calibrated answer (1, > K) and label."""
    T, top = numbers[0], np.float64(Z[i, label])
    mass, mean = 0.0, 0.0
    for k in range(K):
        mass += target[0, k]
        mean += np.float64(answer[0, k]) * _bounded((np.float64(Z[i, k]) - top) / T, -REACH, REACH)
    g, variance, pulled = 0.0, 0.0, 0.0
    for k in range(K):
        # Adding a constant to all logits changes nothing, so the mean is subtracted.
        off = _bounded((np.float64(Z[i, k]) - top) / T, -REACH, REACH) - mean
        e = np.float64(answer[0, k]) * mass - target[0, k]
        g += e * off
        variance += np.float64(answer[0, k]) * (off * off)
        pulled += abs(e) * (off * off)
    H = max(mass * variance, PULL * pulled)
    u = log_64(first[0] / T)
    sums[C_0] = KEEP * sums[C_0] + h * (H * u - g)
    sums[A_00] = KEEP * sums[A_00] + h * H
    d = sums[C_0] / (sums[A_00] + FIRMNESS)
    numbers[0] = _scaled_by_exp(first[0], -_limited_step(u, _shrinkage(sums[C_0] * d, 1.0) * d), like)


@inlined
def _platt_step(Z, i, target, answer, h, numbers, first, sums, like):
    """Move a and b by row i, with its calibrated answer (1, > K)."""
    v, p = _bounded(np.float64(Z[i, 0]) * numbers[0], -REACH, REACH), np.float64(answer[0, 1])
    u, b = log_64(numbers[0] / first[0]), numbers[1] - first[1]
    e = p - target[0, 0]
    w = max(p * (1.0 - p), PULL * abs(e))
    # H (u, b) - g = (w x^T (u, b) - e) x
    pushed = h * (w * (v * u + b) - e)
    sums[C_0] = KEEP * sums[C_0] + pushed * v
    sums[C_1] = KEEP * sums[C_1] + pushed
    sums[A_00] = KEEP * sums[A_00] + h * w * (v * v)
    sums[A_01] = KEEP * sums[A_01] + h * w * v
    sums[A_11] = KEEP * sums[A_11] + h * w
    d_0, d_1 = sums[A_00] + FIRMNESS, sums[A_11] + FIRMNESS
    det = d_0 * d_1 - sums[A_01] * sums[A_01]
    to_u = (d_1 * sums[C_0] - sums[A_01] * sums[C_1]) / det
    to_b = (d_0 * sums[C_1] - sums[A_01] * sums[C_0]) / det
    part = _shrinkage(sums[C_0] * to_u + sums[C_1] * to_b, 2.0)
    numbers[0] = _scaled_by_exp(first[0], _limited_step(u, part * to_u), like)
    numbers[1] = _bounded(first[1] + _limited_step(b, part * to_b), -SHIFT_MAX, SHIFT_MAX)


def _signature(t):
    """The types of scaling_fold_forward for a model of one dtype."""
    rows = f"{t}[:,::1],int64[::1],float64[:,::1],float64[::1]"
    state = "float64[::1],float64[::1],float64[::1],float64[::1],float64[:,::1],float64[:,::1],float64[::1]"
    return f"void({rows},int64,boolean,{state})"


@kernel(_signature("float32"), _signature("float64"))
def scaling_fold_forward(Z, labels, Y, weights, head, learning, numbers, first, sums, progress, recent, window, losses):
    """Z (B, K) with each row's logits before its step; labels, Y, weights, progress, recent, window as in fold.py.

    losses (B,) in and out: rows with NaN, which the fold skipped, are skipped. The others get the loss of the
    calibrated answer, NaN if its logits overflow. If `learning` is false the numbers do not change.
    """
    B, K = Z.shape
    lanes = lane_count(Z)
    width = (K + lanes - 1) // lanes * lanes
    own, target = np.zeros((1, width), Z.dtype), np.zeros((1, width))
    answer, label = np.zeros((1, K + 1), Z.dtype), np.zeros(BLOCK, np.int64)
    logits, soft = scratch(K), np.empty(K)
    like = load(logits, 0, 0)
    for i in range(B):
        if np.isnan(losses[i]):
            continue
        set_target(labels, Y, i, head, K, target)
        _scale_row(Z, i, K, head, numbers, own, 0)
        loss = cross_entropy_row(own, 0, K, target, head, logits, soft)
        head_block(head, own, 1, K, answer, 0, label, True)
        losses[i] = np.nan
        if label[0] == NOT_FINITE or not loss < LOSS_MAX:
            progress[SKIPPED] += 1
            continue
        losses[i] = loss
        wanted = labels[i] if labels.size > 0 else -1
        # Heads with a calibration have no thresholds, so `p` and `thresholds` are not read.
        count_answer(head, K, wanted, target, label, target, answer, soft, loss, progress, recent, window)
        if not learning:
            continue
        h = min(weights[i], MOST) if weights.size > 0 else 1.0
        if head == SIGMOID:
            _platt_step(Z, i, target, answer, h, numbers, first, sums, like)
        else:
            _temperature_step(Z, i, K, target, answer, label[0], h, numbers, first, sums, like)


@kernel("void(float32[:,::1],int64,float64[::1])", "void(float64[:,::1],int64,float64[::1])")
def scaling_forward(Z, head, numbers):
    """Z (B, K) in and out: calibrate the logits in place."""
    for i in range(Z.shape[0]):
        _scale_row(Z, i, Z.shape[1], head, numbers, Z, i)


@kernel(
    "int64(float32[:,::1],int64,float32[:,::1],int64[::1])",
    "int64(float64[:,::1],int64,float64[:,::1],int64[::1])",
)
def head_forward(Z, head, P, labels):
    """Z (B, K), P (B, n_classes) written: the head alone; labels and the returned value as in predict_forward."""
    B, K = Z.shape
    lanes = lane_count(Z)
    Zs, block = np.zeros((min(B, BLOCK), (K + lanes - 1) // lanes * lanes), Z.dtype), np.empty(BLOCK, np.int64)
    wanted = B == 1 or labels.size > 0
    finite, first = True, 0
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        for r in range(rows):
            for k in range(K):
                Zs[r, k] = Z[start + r, k]
        finite &= head_block(head, Zs, rows, K, P, start, block, wanted)
        if start == 0 and wanted:
            first = block[0]
        if labels.size > 0:
            labels[start : start + rows] = block[:rows]
    return first if finite else NOT_FINITE
