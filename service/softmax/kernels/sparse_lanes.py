"""Vectors at an address, for rows of sparse weights; to be called in kernels.

    load_row(like, at, count)    the `count` float32 numbers at an address, as lanes of the dtype of the array `like`
    store_row(at, v)             the reverse, for float32 lanes
    load_first(A, i, j, count)   lanes A[i, j : j + count]
    prefetch(at)                 begin to read the cache line of an address into the second level of the cache

`count` is a literal. A vector of fewer lanes than in lanes.py touches nothing beyond a narrow row.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.softmax.kernels.lanes import INT32, Lanes, address, call, load_vector, store_vector, vector_type

FLOAT = ir.FloatType()


@intrinsic(prefer_literal=True)
def load_row(_context, like, at, count):
    """Lanes of the numbers at an address, in the dtype of `like`; from float32 to float64 exactly."""
    lanes = Lanes(like.dtype, count.literal_value)

    def codegen(_context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[1], FLOAT.as_pointer())
        loaded = load_vector(builder, pointer, ir.VectorType(FLOAT, lanes.count))
        return loaded if lanes.dtype == types.float32 else builder.fpext(loaded, vector_type(lanes))

    return lanes(like, types.int64, count), codegen


@intrinsic
def store_row(_context, at, v):
    """Write float32 lanes to an address."""

    def codegen(context, builder, _signature, arguments):
        at, v = arguments
        store_vector(builder, v, builder.inttoptr(at, FLOAT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, v), codegen


@intrinsic(prefer_literal=True)
def load_first(_context, array, i, j, count):
    """Lanes array[i, j : j + count]."""
    lanes = Lanes(array.dtype, count.literal_value)

    def codegen(context, builder, signature, arguments):
        a, i, j, _ = arguments
        return load_vector(builder, address(context, builder, signature.args[0], a, i, j), vector_type(lanes))

    return lanes(array, types.intp, types.intp, count), codegen


@intrinsic
def prefetch(_context, at):
    """Begin to read the cache line of an address, which may be any; nothing waits for it.

    The second level of the cache awaits more lines at the same time than the first one, and two rows of 100 columns
    with their sums do not fit into the first. So folds and predictions of 2**18 columns take a quarter less time.
    """

    def codegen(context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        # To be read, kept in the second level of the cache and above, as data.
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, INT32(0), INT32(2), INT32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
