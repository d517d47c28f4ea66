"""The fold of sparse models: that of fold.py, on the columns that are present in a row and on the bias alone.

    ends, columns, values   rows of E entries, as in sparse_rows.py, with float32 values
    labels, Y, weights      the targets and the importance of each row, as in fold.py
    cells (CELLS,) int64    W (N + 1, Kp) float32 and, for adagrad and ftrl, G in the same layout; see changed_rows.py.
                            No row of W is in a table of changes
    first (N + 1,) or (1,)  float32, the first G of each row of W, or of all
    touched (2, S) uint8    one bit for each row of W, the lowest first: both are set by a step
    regret, progress, recent, window, losses, scores   as in fold.py

W is what is served and what learns: a second copy in float64 would triple the memory of a weight. Each row is scored by
the kernel of predictions, and counted. Then the rule of rules.py takes a step in float32, with x_0 = 1 for the bias:

    places (>= n + 1,) int64   the addresses of the rows of W that a row touches: the bias, then n columns
    x (>= n + 1,) float32      1, then the values of the columns
    refills (>= n + 1,)        float32, forget G_0 of the same rows
    steps (>= n + 1, Kp)       float32, scratch

Each entry of a step asks for the memory of one entry of the next row. If all were asked for at once, the step would
wait for them. A row of 100 of 2**18 columns and 10 classes takes 2.7 us.

Only touched rows of G return to their first values, and only their weights shrink while the regret is high. A row is
skipped and counted as in fold.py, also if a column is out of range or out of order; it changes nothing else.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.softmax.kernels.changed_rows import BASE, NUMBER_BYTES, SQUARES, WIDTH, given, slots_of
from service.softmax.kernels.fold import (
    ERROR_MAX,
    FEATURE_MAX,
    FORGET,
    LOSS_MAX,
    OFFSET,
    RATE,
    REGRET,
    SGD,
    SKIPPED,
    STEP_CLIP,
    count_answer,
    count_step_norm,
    logit_errors,
    score_logits,
    set_target,
)
from service.softmax.kernels.heads import BLOCK
from service.softmax.kernels.lane_operations import absolute, fma, higher, lower, spread, store
from service.softmax.kernels.lane_reductions import highest, total
from service.softmax.kernels.loss import scratch
from service.softmax.kernels.regret import SHRINK, SLOWEST, regret_share, uniform_loss, update_regret
from service.softmax.kernels.rules import LIMIT_32, SQUARES_MAX, clip_factor, largest
from service.softmax.kernels.sparse_forward import (
    WHOLE,
    find_rows,
    longest_row,
    prefetch_entry,
    prefetch_row,
    sparse_logits,
)
from service.softmax.kernels.sparse_lanes import load_first, load_row, store_row
from service.softmax.kernels.wide import root

# What the sum of squares of a step counts as if it overflows float32: more than any that does not.
STEP_SQUARES_MAX = 2.0**160


def _step_kernel(count):
    """A function that takes a step, `count` classes at a time. Returns the step's sum of squares."""

    @inlined
    def run(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead):
        rate, offset, keep, step_clip, shrink = numbers
        width, gap = cells[WIDTH], cells[SQUARES] - cells[BASE]
        zero = spread(load_first(narrow, 0, 0, count), 0.0)
        rates, offsets, keeps = spread(zero, rate), spread(zero, offset), spread(zero, keep)
        most, limit = spread(zero, SQUARES_MAX), spread(zero, LIMIT_32)
        size, change = 0.0, 0.0
        for k in range(0, width, count):
            effect, sums = zero, zero
            e = load_first(narrow, 0, k, count)
            for t in range(n + 1):
                if k == 0 and t < ahead:
                    prefetch_entry(columns, following + t, cells)
                x_t = spread(zero, x[t])
                g = x_t * e
                step = rates * g
                if rule != SGD:
                    at = places[t] + gap + NUMBER_BYTES * k
                    G = lower(fma(g, g, load_row(narrow, at, count)), most)
                    step = step / (offsets + root(G))
                    store_row(at, fma(G, keeps, spread(zero, refills[t])))
                store(steps, t, k, step)
                effect = fma(x_t, step, effect)
                sums = fma(step, step, sums)
            change = max(change, np.float64(highest(absolute(effect))))
            size += np.float64(total(sums))
        for t in range(n + 1, ahead):
            prefetch_entry(columns, following + t, cells)
        factor = clip_factor(change, step_clip)
        minus = spread(zero, -factor)
        for t in range(n + 1):
            kept = spread(zero, shrink if t > 0 else 1.0)
            for k in range(0, width, count):
                at = places[t] + NUMBER_BYTES * k
                w = fma(minus, load_first(steps, t, k, count), kept * load_row(narrow, at, count))
                store_row(at, higher(lower(w, limit), zero - limit))
        return factor * factor * size

    return run


_step_1, _step_2, _step_4, _step_8, _step_16 = (_step_kernel(count) for count in (1, 2, 4, 8, WHOLE))


@inlined
def _step(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead):
    """One step by the rule on the rows at `places`. Returns its sum of squares.

    It asks for the memory of the next row as it goes: of the `ahead` entries from `following`.
    """
    width = cells[WIDTH]
    if width >= WHOLE:
        return _step_16(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead)
    if width == 8:
        return _step_8(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead)
    if width == 4:
        return _step_4(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead)
    if width == 2:
        return _step_2(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead)
    return _step_1(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, following, ahead)


@inlined
def _load_values(values, start, n, x):
    """x = 1, then the n values from `start`. Returns whether all are finite and small enough for a step."""
    x[0] = 1
    small = True
    for e in range(n):
        x[e + 1] = values[start + e]
        small &= abs(values[start + e]) < FEATURE_MAX
    return small


@inlined
def _touch(columns, start, n, forget, first, refills, touched):
    """Set the bits of the rows of W that a step changes, and their refills."""
    for t in range(n + 1):
        row = np.int64(columns[start + t - 1]) + 1 if t > 0 else 0
        refills[t] = forget * np.float64(first[row if first.size > 1 else 0])
        bit = 1 << (row & 7)
        touched[0, row >> 3] |= bit
        touched[1, row >> 3] |= bit


@kernel(
    types.boolean(
        given(types.int64), given(types.int32), given(types.float32),
        types.int64[::1], types.float64[:, ::1], types.float64[::1],
        types.int64, types.int64, types.boolean, types.float64[::1], types.float64[::1],
        types.int64[::1], types.float32[::1], types.uint8[:, ::1], types.float64[::1],
        types.float64[::1], types.float64[:, ::1], types.float64[:, ::1], types.float64[::1], types.float32[:, ::1],
    )
)  # fmt: skip
def sparse_fold_forward(
    ends, columns, values, labels, Y, weights, head, rule, learning, constants, thresholds,
    cells, first, touched, regret, progress, recent, window, losses, scores,
):  # fmt: skip
    """B rows of E entries, and the other arrays of the module docstring; constants (CONSTANTS,), thresholds (K,).

    If `learning` is false, rows are scored and counted, and nothing else changes. Returns whether the ends divide the
    entries into rows; if not, nothing is done.
    """
    longest = longest_row(ends, columns.size)
    if longest < 0:
        return False
    K, width, whole = thresholds.size, cells[WIDTH], max(cells[WIDTH], WHOLE)
    slots, places, kind = slots_of(cells), np.empty(longest + 1, np.int64), np.float32
    x, refills, steps = np.empty(longest + 1, kind), np.empty(longest + 1, kind), np.empty((longest + 1, width), kind)
    Z, sigmas, narrow = np.zeros((1, whole), kind), np.zeros((1, whole), kind), np.zeros((1, whole), kind)
    p, target, errors, E = np.zeros((1, whole)), np.zeros((1, whole)), np.zeros((1, whole)), np.zeros((1, whole))
    answer, label = np.zeros((1, K + 1), kind), np.zeros(BLOCK, np.int64)
    logits, soft, logs = scratch(K), np.empty(K), np.empty(K + 1)
    uniform, forget = uniform_loss(head, K), constants[FORGET]
    limit = constants[REGRET] * uniform
    for i in range(ends.size):
        losses[i] = np.nan
        start = ends[i - 1] if i > 0 else 0
        n = ends[i] - start
        ahead = ends[i + 1] - ends[i] if i + 1 < ends.size else 0
        if not learning:
            prefetch_row(columns, ends[i], ahead, cells)
        importance = weights[i] if weights.size > 0 else 1.0
        wanted = labels[i] if labels.size > 0 else -1
        known = set_target(labels, Y, i, head, K, target) and _load_values(values, start, n, x)
        known = known and find_rows(columns, start, n, cells, slots, places)
        loss = np.nan
        if known:
            sparse_logits(places, values, start, n, width, Z, 0)
            loss = score_logits(head, K, target, Z, sigmas, answer, p, label, logits, soft, logs)
            logit_errors(head, K, target, p, importance, errors, E, narrow)
        if not (known and loss < LOSS_MAX and 0.0 < importance and largest(E) < ERROR_MAX):
            progress[SKIPPED] += 1
            continue
        losses[i] = loss
        count_answer(head, K, wanted, target, label, p, answer, thresholds, loss, progress, recent, window)
        if scores.shape[0] > 0:
            scores[i] = sigmas[0, :K]
        if not learning:
            continue
        share = regret_share(regret, limit)
        numbers = (
            constants[RATE] * max(1.0 - share, SLOWEST), constants[OFFSET], 1.0 - forget, constants[STEP_CLIP],
            1.0 - SHRINK * share,
        )  # fmt: skip
        _touch(columns, start, n, forget, first, refills, touched)
        squares = _step(rule, places, x, refills, n, narrow, cells, steps, numbers, columns, ends[i], ahead)
        count_step_norm(progress, min(squares, STEP_SQUARES_MAX))
        if limit > 0.0:
            update_regret(regret, head, K, target, loss, uniform, limit)
    return True
