"""One row at a time, in buffers that stay: a prediction without an allocation, inside kernels of other rooms.

    plan    (CELLS,) int64  addresses and sizes, in the order of the constants below
    X       (1, N)          the row, written by the caller
    P       (1, n_classes)  its probabilities, written

A call from Python costs as much as the arithmetic of a small model, and every array argument makes it dearer. So the
kernel that reads a row out of a request's body (serve/lone.py) predicts in the same call, and takes everything about
the model as one address. The additions of a logit are those of tile.py, so the bits are those of `Model.predict`.
"""

from typing import Any, Final

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from service.compiler import inlined
from service.softmax.functions import NOT_FINITE, head_block
from service.softmax.lanes import STACK_BYTES, stack
from service.softmax.tile import linear_row

ROW, FEATURES, PANELS, COUNT, WIDTH, PROBABILITIES, CLASSES, LOGITS, HEAD, ITEMSIZE, CELLS = range(11)


class Single:
    """The buffers of one model's lone rows. Used by one thread alone.

    Args:
        panels: The packed weights (C, N + 1, V L).
        head: The head's code.
        n_logits: K.
        n_classes: The columns of P.

    Attributes:
        X: The row (1, N).
        P: Its probabilities (1, n_classes).
        cells: The plan; kernels take its address.
    """

    def __init__(self, panels: NDArray[np.floating[Any]], head: int, n_logits: int, n_classes: int) -> None:
        count, rows, width = panels.shape
        self._panels: Final = panels  # only its address is in use, which does not keep it alive
        self.X: Final = np.zeros((1, rows - 1), panels.dtype)
        self.P: Final = np.zeros((1, n_classes), panels.dtype)
        self.cells: Final = np.zeros(CELLS, np.int64)
        self.cells[[ROW, PANELS, PROBABILITIES]] = [array.ctypes.data for array in (self.X, panels, self.P)]
        self.cells[[FEATURES, COUNT, WIDTH, CLASSES, LOGITS]] = rows - 1, count, width, n_classes, n_logits
        self.cells[[HEAD, ITEMSIZE]] = head, panels.itemsize

    @staticmethod
    def fits(panels: NDArray[np.floating[Any]]) -> bool:
        """Whether a row's logits have room on the stack."""
        return panels.shape[0] * panels.shape[2] * panels.itemsize <= STACK_BYTES


@intrinsic
def numbers_at(_context, at, kind):
    """The numbers of a kind, such as np.float32, that stand at an address, as a pointer."""
    number = kind.instance_type

    def codegen(context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(number).as_pointer())

    return types.CPointer(number)(types.int64, kind), codegen


@inlined
def single_row(plan, kind):
    """The row X (1, N) of a plan, to be written; `kind` is np.float32 or np.float64, as the plan's ITEMSIZE says."""
    return carray(numbers_at(plan[ROW], kind), (1, plan[FEATURES]))


@inlined
def predict_single(plan, kind):
    """Write P of the row that stands in X. Returns the label, or NOT_FINITE where a logit is not finite."""
    X = single_row(plan, kind)
    width = plan[WIDTH]
    panels = carray(numbers_at(plan[PANELS], kind), (plan[COUNT], plan[FEATURES] + 1, width))
    P = carray(numbers_at(plan[PROBABILITIES], kind), (1, plan[CLASSES]))
    Z = carray(stack(X), (1, plan[COUNT] * width))
    label = carray(stack(plan), 1)
    linear_row(X, panels, Z)
    return label[0] if head_block(plan[HEAD], Z, 1, plan[LOGITS], P, 0, label, True) else NOT_FINITE
