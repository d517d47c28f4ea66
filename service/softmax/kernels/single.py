"""Predict one row at a time, in reused buffers; callable inside kernels of other rooms.

    plan      (CELLS,) int64    addresses and sizes, in the order of the constants below
    X         (1, N)            the row, written by the caller
    stagings  (S, 2 N + 1)      mean, 1 / scale and limit of each stage; S is 0 where the weights take raw rows
    staged    (1, S N)          the row as the weights take it
    P         (1, n_classes)    its probabilities, written
    experts                     the address of a mixture's arrays, see single_mixture.py; 0 for a linear model. The
                                panels of a mixture are those of its offset, or none
    sparse                      the address of a sparse row, see single_sparse.py; 0 where rows are dense

A call from Python costs as much as the arithmetic of a small model, and every array argument adds to it. So the kernel
that parses a row out of a request's body (serve/models/single_row.py) predicts in the same call, and gets the model as
one address. The additions of a logit are those of matmul.py, so the bits are those of `Classifier.predict`. A
linear model is predicted without any allocation.
"""

from typing import Any, Final

import numpy as np
from numba import carray
from numpy.typing import NDArray

from service.compiler import inlined
from service.softmax.arrays import Floats, Integers
from service.softmax.kernels.addresses import describe_arrays, numbers_at
from service.softmax.kernels.heads import NOT_FINITE, head_block
from service.softmax.kernels.lane_operations import STACK_BYTES, stack
from service.softmax.kernels.matmul import linear_row
from service.softmax.kernels.single_mixture import predict_experts
from service.softmax.kernels.single_sparse import describe_row, predict_sparse, write_sparse
from service.softmax.kernels.stages import stage_row

ROW, FEATURES, PANELS, COUNT, WIDTH, PROBABILITIES, CLASSES, LOGITS, HEAD, ITEMSIZE = range(10)
STAGES, STAGINGS, STAGED, EXPERTS, SPARSE, CELLS = range(10, 16)


class SingleRowPlan:
    """The buffers for single rows of one model. Not thread-safe.

    Args:
        panels: The packed weights (C, F + 1, V L); F is N, or S N with stages.
        stagings: (S, 2 N + 1), the numbers of the stages.
        head: The head's code.
        n_logits: K.
        n_classes: The columns of P.
        experts: The arrays of a mixture, from `dense` to `frequencies`; none for a linear model.

    Attributes:
        X: The row (1, N).
        P: Its probabilities (1, n_classes).
        panels: As given.
        stagings: As given.
        cells: The plan; kernels take its address.
    """

    def __init__(
        self,
        panels: Floats,
        stagings: Floats,
        head: int,
        n_logits: int,
        n_classes: int,
        *,
        experts: tuple[NDArray[Any], ...] = (),
    ) -> None:
        count, rows, width = panels.shape
        n_features = (rows - 1) // max(1, len(stagings))
        self.X: Final = np.zeros((1, n_features), panels.dtype)
        self.P: Final = np.zeros((1, n_classes), panels.dtype)
        staged = np.zeros((1, rows - 1), panels.dtype)
        described = describe_arrays(experts)
        self.panels: Final = panels
        self.stagings: Final = stagings
        self._referenced: Final = (staged, experts, described)  # `cells` has only the addresses of all arrays
        self.cells: Final = np.zeros(CELLS, np.int64)
        arrays = {ROW: self.X, PANELS: panels, PROBABILITIES: self.P, STAGINGS: stagings, STAGED: staged}
        self.cells[list(arrays)] = [array.ctypes.data for array in arrays.values()]
        self.cells[[FEATURES, COUNT, WIDTH, CLASSES, LOGITS]] = n_features, count, width, n_classes, n_logits
        self.cells[[HEAD, ITEMSIZE, STAGES]] = head, panels.itemsize, len(stagings)
        self.cells[EXPERTS] = described.ctypes.data if experts else 0

    @staticmethod
    def fits(panels: Floats) -> bool:
        """Whether a row's logits fit into `stack`."""
        return panels.shape[0] * panels.shape[2] * panels.itemsize <= STACK_BYTES


class SparseRowPlan:
    """The buffers for single rows of one sparse model. Not thread-safe.

    Args:
        weights: The weights, as cells (changed_rows.CELLS,).
        owner: What has the arrays of the weights, so that they live as long as the plan.
        head: The head's code.
        n_logits: K.
        n_classes: The columns of P.

    Attributes:
        P: The probabilities (1, n_classes) of the row.
        cells: The plan; kernels take its address.
    """

    def __init__(self, weights: Integers, owner: object, head: int, n_logits: int, n_classes: int) -> None:
        self.P: Final = np.zeros((1, n_classes), np.float32)
        row, *arrays = describe_row(weights)
        self._referenced: Final = (owner, row, arrays)  # `cells` has only the addresses
        self.cells: Final = np.zeros(CELLS, np.int64)
        self.cells[[PROBABILITIES, SPARSE]] = self.P.ctypes.data, row.ctypes.data
        self.cells[[CLASSES, LOGITS, HEAD, ITEMSIZE]] = n_classes, n_logits, head, self.P.itemsize


@inlined
def single_row(plan, kind):
    """The row X (1, N) of a plan, to be written; `kind` is np.float32 or np.float64, given by the plan's ITEMSIZE."""
    return carray(numbers_at(plan[ROW], kind), (1, plan[FEATURES]))


@inlined
def write_entries(plan, columns, values, count, kind):
    """Write a row of `count` entries; columns (>= count,), values (>= count,) float64. Returns whether it is finite."""
    if plan[SPARSE] != 0:
        return write_sparse(plan[SPARSE], columns, values, count, kind)
    X, finite = single_row(plan, kind), True
    X[0, :] = 0
    for e in range(count):
        X[0, columns[e]] = values[e]
        finite &= np.isfinite(X[0, columns[e]])
    return finite


@inlined
def _staged_row(plan, X, kind):
    """Write `staged` from the row X (1, N). Returns whether it is finite."""
    N, S = plan[FEATURES], plan[STAGES]
    stagings = carray(numbers_at(plan[STAGINGS], kind), (S, 2 * N + 1))
    staged = carray(numbers_at(plan[STAGED], kind), (1, S * N))
    finite = True
    for s in range(S):
        mean, inverse = stagings[s, :N], stagings[s, N : 2 * N]
        finite &= stage_row(X, 0, mean, inverse, stagings[s, 2 * N], staged, 0, s * N)
    return finite


@inlined
def predict_single(plan, kind):
    """P written from the row. Returns the label, or NOT_FINITE if a logit is not finite."""
    if plan[SPARSE] != 0:
        P = carray(numbers_at(plan[PROBABILITIES], kind), (1, plan[CLASSES]))
        return predict_sparse(plan[SPARSE], plan[HEAD], plan[LOGITS], P, kind)
    X = row = single_row(plan, kind)
    if plan[STAGES] > 0:
        if not _staged_row(plan, X, kind):
            return NOT_FINITE
        row = carray(numbers_at(plan[STAGED], kind), (1, plan[STAGES] * plan[FEATURES]))
    P = carray(numbers_at(plan[PROBABILITIES], kind), (1, plan[CLASSES]))
    Z = carray(stack(X), (1, plan[COUNT] * plan[WIDTH]))
    if plan[COUNT] > 0:
        panels = carray(numbers_at(plan[PANELS], kind), (plan[COUNT], row.shape[1] + 1, plan[WIDTH]))
        linear_row(row, panels, Z)
    if plan[EXPERTS] != 0:
        offsets = carray(stack(X), (min(1, plan[COUNT]), plan[LOGITS]))
        if plan[COUNT] > 0:
            offsets[0] = Z[0, : plan[LOGITS]]
        return predict_experts(plan[EXPERTS], X, offsets, plan[HEAD], P, kind)
    label = carray(stack(plan), 1)
    return label[0] if head_block(plan[HEAD], Z, 1, plan[LOGITS], P, 0, label, True) else NOT_FINITE
