"""Predictions of a mixture: the logits of all experts and of the mixture, in blocks of rows.

    X (B, N)                  raw rows
    offsets (B, K)            logits of the trained model, or no rows without one
    dense, pairs, pair_numbers, stage    see mixture_inputs.py
    panels_A, panels_B, panels_L         see mixture_fold.py; L's are not used for wide rows
    mix (2 H + 2,) float64    see mixture.py
    frequencies (C,) float64  the frequencies f of the classes, see mixture.py

A row has the same bits alone, in any block, and in the fold.
"""

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, head_block
from service.softmax.kernels.matmul import linear_block
from service.softmax.kernels.mixture import mix_logits
from service.softmax.kernels.mixture_inputs import CLIPS, feature_scale, inputs_block, inputs_scratch


@inlined
def is_finite_row(X, i):
    """Whether every number of row i is finite."""
    finite = True
    for j in range(X.shape[1]):
        finite &= abs(X[i, j]) < np.inf
    return finite


@inlined
def _block_scratch(X, dense, stage, panels, rows):
    """The scratch of inputs_block, the inputs and the logits of A, B and L, and the logits of the answer."""
    t, W = X.dtype, panels[0].shape[0] * panels[0].shape[2]
    F_A, F_B, F_L = panels[0].shape[1] - 1, panels[1].shape[1] - 1, panels[2].shape[1] - 1
    return (
        inputs_scratch(X, stage.shape[1], rows, dense),
        (np.empty((rows, F_A), t), np.empty((rows, F_B), t), np.empty((rows, F_L), t)),
        (np.empty((rows, W), t), np.empty((rows, W), t), np.empty((rows, W), t)),
        np.zeros((rows, W), t),
    )


@inlined
def _mix_block(X, start, rows, offsets, features, scale, clips, panels, stage, mix, K, block, space):
    """Z[:rows] of the block scratch = the logits of rows from `start` on; NaN for a row that is not finite."""
    inputs, (A, B, L), Zs, Z = block
    z, probabilities, logs = space
    narrow, H = features[1].shape[1] > 0, logs.shape[0]
    heads = H - (2 if narrow else 1)
    finite = inputs_block(X, start, rows, stage, clips, features, scale, inputs, A, B, L)
    each = A, B, L
    for at in range(H - heads + 1):
        linear_block(each[at], 0, rows, panels[at], Zs[at])
    for r in range(rows):
        if finite or is_finite_row(X, start + r):
            mix_logits(Zs, r, offsets, start + r, K, heads, mix, Z, z, probabilities, logs)
        else:
            Z[r, 0] = np.nan


@inlined
def write_answers(logits, start, rows, head, Z, P, labels, found, wanted):
    """Write what is wanted of the rows from `start` on, from their logits (R, W), which the head overwrites.

    found (BLOCK,) are their labels. Returns whether all are finite.
    """
    K, finite = Z.shape[1], True
    if Z.shape[0] > 0:
        for r in range(rows):
            known = abs(logits[r, 0]) < np.inf
            for k in range(K):
                Z[start + r, k] = logits[r, k] if known else np.nan
    if P.shape[0] > 0:
        finite = head_block(head, logits, rows, K, P, start, found, wanted)
        if labels.size > 0:
            labels[start : start + rows] = found[:rows]
    return finite


@inlined
def _arguments(X, dense, pairs, pair_numbers, panels, mix, frequencies):
    """The features, their scale, the clips, and the scratch of mix_logits."""
    H, W = mix.size // 2 - 1, panels[0].shape[0] * panels[0].shape[2]
    kind = X.dtype.type
    scale = kind(feature_scale(dense.shape[0] * dense.shape[2] + pairs.shape[1]))
    space = np.zeros((1, W)), np.zeros((H + 2, W)), np.zeros((H, W))
    space[1][1, : frequencies.size] = frequencies
    return (dense, pairs, pair_numbers), scale, np.array(CLIPS, X.dtype), space


def _signature(t):
    """The types of mixture_predict_forward for a model of one dtype."""
    features = f"{t}[:,:,::1],int64[:,::1],{t}[:,::1]"
    panels = f"{t}[:,:,::1],{t}[:,:,::1],{t}[:,:,::1]"
    rest = f"int64,{t}[:,::1],{t}[:,::1],int64[::1]"
    return f"int64({t}[:,::1],{t}[:,::1],{features},{panels},{t}[:,::1],float64[::1],float64[::1],{rest})"


SIGNATURES = _signature("float32"), _signature("float64")


@kernel(*SIGNATURES)
def mixture_predict_forward(
    X, offsets, dense, pairs, pair_numbers, panels_A, panels_B, panels_L, stage, mix, frequencies, head, Z, P, labels
):  # fmt: skip
    """X (B, N), Z (B, K) written or (0, K), P (B, n_classes) written or (0, n_classes), labels (B,) written or empty.

    A row with a number or logit that is not finite has logits of NaN, if they are wanted. Returns a label as
    predict_forward does, if probabilities are wanted.
    """
    panels, K = (panels_A, panels_B, panels_L), Z.shape[1]
    features, scale, clips, space = _arguments(X, dense, pairs, pair_numbers, panels, mix, frequencies)
    block = _block_scratch(X, dense, stage, panels, min(X.shape[0], BLOCK))
    found, wanted = np.zeros(BLOCK, np.int64), X.shape[0] == 1 or labels.size > 0
    finite, first = True, 0
    for start in range(0, X.shape[0], BLOCK):
        rows = min(BLOCK, X.shape[0] - start)
        _mix_block(X, start, rows, offsets, features, scale, clips, panels, stage, mix, K, block, space)
        finite &= write_answers(block[3], start, rows, head, Z, P, labels, found, wanted)
        if start == 0 and P.shape[0] > 0 and wanted:
            first = found[0]
    return first if finite else NOT_FINITE
