"""Counts of answers in buckets of events.

    start, stop                  the rows to count
    seqs (R,) int64              the seq of each row's event, ascending
    first, shift                 bucket i has the seqs with (seq - first) >> shift = i
    outcomes (6, R) float64      how each row was answered, see the constants
    labels, answers (R,) int64   the class that was wanted, and the one that was answered
    columns (C,) int64           the column of each class in the counts

All arrays of counts are added to; their first axis are buckets. An array that is not counted has no columns.

Losses are added in the order of the rows. All other sums are of whole numbers, or of multiples of a unit, and exact.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import ROUND_64

# The rows of `outcomes`.
LOSS_OF, HIT_OF, CONFIDENCE_OF, ACCURACY_OF, FROZEN_LOSS_OF, FROZEN_HIT_OF = 0, 1, 2, 3, 4, 5
# The columns of `sums`; store/states/report.py names them.
ROWS, LOSS, LOSS_MAX, HITS, FROZEN_ROWS, FROZEN_LOSS, FROZEN_HITS, BOTH_HITS = 0, 1, 2, 3, 4, 5, 6, 7
# Confidences and accuracies are rounded to multiples of the first, scaled features to multiples of the second.
SHARE_UNIT, DRIFT_UNIT = 2.0**-24, 2.0**-16
# A scaled feature counts as no further from 0, so that one row cannot hide the others.
DRIFT_CLIP = 8.0


@inlined
def _round(x):
    """The whole number nearest to x, |x| < 2**51; ties go to the even one."""
    return (x + ROUND_64) - ROUND_64


@kernel(
    "void(int64,int64,int64[::1],int64,int64,float64[:,::1],int64[::1],int64[::1],float64[:,::1],uint32[:,::1],"
    "uint32[:,::1])"
)
def count_answers(start, stop, seqs, first, shift, outcomes, labels, columns, sums, wanted, found):
    """sums (B, 8); wanted and found (B, >= C), rows with each label and those that were answered right, or (B, 0)."""
    r = start
    while r < stop:
        i = (seqs[r] - first) >> shift
        # The sums of a bucket stay in registers, so that no row waits until the one before is stored.
        rows, hits, frozen_hits, both_hits = r, 0.0, 0.0, 0.0
        loss, most, frozen_loss = sums[i, LOSS], sums[i, LOSS_MAX], sums[i, FROZEN_LOSS]
        while r < stop and (seqs[r] - first) >> shift == i:
            hit, frozen_hit = outcomes[HIT_OF, r], outcomes[FROZEN_HIT_OF, r]
            loss += outcomes[LOSS_OF, r]
            most = max(most, outcomes[LOSS_OF, r])
            frozen_loss += outcomes[FROZEN_LOSS_OF, r]
            hits += hit
            frozen_hits += frozen_hit
            both_hits += hit * frozen_hit
            if wanted.shape[1] > 0:
                column = columns[labels[r]]
                wanted[i, column] += np.uint32(1)
                found[i, column] += np.uint32(hit)
            r += 1
        sums[i, LOSS], sums[i, LOSS_MAX], sums[i, FROZEN_LOSS] = loss, most, frozen_loss
        sums[i, ROWS] += r - rows
        sums[i, FROZEN_ROWS] += r - rows
        sums[i, HITS] += hits
        sums[i, FROZEN_HITS] += frozen_hits
        sums[i, BOTH_HITS] += both_hits


@kernel("void(int64,int64,int64[::1],int64,int64,boolean[:,::1],boolean[:,::1],int64[::1],uint32[:,::1],uint32[:,::1])")
def count_label_sets(start, stop, seqs, first, shift, labels, answers, columns, wanted, found):
    """labels and answers (R, C): the classes of each row, and those that were answered; wanted, found (B, >= C)."""
    for r in range(start, stop):
        i = (seqs[r] - first) >> shift
        for k in range(columns.size):
            if labels[r, k]:
                wanted[i, columns[k]] += np.uint32(1)
                found[i, columns[k]] += np.uint32(answers[r, k])


def _signature(t):
    """The types of count_details for rows of one dtype."""
    rows = f"int64,int64,int64[::1],int64,int64,float64[:,::1],int64[::1],int64[::1],int64[::1],{t}[:,::1]"
    return f"void({rows},float64[:,::1],float64[:,:,::1],uint32[:,:,::1],float64[:,::1])"


@kernel(_signature("float32"), _signature("float64"))
def count_details(
    start, stop, seqs, first, shift, outcomes, labels, answers, columns, X, stage, calibration, confusion, drift
):  # fmt: skip
    """X (R, N); stage (2, N): mean and 1 / scale of each feature.

    calibration (B, bins, 3): for each bin of confidence the rows, confidences and accuracies. confusion (B, >= C, >= C)
    or (B, 0, 0), by label and answer. drift (B, N) or (B, 0): the sums of (x - mean) / scale within +-DRIFT_CLIP.
    """
    bins = calibration.shape[1]
    for r in range(start, stop):
        i = (seqs[r] - first) >> shift
        confidence = outcomes[CONFIDENCE_OF, r]
        b = min(int(confidence * bins), bins - 1)
        calibration[i, b, 0] += 1.0
        calibration[i, b, 1] += _round(confidence / SHARE_UNIT)
        calibration[i, b, 2] += _round(outcomes[ACCURACY_OF, r] / SHARE_UNIT)
        if confusion.shape[1] > 0:
            confusion[i, columns[labels[r]], columns[answers[r]]] += np.uint32(1)
        for j in range(drift.shape[1]):
            x = (np.float64(X[r, j]) - stage[0, j]) * stage[1, j]
            x = min(max(x, -DRIFT_CLIP), DRIFT_CLIP) if x == x else 0.0  # noqa: PLR0124  # NaN equals nothing
            drift[i, j] += _round(x / DRIFT_UNIT)


@kernel(
    "void(float32[:,::1],float64[:,::1],int64[::1],int64[::1])",
    "void(float64[:,::1],float64[:,::1],int64[::1],int64[::1])",
)
def find_answers(Z, outcomes, labels, answers):
    """Z (R, K) logits, labels (R,), answers (R,) written: the label of a hit, else the class of the largest logit.

    A wrong answer of a sigmoid head, K = 1, is the other class.
    """
    for r in range(labels.size):
        if outcomes[HIT_OF, r] > 0.0:
            answers[r] = labels[r]
            continue
        best = 0
        for k in range(1, Z.shape[1]):
            if Z[r, k] > Z[r, best]:
                best = k
        answers[r] = best if Z.shape[1] > 1 else 1 - labels[r]


@inlined
def _set_numbers(numbers, at, seqs, labels, answers, columns, r):
    """numbers[at] = the seq of row r, and the columns of its label and its answer; those below 0 stay."""
    numbers[at, 0] = seqs[r]
    numbers[at, 1] = columns[labels[r]] if labels[r] >= 0 else labels[r]
    numbers[at, 2] = columns[answers[r]] if answers[r] >= 0 else answers[r]


@kernel(
    "void(int64[::1],float64[:,::1],int64[::1],int64[::1],int64[::1],int64[::1],float64[:,::1],int64[:,::1],"
    "float64[:,::1],int64[:,::1])"
)
def keep_rows(seqs, outcomes, labels, answers, columns, counts, recent, recent_rows, surprising, surprising_rows):
    """counts (2,): the rows so far, and of those that are in surprising.

    recent (M, 6) and recent_rows (M, 3) are rings with the outcomes, seqs, labels and answers of the latest M rows.
    surprising (S, 1) and surprising_rows (S, 3) have the largest losses, descending; of equal ones the first is first.
    """
    R, size, most = seqs.size, recent.shape[0], surprising.shape[0]
    for r in range(max(0, R - size), R):
        at = (counts[0] + r) % size
        for j in range(outcomes.shape[0]):
            recent[at, j] = outcomes[j, r]
        _set_numbers(recent_rows, at, seqs, labels, answers, columns, r)
    counts[0] += R
    for r in range(R):
        loss, at = outcomes[LOSS_OF, r], min(counts[1], most - 1)
        if counts[1] == most and loss <= surprising[at, 0]:
            continue
        counts[1] = at + 1
        while at > 0 and surprising[at - 1, 0] < loss:
            surprising[at, 0] = surprising[at - 1, 0]
            for j in range(3):
                surprising_rows[at, j] = surprising_rows[at - 1, j]
            at -= 1
        surprising[at, 0] = loss
        _set_numbers(surprising_rows, at, seqs, labels, answers, columns, r)
