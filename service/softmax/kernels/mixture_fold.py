"""The fold of the rule mixture: score each row with the state before it, then take one step of each expert.

    X, labels, Y, weights        as in fold.py
    offsets (B, K)               logits of the trained model of each row, in the model's dtype; no rows without one
    features, stage, statistics  see mixture_inputs.py
    panels                       the served weights of A, B and L, as in matmul.py; A has its heads side by side
    masters                      their float64 masters in the same layout, with as many lanes
    shared                       of A and of L: P, pending and delayed of shared_curvature.py, own of shared_newton.py
    whole (2,)                   of A and of L: the sum S of shared_newton.py
    P_B (K, S)                   Newton's matrices of B, see newton.py; one element for wide rows
    squares_B                    FTRL's sums of B for wide rows, in panels of the model's dtype; one vector otherwise
    mix, mix_curvature, frequencies    see mixture.py, which also has the order of the experts
    progress, recent, window, losses, scores    as in fold.py; progress[SEEN] counts the learned rows

Wide rows have no L; its arrays are then not used. Each row is scored with the state of the rows before it, by the
functions that predictions use. Then each expert takes a step with its own error, the mixture takes its step, and the
stage of the inputs is updated. A row is skipped and counted as in fold.py.
"""

from typing import Any, NamedTuple

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.fold import (
    ERROR_MAX,
    LOSS_MAX,
    RAW_MAX,
    SEEN,
    SKIPPED,
    count_answer,
    count_step_norm,
    set_target,
)
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, SIGMOID, head_block
from service.softmax.kernels.loss import answer_loss_row, scratch
from service.softmax.kernels.matmul import linear_row
from service.softmax.kernels.mixture import count_classes, expert_place, mix_logits, mixture_step
from service.softmax.kernels.mixture_inputs import CLIPS, feature_scale, inputs_row, inputs_scratch, update_stage
from service.softmax.kernels.rules import adaptive_step, newton_step
from service.softmax.kernels.shared_curvature import LANES, shared_product, shared_update
from service.softmax.kernels.shared_newton import ERROR, ERROR_ROWS, LOGIT, PROBABILITY, WEIGHTED, shared_step
from service.softmax.kernels.wide import WIDE

# Elements of `constants`. P_0 of A is 1 / FIRM for the bias and the row, and 1 / LAMBDA for the random features. That
# of B and L is 1 / FIRM. B_RATE is that of Newton or, for wide rows, of FTRL, whose beta is B_BETA.
RATE, LAMBDA, FIRM, FLOOR, PULL, FORGET, SURPRISE, STEP_CLIP, SHARE_A, SHARE_L = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
MIX_LAMBDA, MIX_KEEP, MIX_SHARE, B_RATE, B_BETA = 10, 11, 12, 13, 14
CONSTANTS = 15
# What moves: all statistics; only those of |x| and of the log-scaled features; none.
RUNNING, TRAINED, FIXED = 0, 1, 2


class RowScratch(NamedTuple):
    """Arrays of one row. W is the width of A's panels; t is the model's dtype, and the others have float64."""

    inputs: Any  # see inputs_scratch
    rows: Any  # the inputs of A, B and L (1, F) in t
    Zs: Any  # the logits of A, B and L (1, W) in t
    Z: Any  # (1, W) in t: the logits of the answer, which the head overwrites
    score: Any  # (1, W) in t: the same, kept
    answer: Any  # (1, K + 1) in t: probabilities
    label: Any  # (BLOCK,) int64
    target: Any  # (1, W): targets of the logits
    truth: Any  # (1, W): targets of the classes
    errors: Any  # (ERROR_ROWS H, W): ERROR_ROWS rows for each expert
    z: Any  # (1, W)
    probabilities: Any  # (H + 2, W), see mixture.py
    logs: Any  # (H, W), see mixture.py


class StepScratch(NamedTuple):
    """Arrays of one step, as in RowScratch."""

    shared: Any  # of A and L: start, x, u and sums (1, D16) float32
    wide_u: Any  # of A and L: u in float64
    steps: Any  # of A and L: (1, W)
    rows: Any  # (1, W) three times
    unit_16: Any  # (16, 16) float32, the identity
    x: Any  # (1, D8) input of B
    errors: Any  # (1, W) in t
    U: Any  # (K, D8)
    rest: Any  # (3, >= D8 and K)
    unit: Any  # (8, 8), the identity
    squares: Any  # like squares_B
    mixture: Any  # see mixture_step


@inlined
def _whole(n, lanes):
    """n rounded up to whole vectors."""
    return (n + lanes - 1) // lanes * lanes


@inlined
def _row_scratch(X, stage, features, panels, K, H):
    """The arrays of RowScratch, all 0."""
    t, W = X.dtype, panels[0].shape[0] * panels[0].shape[2]
    F_A, F_B, F_L = panels[0].shape[1] - 1, panels[1].shape[1] - 1, panels[2].shape[1] - 1
    return RowScratch(
        inputs_scratch(X, stage.shape[1], 1, features[0]),
        (np.zeros((1, F_A), t), np.zeros((1, F_B), t), np.zeros((1, F_L), t)),
        (np.zeros((1, W), t), np.zeros((1, W), t), np.zeros((1, W), t)),
        np.zeros((1, W), t), np.zeros((1, W), t), np.zeros((1, K + 1), t), np.zeros(BLOCK, np.int64),
        np.zeros((1, W)), np.zeros((1, W)), np.zeros((ERROR_ROWS * H, W)), np.zeros((1, W)),
        np.zeros((H + 2, W)), np.zeros((H, W)),
    )  # fmt: skip


@inlined
def _shared_scratch(D, linear, constants):
    """start, x, u and sums of a shared matrix; the first `linear` coordinates start at 1 / FIRM."""
    D16, f = _whole(D, LANES), np.float32
    start = np.zeros((1, D16), f)
    start[0, :D] = 1.0 / constants[LAMBDA]
    start[0, :linear] = 1.0 / constants[FIRM]
    return start, np.zeros((1, D16), f), np.zeros((1, D16), f), np.zeros((1, D16), f)


@inlined
def _step_scratch(X, panels, P_B, squares_B, constants, K, H, narrow):
    """The arrays of StepScratch."""
    W, D = panels[0].shape[0] * panels[0].shape[2], X.shape[1] + 1
    D_A, D_L, D8 = panels[0].shape[1], panels[2].shape[1], _whole(D, WIDE)
    return StepScratch(
        (_shared_scratch(D_A, D if narrow else 0, constants), _shared_scratch(D_L, D_L, constants)),
        (np.zeros((1, _whole(D_A, LANES))), np.zeros((1, _whole(D_L, LANES)))),
        (np.zeros((1, W)), np.zeros((1, W))),
        (np.zeros((1, W)), np.zeros((1, W)), np.zeros((1, W))),
        np.eye(LANES, dtype=np.float32), np.zeros((1, D8)), np.zeros((1, W), X.dtype), np.zeros((P_B.shape[0], D8)),
        np.zeros((3, max(D8, K))), np.eye(WIDE),
        np.zeros((squares_B.shape[0] * squares_B.shape[1], squares_B.shape[2]), squares_B.dtype),
        (np.zeros((H, W)), np.zeros(H), np.zeros(H), np.zeros((H, H)), np.zeros((1, WIDE))),
    )  # fmt: skip


@inlined
def _score(head, K, H, heads, panels, offsets, i, mix, s, logits, soft, logs):
    """Score the inputs of row i: all logits, score, answer, label and probabilities. Returns the loss, or NaN."""
    for at in range(H - heads + 1):
        linear_row(s.rows[at], panels[at], s.Zs[at])
    if not mix_logits(s.Zs, 0, offsets, i, K, heads, mix, s.Z, s.z, s.probabilities, s.logs):
        return np.nan
    loss = answer_loss_row(s.Z, 0, K, s.target, head, logits, soft, logs)
    for k in range(K):
        s.score[0, k] = s.Z[0, k]
    head_block(head, s.Z, 1, K, s.answer, 0, s.label, True)
    return np.nan if s.label[0] == NOT_FINITE else loss


@inlined
def _set_errors(head, K, H, heads, importance, s):
    """Set truth and errors. Returns the mass of the targets, 1 for sigmoid, and the largest weighted error."""
    mass, most = 1.0, 0.0
    if head == SIGMOID:
        s.truth[0, 0], s.truth[0, 1] = 1.0 - s.target[0, 0], s.target[0, 0]
    else:
        mass = 0.0
        for k in range(K):
            s.truth[0, k] = s.target[0, k]
            mass += s.target[0, k]
    for h in range(H):
        (at, column), top = expert_place(h, heads, K), ERROR_ROWS * h
        for k in range(K):
            p = s.probabilities[h + 2, k if K > 1 else 1]
            e = p * mass - s.target[0, k]
            s.errors[top + LOGIT, k], s.errors[top + PROBABILITY, k] = s.Zs[at][0, column + k], p
            s.errors[top + ERROR, k], s.errors[top + WEIGHTED, k] = e, importance * e
            most = max(most, abs(importance * e))
    return mass, most


@inlined
def _prepend_one(row, x):
    """x (1, > F) = the bias input 1, then row (1, F). Returns F + 1."""
    x[0, 0] = 1.0
    for j in range(row.shape[1]):
        x[0, j + 1] = row[0, j]
    return row.shape[1] + 1


@inlined
def _rows_of(panels):
    """The rows of all panels, one panel after another."""
    return panels.reshape(-1, panels.shape[2])


@inlined
def _shared_steps(K, H, heads, narrow, mass, importance, constants, panels, masters, shared, whole, s, w):
    """The steps of A and L. Returns the sum of their squares."""
    c = constants
    numbers = c[RATE], c[FLOOR], c[PULL], c[FORGET], c[SURPRISE], c[STEP_CLIP]
    size = 0.0
    for at in range(2 if narrow else 1):
        # The index among A, B and L, and the first row of errors.
        expert, top = 2 * at, ERROR_ROWS * (heads + 1) * at
        P, pending, delayed, own = shared[at]
        start, x, u, sums = w.shared[at]
        D, power = _prepend_one(s.rows[expert], x), c[SHARE_L] if at > 0 else c[SHARE_A]
        q = shared_product(P, pending, delayed, start, x, D, u, sums)
        den, part, squares = shared_step(
            s.errors, top, 1 if at > 0 else heads, s.target, mass, importance, K, u, q, own, whole, at, power, numbers,
            _rows_of(masters[expert]), _rows_of(panels[expert]), D, (*w.rows, w.steps[at], w.wide_u[at]),
        )  # fmt: skip
        shared_update(P, pending, delayed, start, D, u, den, part, w.unit_16)
        size += squares
    return size


@inlined
def _block_step(K, heads, narrow, importance, constants, panels, masters, P, squares, s, w):
    """The step of B: Newton, or FTRL for wide rows. Returns its sum of squares."""
    c, D, top = constants, _prepend_one(s.rows[1], w.x), ERROR_ROWS * heads
    master_rows, panel_rows = _rows_of(masters[1]), _rows_of(panels[1])
    if narrow:
        numbers = c[B_RATE], c[FLOOR], c[PULL], c[FORGET], c[SURPRISE], 1.0 / c[FIRM], c[STEP_CLIP]
        p, e = s.errors[top + PROBABILITY : top + PROBABILITY + 1], s.errors[top + ERROR : top + ERROR + 1]
        return newton_step(w.x, D, p, e, importance, K, master_rows, panel_rows, P, w.U, numbers, w.rest, w.unit)
    for k in range(K):
        w.errors[0, k] = s.errors[top + WEIGHTED, k]
    keep = 1.0 - c[FORGET]
    return adaptive_step(
        w.x, D, w.errors, master_rows, panel_rows, _rows_of(squares), w.squares, c[B_RATE], c[B_BETA], keep, 0.0,
        c[STEP_CLIP],
    )  # fmt: skip


@inlined
def _is_small(X, i):
    """Whether the square of each number of row i is finite in float64."""
    small = True
    for j in range(X.shape[1]):
        small &= abs(X[i, j]) < X.dtype.type(RAW_MAX)
    return small


def _signature(t):
    """The types of mixture_fold_forward for a model of one dtype."""
    rows = f"{t}[:,::1],int64[::1],float64[:,::1],float64[::1],{t}[:,::1]"
    inputs = f"Tuple(({t}[:,:,::1],int64[:,::1],{t}[:,::1])),{t}[:,::1],float64[:,::1]"
    weights = f"UniTuple({t}[:,:,::1],3),UniTuple(float64[:,:,::1],3)"
    shared = "UniTuple(Tuple((float32[:,::1],float32[:,::1],float64[::1],float64[::1])),2),float64[::1]"
    sums = f"float64[:,::1],{t}[:,:,::1],float64[::1],float64[:,::1],float64[:,::1]"
    counted = f"float64[::1],float64[:,::1],float64[:,::1],float64[::1],{t}[:,::1]"
    return f"void({rows},int64,int64,boolean,float64[::1],{inputs},{weights},{shared},{sums},{counted})"


@kernel(_signature("float32"), _signature("float64"))
def mixture_fold_forward(
    X, labels, Y, weights, offsets, head, form, learning, constants, features, stage, statistics, panels, masters,
    shared, whole, P_B, squares_B, mix, mix_curvature, frequencies, progress, recent, window, losses, scores,
):  # fmt: skip
    """X (B, N) and the other arrays of the module docstring; form is RUNNING, TRAINED or FIXED; constants (CONSTANTS,).

    If `learning` is false, rows are scored and counted, and nothing else changes.
    """
    narrow, K, H = features[1].shape[1] > 0, shared[0][3].size, mix_curvature.shape[0]
    heads, kind, M = H - (2 if narrow else 1), X.dtype.type, features[0].shape[0] * features[0].shape[2]
    s = _row_scratch(X, stage, features, panels, K, H)
    w = _step_scratch(X, panels, P_B, squares_B, constants, K, H, narrow)
    logits, soft, logs = scratch(K), np.empty(K), np.empty(K + 1)
    clips, scale = np.array(CLIPS, X.dtype), kind(feature_scale(M + features[1].shape[1]))
    numbers = constants[MIX_LAMBDA], constants[MIX_KEEP], constants[MIX_SHARE], constants[STEP_CLIP]
    s.probabilities[1, : frequencies.shape[1]] = frequencies[1]
    for i in range(X.shape[0]):
        losses[i] = np.nan
        importance = weights[i] if weights.size > 0 else 1.0
        wanted = labels[i] if labels.size > 0 else -1
        known = set_target(labels, Y, i, head, K, s.target) and _is_small(X, i)
        known &= inputs_row(X, i, stage, clips, features, scale, s.inputs, s.rows[0], s.rows[1], s.rows[2])
        loss, mass, most = np.nan, 1.0, 0.0
        if known:
            loss = _score(head, K, H, heads, panels, offsets, i, mix, s, logits, soft, logs)
            mass, most = _set_errors(head, K, H, heads, importance, s)
        if not (known and loss < LOSS_MAX and 0.0 < importance and most < ERROR_MAX):
            progress[SKIPPED] += 1
            continue
        losses[i] = loss
        # Only a multilabel head, which a mixture has not, uses p and thresholds.
        count_answer(head, K, wanted, s.target, s.label, s.answer, s.answer, constants, loss, progress, recent, window)
        if scores.shape[0] > 0:
            scores[i] = s.score[0, :K]
        if not learning:
            continue
        size = _shared_steps(K, H, heads, narrow, mass, importance, constants, panels, masters, shared, whole, s, w)
        size += _block_step(K, heads, narrow, importance, constants, panels, masters, P_B, squares_B, s, w)
        mixture_step(
            s.truth, mass, importance, H, max(K, 2), numbers, mix, mix_curvature, s.probabilities, s.logs, w.mixture
        )
        count_classes(s.truth, importance, max(K, 2), frequencies, s.probabilities)
        count_step_norm(progress, size)
        progress[SEEN] += 1
        if form != FIXED:
            update_stage(s.inputs, progress[SEEN], form == TRAINED, narrow, statistics, stage)
