"""Predict one row of a mixture in the call that parses it; single.py describes the plan.

    experts   (ARRAYS, CELLS) int64    the arrays of mixture_predict.py, see addresses.py
    offsets   (0 or 1, K)              the logits of the trained model, if there is one

The kernel is that of whole batches, so the bits are the same.
"""

import numpy as np
from numba import carray

from service.compiler import inlined
from service.softmax.kernels.addresses import ADDRESS, CELLS, FIRST, SECOND, THIRD, numbers_at
from service.softmax.kernels.lane_operations import stack
from service.softmax.kernels.mixture_predict import mixture_predict_forward

DENSE, PAIRS, PAIR_NUMBERS, PANELS_A, PANELS_B, PANELS_L, STAGE, MIX, FREQUENCIES, ARRAYS = range(10)


@inlined
def _vector(cells, at, kind):
    return carray(numbers_at(cells[at, ADDRESS], kind), cells[at, FIRST])


@inlined
def _matrix(cells, at, kind):
    return carray(numbers_at(cells[at, ADDRESS], kind), (cells[at, FIRST], cells[at, SECOND]))


@inlined
def _panels(cells, at, kind):
    return carray(numbers_at(cells[at, ADDRESS], kind), (cells[at, FIRST], cells[at, SECOND], cells[at, THIRD]))


@inlined
def predict_experts(experts, X, offsets, head, P, kind):
    """P (1, n_classes) written from the row X (1, N). Returns the label, or NOT_FINITE.

    experts is the address of the cells, and kind np.float32 or np.float64.
    """
    cells = carray(numbers_at(experts, np.int64), (ARRAYS, CELLS))
    return mixture_predict_forward(
        X, offsets, _panels(cells, DENSE, kind), _matrix(cells, PAIRS, np.int64), _matrix(cells, PAIR_NUMBERS, kind),
        _panels(cells, PANELS_A, kind), _panels(cells, PANELS_B, kind), _panels(cells, PANELS_L, kind),
        _matrix(cells, STAGE, kind), _vector(cells, MIX, np.float64), _vector(cells, FREQUENCIES, np.float64),
        head, carray(stack(X), (0, offsets.shape[1])), P, carray(stack(cells), 0),
    )  # fmt: skip
