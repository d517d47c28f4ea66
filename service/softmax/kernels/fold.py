"""The fold of linear models: score each row with the state before it, then take one learning step.

    X (B, N)                   raw rows of the model's dtype
    labels (B,) int64          class indices; empty if Y holds the targets
    Y (B, K) float64           soft or multi-label targets; no rows if labels hold them
    weights (B,) float64       the importance of each row; empty if every one is 1
    panels (C, F + 1, V L)     the served weights, as in matmul.py; F = N, or 2 N with a delta, which alone learns then
    masters (C, N + 1, V L)    float64 masters of the weights that learn: the bias, then N features
    squares (C, N + 1, V L)    AdaGrad's and FTRL's sums, in the model's dtype; one element for other rules
    P (K, S)                   Newton's matrices, see newton.py; one element for other rules
    fixed (4, N)               in the model's dtype: mean and 1 / scale of the artifact's stage, then of the learned one
    statistics (2, >= N)       mean and sum of squared deviations of each feature (Welford, Technometrics 4(3), 1962)
    regret (1,)                the sum of losses less those of a uniform guess, see regret.py
    progress (8,), recent (2, R)   counts, in the order of the constants below; losses and hits of the last R rows
    window (2, R)              confidence and accuracy of the same rows, see `certainty`
    scores (B, K)              written: each row's logits before its step; no rows if they are not needed
    losses (B,)                written: each row's loss before its step; NaN for a row that was skipped

Each row is staged with the statistics of the rows before it and scored with the served weights, by the prediction
kernels. Then its loss is counted, the rule takes a step with the same x and p, and the statistics are updated. A row is
skipped and counted if it is not finite, names no class, or is so large that a step would not be finite; it changes
nothing else.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.accuracy import certainty, is_hit
from service.softmax.kernels.heads import (
    BLOCK,
    MULTILABEL,
    NOT_FINITE,
    OVR,
    SIGMOID,
    SOFTMAX,
    head_block,
    multilabel_block,
)
from service.softmax.kernels.lane_operations import choose, fma, load, spread, store
from service.softmax.kernels.loss import answer_loss_row, scratch
from service.softmax.kernels.matmul import linear_block
from service.softmax.kernels.regret import SLOWEST, regret_share, shrink_weights, uniform_loss, update_regret
from service.softmax.kernels.rules import adaptive_step, largest, newton_step, sgd_step
from service.softmax.kernels.stages import stage_row
from service.softmax.kernels.wide import WIDE, root, store_narrow

SGD, ADAGRAD, FTRL, NEWTON = 0, 1, 2, 3
# The stage of the learned features: that of the weights; the running stage; or a second, fixed stage.
PLAIN, RUNNING, DELTA = 0, 1, 2
# Elements of `progress`; all are whole numbers except the losses and norms.
ROWS, LOSS, HITS, SKIPPED, STEPS, NORM, NORMS, SEEN = 0, 1, 2, 3, 4, 5, 6, 7
PROGRESS = 8
# Elements of `constants`.
RATE, OFFSET, FLOOR, PULL, FORGET, START, STEP_CLIP, OWN_CLIP, CLIP, SURPRISE, REGRET = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
CONSTANTS = 11
# A variance up to this fraction of the squared mean is rounding, and counts as 0.
VARIANCE_MIN = 2.0**-40
# A scale counts as known if its inverse is below this; the keys are the itemsize of the model's dtype.
INVERSE_MAX_32, INVERSE_MAX_64 = 2.0**127, 2.0**1022
INVERSE_MAX = {4: INVERSE_MAX_32, 8: INVERSE_MAX_64}
# Rows with larger learned features, errors, raw features or losses are skipped: a square, step or sum could overflow.
FEATURE_MAX, ERROR_MAX, RAW_MAX, LOSS_MAX = 2.0**60, 2.0**10, 2.0**500, 2.0**500


@inlined
def _running_stage(statistics, seen, fixed):
    """fixed[2:] = the mean and 1 / scale of the rows seen so far; 1 / scale = 0 where the scale is unknown."""
    zero = spread(load(statistics, 0, 0), 0.0)
    one, n, tiny = spread(zero, 1.0), spread(zero, seen), spread(zero, VARIANCE_MIN)
    most = spread(zero, INVERSE_MAX_32 if fixed.itemsize == 4 else INVERSE_MAX_64)
    for j in range(0, statistics.shape[1], WIDE):
        mean, variance = load(statistics, 0, j), load(statistics, 1, j) / n
        inverse = choose(variance, ">", mean * mean * tiny, one / root(variance), zero)
        store_narrow(fixed, 2, j, mean)
        store_narrow(fixed, 3, j, choose(inverse, "<", most, inverse, zero))


@inlined
def _update_statistics(raw, statistics, seen):
    """Update the statistics by one row; `seen` counts rows including it; raw (1, >= N) has zeros past N."""
    n = spread(load(raw, 0, 0), seen)
    for j in range(0, statistics.shape[1], WIDE):
        x, mean = load(raw, 0, j), load(statistics, 0, j)
        off = x - mean
        mean = mean + off / n
        store(statistics, 0, j, mean)
        store(statistics, 1, j, fma(off, x - mean, load(statistics, 1, j)))


@inlined
def set_target(labels, Y, i, head, K, target):
    """target (1, >= K) = the row's targets. Returns whether they are valid."""
    if labels.size > 0:
        label = labels[i]
        if label < 0 or label >= (2 if head == SIGMOID else K) or head == MULTILABEL:
            return False
        target[0, :K] = 0.0
        if head == SIGMOID:
            target[0, 0] = label
        else:
            target[0, label] = 1.0
        return True
    known = True
    for k in range(K):
        target[0, k] = Y[i, k]
        known &= 0.0 <= Y[i, k] <= 1.0
    return known


@inlined
def score_row(head, K, row, panels, target, Z, sigmas, answer, p, label, logits, soft, logs):
    """score_logits of row (1, F), which is staged."""
    linear_block(row, 0, 1, panels, Z)
    return score_logits(head, K, target, Z, sigmas, answer, p, label, logits, soft, logs)


@inlined
def score_logits(head, K, target, Z, sigmas, answer, p, label, logits, soft, logs):
    """A row's logits Z (1, >= K), by the prediction kernels: p (1, >= K) and label written. Returns the loss, or NaN.

    p holds the probabilities of the logit gradient: those of the answer, but for ovr each class's own sigmoid. sigmas
    keeps the logits, and Z is scratch.
    """
    loss = answer_loss_row(Z, 0, K, target, head, logits, soft, logs)
    for k in range(K):
        sigmas[0, k] = Z[0, k]
    if head == OVR:
        multilabel_block(sigmas, 1, K, answer, 0, label)
        for k in range(K):
            p[0, k] = answer[0, k]
    head_block(head, Z, 1, K, answer, 0, label, True)
    if head != OVR:
        for k in range(K):
            p[0, k] = answer[0, 1 if head == SIGMOID else k]
    return np.nan if label[0] == NOT_FINITE else loss


@inlined
def logit_errors(head, K, target, p, importance, errors, E, narrow):
    """errors = p sum(y) - y for softmax, else p - y; E = importance times errors; narrow = E in the model's dtype."""
    mass = 1.0
    if head == SOFTMAX:
        mass = 0.0
        for k in range(K):
            mass += target[0, k]
    for k in range(K):
        errors[0, k] = p[0, k] * mass - target[0, k]
        E[0, k] = importance * errors[0, k]
        narrow[0, k] = E[0, k]


@inlined
def _stage(X, i, form, statistics, progress, fixed, constants, row, x, raw):
    """row (1, F), x (1, > N) and raw (1, >= N) written from row i of X. Returns whether the row is finite."""
    N, kind, offset = X.shape[1], X.dtype.type, 0
    finite = True
    if form == RUNNING:
        _running_stage(statistics, progress[SEEN], fixed)
        for j in range(N):
            raw[0, j] = X[i, j]
    else:
        finite &= stage_row(X, i, fixed[0], fixed[1], kind(constants[OWN_CLIP]), row, 0, 0)
    if form != PLAIN:
        offset = row.shape[1] - N
        finite &= stage_row(X, i, fixed[2], fixed[3], kind(constants[CLIP]), row, 0, offset)
    x[0, 0] = 1.0
    for j in range(N):
        x[0, j + 1] = row[0, offset + j]
    return finite


@inlined
def _step(
    rule, rate, x, D, E, narrow, p, errors, importance, masters, panels, squares, steps, P, U, constants, rest, unit
):  # fmt: skip
    """One step by the rule on masters, panels and squares as rows (C D, V L). Returns the step's sum of squares."""
    forget, step_clip = constants[FORGET], constants[STEP_CLIP]
    keep, refill = 1.0 - forget, forget * constants[START]
    if rule == SGD:
        return sgd_step(x, D, E, masters, panels, rate, step_clip)
    if rule == NEWTON:
        numbers = (rate, constants[FLOOR], constants[PULL], forget, constants[SURPRISE], constants[START], step_clip)
        return newton_step(x, D, p, errors, importance, U.shape[0], masters, panels, P, U, numbers, rest, unit)
    return adaptive_step(
        x, D, narrow, masters, panels, squares, steps, rate, constants[OFFSET], keep, refill, step_clip
    )


@inlined
def count_row(progress, recent, window, loss, hit, confidence, right):
    """Add one row to the progressive loss and to the recent windows."""
    at = int(progress[ROWS]) % recent.shape[1]
    recent[0, at], recent[1, at] = loss, hit
    window[0, at], window[1, at] = confidence, right
    progress[ROWS] += 1
    progress[LOSS] += loss
    progress[HITS] += hit


@inlined
def count_answer(head, K, wanted, target, label, p, answer, thresholds, loss, progress, recent, window):
    """Count a scored row: loss, hit, confidence and accuracy; label (>= 1,) and answer (1, > K) are the prediction."""
    hit = is_hit(head, K, wanted, target, label[0], p, thresholds)
    confidence, right = certainty(head, K, target, label[0], answer)
    count_row(progress, recent, window, loss, hit, confidence, right)


@inlined
def count_step_norm(progress, size):
    """Count a step whose sum of squares is `size`."""
    progress[STEPS] += 1
    progress[NORM] = np.sqrt(size)
    progress[NORMS] += progress[NORM]


def _signature(t):
    """The types of fold_forward for a model of one dtype."""
    rows = f"{t}[:,::1],int64[::1],float64[:,::1],float64[::1]"
    state = f"{t}[:,:,::1],float64[:,:,::1],{t}[:,:,::1],float64[:,::1],{t}[:,::1],float64[:,::1],float64[::1]"
    counted = f"float64[::1],float64[:,::1],float64[:,::1],float64[::1],{t}[:,::1]"
    return f"void({rows},int64,int64,int64,boolean,float64[::1],float64[::1],{state},{counted})"


@kernel(_signature("float32"), _signature("float64"))
def fold_forward(
    X, labels, Y, weights, head, rule, form, learning, constants, thresholds,
    panels, masters, squares, P, fixed, statistics, regret, progress, recent, window, losses,
    scores,
):  # fmt: skip
    """X (B, N) and the other arrays of the module docstring; constants (CONSTANTS,), thresholds (K,).

    If `learning` is false, rows are scored and counted, and nothing else changes.
    """
    D, F, K, width = X.shape[1] + 1, panels.shape[1] - 1, thresholds.size, panels.shape[0] * panels.shape[2]
    # The scratch of a row; elements past K, D or N stay 0.
    D8 = (D + WIDE - 1) // WIDE * WIDE
    x, raw, row = np.zeros((1, D8)), np.zeros((1, statistics.shape[1])), np.zeros((1, F), X.dtype)
    Z, sigmas, narrow = np.zeros((1, width), X.dtype), np.zeros((1, width), X.dtype), np.zeros((1, width), X.dtype)
    p, target, errors, E = np.zeros((1, width)), np.zeros((1, width)), np.zeros((1, width)), np.zeros((1, width))
    answer = np.zeros((1, K + 1), X.dtype)
    logits, soft, logs, label = scratch(K), np.empty(K), np.empty(K + 1), np.zeros(BLOCK, np.int64)
    U, rest, unit = np.zeros((P.shape[0], D8)), np.zeros((3, max(D8, K))), np.eye(WIDE)
    uniform = uniform_loss(head, K)
    limit = constants[REGRET] * uniform
    # Steps take panels as rows.
    master_rows, panel_rows = masters.reshape(-1, masters.shape[2]), panels.reshape(-1, panels.shape[2])
    square_rows = squares.reshape(-1, squares.shape[2])
    steps = np.zeros_like(square_rows)
    for i in range(X.shape[0]):
        losses[i] = np.nan
        importance = weights[i] if weights.size > 0 else 1.0
        wanted = labels[i] if labels.size > 0 else -1
        known = set_target(labels, Y, i, head, K, target)
        known &= _stage(X, i, form, statistics, progress, fixed, constants, row, x, raw)
        loss = np.nan
        if known:
            loss = score_row(head, K, row, panels, target, Z, sigmas, answer, p, label, logits, soft, logs)
            logit_errors(head, K, target, p, importance, errors, E, narrow)
        small = largest(x) < FEATURE_MAX and largest(E) < ERROR_MAX and largest(raw) < RAW_MAX
        if not (known and loss < LOSS_MAX and 0.0 < importance and small):
            progress[SKIPPED] += 1
            continue
        losses[i] = loss
        count_answer(head, K, wanted, target, label, p, answer, thresholds, loss, progress, recent, window)
        if scores.shape[0] > 0:
            scores[i] = sigmas[0, :K]
        if not learning:
            continue
        share = regret_share(regret, limit)
        if share > 0.0:
            shrink_weights(master_rows, panel_rows, D, share)
        rate = constants[RATE] * max(1.0 - share, SLOWEST)
        size = _step(
            rule, rate, x, D, E, narrow, p, errors, importance, master_rows, panel_rows, square_rows, steps, P, U,
            constants, rest, unit,
        )  # fmt: skip
        count_step_norm(progress, size)
        if limit > 0.0:
            update_regret(regret, head, K, target, loss, uniform, limit)
        if form == RUNNING:
            progress[SEEN] += 1
            _update_statistics(raw, statistics, progress[SEEN])
