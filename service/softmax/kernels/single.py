"""Predict one row at a time, in reused buffers: no allocation, callable inside kernels of other rooms.

    plan      (CELLS,) int64    addresses and sizes, in the order of the constants below
    X         (1, N)            the row, written by the caller
    stagings  (S, 2 N + 1)      mean, 1 / scale and limit of each stage; S is 0 where the weights take raw rows
    staged    (1, S N)          the row as the weights take it
    P         (1, n_classes)    its probabilities, written

A call from Python costs as much as the arithmetic of a small model, and every array argument adds to it. So the kernel
that parses a row out of a request's body (serve/models/single_row.py) predicts in the same call, and gets the model as
one address. The additions of a logit are those of matmul.py, so the bits are those of `Classifier.predict`.
"""

from typing import Final

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from service.compiler import inlined
from service.softmax.arrays import Floats
from service.softmax.kernels.heads import NOT_FINITE, head_block
from service.softmax.kernels.lane_operations import STACK_BYTES, stack
from service.softmax.kernels.matmul import linear_row
from service.softmax.kernels.stages import stage_row

ROW, FEATURES, PANELS, COUNT, WIDTH, PROBABILITIES, CLASSES, LOGITS, HEAD, ITEMSIZE = range(10)
STAGES, STAGINGS, STAGED, CELLS = range(10, 14)


class SingleRowPlan:
    """The buffers for single rows of one model. Not thread-safe.

    Args:
        panels: The packed weights (C, F + 1, V L); F is N, or S N with stages.
        stagings: (S, 2 N + 1), the numbers of the stages.
        head: The head's code.
        n_logits: K.
        n_classes: The columns of P.

    Attributes:
        X: The row (1, N).
        P: Its probabilities (1, n_classes).
        cells: The plan; kernels take its address.
    """

    def __init__(self, panels: Floats, stagings: Floats, head: int, n_logits: int, n_classes: int) -> None:
        count, rows, width = panels.shape
        n_features = (rows - 1) // max(1, len(stagings))
        self.X: Final = np.zeros((1, n_features), panels.dtype)
        self.P: Final = np.zeros((1, n_classes), panels.dtype)
        staged = np.zeros((1, rows - 1), panels.dtype)
        self._referenced: Final = (panels, stagings, staged)  # `cells` has only their addresses
        self.cells: Final = np.zeros(CELLS, np.int64)
        arrays = {ROW: self.X, PANELS: panels, PROBABILITIES: self.P, STAGINGS: stagings, STAGED: staged}
        self.cells[list(arrays)] = [array.ctypes.data for array in arrays.values()]
        self.cells[[FEATURES, COUNT, WIDTH, CLASSES, LOGITS]] = n_features, count, width, n_classes, n_logits
        self.cells[[HEAD, ITEMSIZE, STAGES]] = head, panels.itemsize, len(stagings)

    @staticmethod
    def fits(panels: Floats) -> bool:
        """Whether a row's logits fit into `stack`."""
        return panels.shape[0] * panels.shape[2] * panels.itemsize <= STACK_BYTES


@intrinsic
def numbers_at(_context, at, kind):
    """A pointer to numbers of a type, such as np.float32, at an address."""
    number = kind.instance_type

    def codegen(context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(number).as_pointer())

    return types.CPointer(number)(types.int64, kind), codegen


@inlined
def single_row(plan, kind):
    """The row X (1, N) of a plan, to be written; `kind` is np.float32 or np.float64, given by the plan's ITEMSIZE."""
    return carray(numbers_at(plan[ROW], kind), (1, plan[FEATURES]))


@inlined
def predict_single(plan, kind):
    """P written from the row X. Returns the label, or NOT_FINITE if a logit is not finite."""
    X = single_row(plan, kind)
    N, S, width = plan[FEATURES], plan[STAGES], plan[WIDTH]
    if S > 0:
        stagings = carray(numbers_at(plan[STAGINGS], kind), (S, 2 * N + 1))
        staged = carray(numbers_at(plan[STAGED], kind), (1, S * N))
        for s in range(S):
            mean, inverse = stagings[s, :N], stagings[s, N : 2 * N]
            if not stage_row(X, 0, mean, inverse, stagings[s, 2 * N], staged, 0, s * N):
                return NOT_FINITE
        X = staged
    panels = carray(numbers_at(plan[PANELS], kind), (plan[COUNT], X.shape[1] + 1, width))
    P = carray(numbers_at(plan[PROBABILITIES], kind), (1, plan[CLASSES]))
    Z = carray(stack(X), (1, plan[COUNT] * width))
    label = carray(stack(plan), 1)
    linear_row(X, panels, Z)
    return label[0] if head_block(plan[HEAD], Z, 1, plan[LOGITS], P, 0, label, True) else NOT_FINITE
