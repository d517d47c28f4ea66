"""The fold of networks: score each row with the state before it, then take one learning step in every layer.

    X, labels, Y, weights, progress, recent, window, losses, scores    as in fold.py
    plan (L + 1, COLUMNS)      the layers, see network.py
    panels (S,)                the served weights of every layer, one after another
    masters (S,) float64       the masters of the weights, in the layout of the panels
    squares (S,)               AdaGrad's and FTRL's sums, in the model's dtype; one element for sgd
    fixed (2, N)               in the model's dtype: mean and 1 / scale of the input stage

Each row is staged, then scored with the served weights by the prediction kernels, through the hidden layers and the
head. Its loss is counted. The derivatives of every pre-activation follow from the last layer to the first, with the
same weights. Then every layer takes a step by the rule, as if it were a linear model of the activations before it:

    e_L = h (P - Y),   e_l = (e_(l+1) W_(l+1)^T) f'(a_(l+1)),   g_l = a_l^T e_l

(Rumelhart, Hinton & Williams, Learning representations by back-propagating errors, Nature 323, 1986.)

A step's effect on a layer's own pre-activations is limited to the rule's `step_clip`, separately for each layer. A row
is skipped and counted if it is not finite in some layer, names no class, or is so large that a step would not be
finite; it changes nothing else.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.activations import activation_block, times_slope
from service.softmax.kernels.fold import (
    ERROR_MAX,
    FEATURE_MAX,
    FORGET,
    LOSS_MAX,
    OFFSET,
    OWN_CLIP,
    RATE,
    SGD,
    SKIPPED,
    START,
    STEP_CLIP,
    count_answer,
    count_step_norm,
    logit_errors,
    score_row,
    set_target,
)
from service.softmax.kernels.heads import BLOCK
from service.softmax.kernels.lane_operations import first_lanes, fma, lane_count, load, load_part, spread, store
from service.softmax.kernels.lane_reductions import all_below, total
from service.softmax.kernels.loss import scratch
from service.softmax.kernels.matmul import linear_block
from service.softmax.kernels.network import ACTIVATION, COUNT, INPUTS, OUTPUTS, WIDTH, layer_panels, layer_rows
from service.softmax.kernels.rules import adaptive_step, largest, sgd_step
from service.softmax.kernels.stages import stage_row
from service.softmax.kernels.wide import WIDE

# Rows with larger derivatives in a hidden layer are skipped. With FEATURE_MAX this keeps a float32 step finite.
HIDDEN_ERROR_MAX = 2.0**30


@inlined
def _part(flat, starts, number):
    """Row `number` of a ragged array, as (1, n): `flat` from its start to the next row's start."""
    start, stop = starts[number], starts[number + 1]
    return flat[start:stop].reshape((1, stop - start))


@inlined
def _below(row, n, bound):
    """Whether the first n numbers of a row are all below the bound in size; False for NaN."""
    lanes, small = lane_count(row), True
    for j in range(0, n, lanes):
        small &= all_below(load_part(row, 0, j, min(lanes, n - j), 0.0), bound)
    return small


@inlined
def _hidden_forward(plan, panels, inputs, starts, z):
    """inputs: the inputs of all later layers, written. Returns whether the row can be learned from."""
    known = _below(_part(inputs, starts, 0), plan[0, INPUTS], FEATURE_MAX)
    for number in range(plan.shape[0] - 1):
        lanes = plan[number, COUNT] * plan[number, WIDTH]
        own = z[:lanes].reshape((1, lanes))
        linear_block(_part(inputs, starts, number), 0, 1, layer_panels(panels, plan, number), own)
        activations = _part(inputs, starts, number + 1)
        known &= activation_block(plan[number, ACTIVATION], own, 1, plan[number, OUTPUTS], activations)
        known &= _below(activations, plan[number, OUTPUTS], FEATURE_MAX)
    return known


@inlined
def _hidden_backward(plan, panels, inputs, starts, slopes, ends):
    """slopes: the derivatives of all hidden layers, written. Returns whether the row can be learned from."""
    known = True
    for number in range(plan.shape[0] - 1, 0, -1):
        rows, own = layer_rows(panels, plan, number), _part(slopes, ends, number)
        activations, below = _part(inputs, starts, number), _part(slopes, ends, number - 1)
        n, width, lanes = plan[number, INPUTS], plan[number, WIDTH], lane_count(rows)
        for j in range(n):
            # Vectors of classes in their order, for panels of any width. Lanes past K add 0 to a sum that is not
            # negative zero, so their number does not matter.
            sums = spread(load(own, 0, 0), 0.0)
            for c in range(plan[number, COUNT]):
                for k in range(0, width, lanes):
                    sums = fma(load(rows, c * (n + 1) + j + 1, k), load(own, 0, c * width + k), sums)
            below[0, j] = total(sums)
        for j in range(0, n, lanes):
            a = load_part(activations, 0, j, min(lanes, n - j), 0.0)
            d = first_lanes(times_slope(plan[number - 1, ACTIVATION], a, load(below, 0, j)), n - j, 0.0)
            store(below, 0, j, d)
            known &= all_below(d, HIDDEN_ERROR_MAX)
    return known


@inlined
def _layer_step(rule, number, plan, activations, narrow, x, E, panels, masters, squares, steps, constants):
    """One step of one layer by the rule; x and E are scratch. Returns the step's sum of squares."""
    D, lanes = plan[number, INPUTS] + 1, narrow.shape[1]
    D8 = (D + WIDE - 1) // WIDE * WIDE
    row = x[:D8].reshape((1, D8))
    row[0, 0] = 1.0
    for j in range(1, D):
        row[0, j] = activations[0, j - 1]
    row[0, D:] = 0.0
    master, served = layer_rows(masters, plan, number), layer_rows(panels, plan, number)
    rate, forget, step_clip = constants[RATE], constants[FORGET], constants[STEP_CLIP]
    if rule == SGD:
        wide = E[:lanes].reshape((1, lanes))
        for k in range(lanes):
            wide[0, k] = narrow[0, k]
        return sgd_step(row, D, wide, master, served, rate, step_clip)
    own = steps[: master.shape[0] * master.shape[1]].reshape((master.shape[0], master.shape[1]))
    sums, keep, refill = layer_rows(squares, plan, number), 1.0 - forget, forget * constants[START]
    return adaptive_step(row, D, narrow, master, served, sums, own, rate, constants[OFFSET], keep, refill, step_clip)


@inlined
def _starts(plan):
    """The start of each layer's input in one flat array, and of its derivatives in another."""
    layers = plan.shape[0]
    inputs, lanes = np.zeros(layers + 1, np.int64), np.zeros(layers + 1, np.int64)
    for number in range(layers):
        inputs[number + 1] = inputs[number] + plan[number, INPUTS]
        lanes[number + 1] = lanes[number] + plan[number, COUNT] * plan[number, WIDTH]
    return inputs, lanes


def _signature(t):
    """The types of network_fold_forward for a model of one dtype."""
    rows = f"{t}[:,::1],int64[::1],float64[:,::1],float64[::1]"
    state = f"int64[:,::1],{t}[::1],float64[::1],{t}[::1],{t}[:,::1]"
    return (
        f"void({rows},int64,int64,boolean,float64[::1],float64[::1],{state},float64[::1],float64[:,::1],float64[:,::1],"
        f"float64[::1],{t}[:,::1])"
    )


@kernel(_signature("float32"), _signature("float64"))
def network_fold_forward(
    X, labels, Y, weights, head, rule, learning, constants, thresholds,
    plan, panels, masters, squares, fixed, progress, recent, window, losses, scores,
):  # fmt: skip
    """X (B, N) and the other arrays of the module docstring; constants (CONSTANTS,), thresholds (K,).

    If `learning` is false, rows are scored and counted, and nothing else changes.
    """
    kind, last, K = X.dtype.type, plan.shape[0] - 1, thresholds.size
    starts, ends = _starts(plan)
    widest, most = np.max(ends[1:] - ends[:-1]), np.max(plan[:, INPUTS]) + 1
    # One layer's step before it is limited; AdaGrad and FTRL know its size only afterwards.
    room = np.max(plan[:, COUNT] * (plan[:, INPUTS] + 1) * plan[:, WIDTH]) if learning and rule != SGD else 0
    inputs, slopes = np.zeros(starts[-1], X.dtype), np.zeros(ends[-1], X.dtype)
    x, wide, steps = np.zeros(most + WIDE), np.zeros(widest), np.zeros(room, X.dtype)
    # The scratch of a row's scoring, as in fold.py; elements past K stay 0.
    width = ends[-1] - ends[last]
    z, sigmas = np.zeros(widest, X.dtype), np.zeros((1, width), X.dtype)
    Z = z[:width].reshape((1, width))
    p, target, off, E = np.zeros((1, width)), np.zeros((1, width)), np.zeros((1, width)), np.zeros((1, width))
    answer, label = np.zeros((1, K + 1), X.dtype), np.zeros(BLOCK, np.int64)
    logits, soft, logs = scratch(K), np.empty(K), np.empty(K + 1)
    first, hidden, narrow = _part(inputs, starts, 0), _part(inputs, starts, last), _part(slopes, ends, last)
    for i in range(X.shape[0]):
        losses[i] = np.nan
        importance = weights[i] if weights.size > 0 else 1.0
        wanted = labels[i] if labels.size > 0 else -1
        known = set_target(labels, Y, i, head, K, target)
        known &= stage_row(X, i, fixed[0], fixed[1], kind(constants[OWN_CLIP]), first, 0, 0)
        known &= _hidden_forward(plan, panels, inputs, starts, z)
        loss = np.nan
        if known:
            served = layer_panels(panels, plan, last)
            loss = score_row(head, K, hidden, served, target, Z, sigmas, answer, p, label, logits, soft, logs)
            logit_errors(head, K, target, p, importance, off, E, narrow)
            known &= _hidden_backward(plan, panels, inputs, starts, slopes, ends)
        if not (known and loss < LOSS_MAX and 0.0 < importance and largest(E) < ERROR_MAX):
            progress[SKIPPED] += 1
            continue
        losses[i] = loss
        count_answer(head, K, wanted, target, label, p, answer, thresholds, loss, progress, recent, window)
        if scores.shape[0] > 0:
            scores[i] = sigmas[0, :K]
        if not learning:
            continue
        size = 0.0
        for number in range(last + 1):
            activations, slope = _part(inputs, starts, number), _part(slopes, ends, number)
            size += _layer_step(
                rule, number, plan, activations, slope, x, wide, panels, masters, squares, steps, constants
            )  # fmt: skip
        count_step_norm(progress, size)
