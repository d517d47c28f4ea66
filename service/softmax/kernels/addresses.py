"""Arrays by their address, for kernels that get a model as one number."""

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from service.softmax.arrays import Integers

# The address of an array, then its shape, filled up with ones.
ADDRESS, FIRST, SECOND, THIRD = range(4)
CELLS = 4


@intrinsic
def numbers_at(_context, at, kind):
    """A pointer to numbers of a type, such as np.float32, at an address."""
    number = kind.instance_type

    def codegen(context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(number).as_pointer())

    return types.CPointer(number)(types.int64, kind), codegen


def describe_arrays(arrays: tuple[NDArray[np.generic], ...]) -> Integers:
    """Return a row (CELLS,) for each array, which must live as long as the rows are used."""
    return np.array([[array.ctypes.data, *array.shape, *[1] * (3 - array.ndim)] for array in arrays], np.int64)
