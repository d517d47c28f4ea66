"""float64 lanes over arrays of either dtype: the fold computes its masters in float64 and serves them rounded.

load_wide(A, i, j)          A[i, j : j + 8] as eight float64 lanes, for A of either dtype
store_narrow(A, i, j, v)    the reverse: each lane rounded to A's dtype, to nearest, ties to even
root(v)                     the square root of each lane, exactly rounded as in IEEE 754
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.softmax.kernels.lanes import F64, address, call, load_vector, store_vector, suffix, vector_type

WIDE = F64.count


@intrinsic
def load_wide(_context, array, i, j):
    """Eight float64 lanes of array[i, j : j + 8]."""

    def codegen(context, builder, signature, arguments):
        a, i, j = arguments
        stored = ir.VectorType(context.get_value_type(array.dtype), WIDE)
        loaded = load_vector(builder, address(context, builder, signature.args[0], a, i, j), stored)
        return loaded if array.dtype == types.float64 else builder.fpext(loaded, vector_type(F64))

    return F64(array, types.intp, types.intp), codegen


@intrinsic
def store_narrow(_context, array, i, j, v):
    """array[i, j : j + 8] = the eight lanes of v, rounded to the array's dtype."""

    def codegen(context, builder, signature, arguments):
        a, i, j, v = arguments
        if array.dtype != types.float64:
            v = builder.fptrunc(v, ir.VectorType(context.get_value_type(array.dtype), WIDE))
        store_vector(builder, v, address(context, builder, signature.args[0], a, i, j))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, F64), codegen


@intrinsic
def root(_context, v):
    """The square root of each lane."""

    def codegen(_context, builder, _signature, arguments):
        (v,) = arguments
        return call(builder, f"llvm.sqrt.{suffix(v.type)}", v.type, [v])

    return v(v), codegen
