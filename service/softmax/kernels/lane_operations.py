"""Loads, stores and lane-wise operations on vectors, to be called in kernels.

    load(A, i, j)            lanes A[i, j : j + L]
    load_part(A, i, j, n, f) the same for the first n lanes, the others are f; reads nothing past them
    first_lanes(v, n, f)     the first n lanes of v, the others are f
    lane_count(A)            L, the lanes of a vector of A's dtype
    store, store_part        the reverse of load and load_part
    stack(A)                 4 KiB of scratch on the stack, as a pointer to A's dtype
    spread(like, x)          every lane is x, in the type of `like`
    a + b, a - b, a * b, a / b, fma(a, b, c) = a * b + c rounded once
    lower, higher            lane-wise minimum and maximum; neither operand may be NaN
    choose(a, op, b, x, y)   lane-wise x where a <op> b, else y

Every operation is exactly rounded by IEEE 754 (+ - * / fma min max compare) or moves bits, so it gives the same bits
on every processor. LLVM fuses a multiplication and an addition only where `fma` is written, because no fast-math flag
is ever set. lane_reductions.py reduces a vector to one number.
"""

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from service.softmax.kernels.lanes import (
    BY_DTYPE,
    INDEX,
    INT32,
    Lanes,
    address,
    call,
    first_mask,
    fused,
    load_vector,
    masked,
    splat,
    store_vector,
    suffix,
    vector_type,
)

STACK_BYTES = 4096


@intrinsic
def load(_context, array, i, j):
    """Lanes array[i, j : j + L]."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i, j = arguments
        return load_vector(builder, address(context, builder, signature.args[0], a, i, j), vector_type(lanes))

    return lanes(array, types.intp, types.intp), codegen


@intrinsic
def load_part(_context, array, i, j, n, fill):
    """Lanes array[i, j : j + n], then `fill`; memory past the n-th is not read."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i, j, n, fill = arguments
        vector = vector_type(lanes)
        pointer = builder.bitcast(address(context, builder, signature.args[0], a, i, j), vector.as_pointer())
        align = INT32(lanes.dtype.bitwidth // 8)
        mask, rest = first_mask(builder, lanes.count, n), splat(builder, fill, vector)
        return masked(builder, "load", vector, vector, [pointer, align, mask, rest])

    return lanes(array, types.intp, types.intp, types.intp, lanes.dtype), codegen


@intrinsic
def first_lanes(_context, v, n, fill):
    """The first n lanes of v, then `fill`."""

    def codegen(_context, builder, _signature, arguments):
        v, n, fill = arguments
        return builder.select(first_mask(builder, v.type.count, n), v, splat(builder, fill, v.type))

    return v(v, types.intp, v.dtype), codegen


@intrinsic
def lane_count(_context, array):
    """The number of lanes in a vector of the array's dtype, as a constant of the compiled code."""
    lanes = BY_DTYPE[array.dtype]
    return types.intp(array), lambda _c, _b, _s, _a: INDEX(lanes.count)


@intrinsic
def stack(_context, like):
    """4 KiB of the calling function's stack, as a pointer to the dtype of `like`; its content is undefined."""

    def codegen(context, builder, signature, _arguments):
        element = context.get_value_type(signature.return_type.dtype)
        with builder.goto_entry_block():
            space = builder.alloca(ir.ArrayType(element, STACK_BYTES * 8 // signature.return_type.dtype.bitwidth))
        return builder.bitcast(space, element.as_pointer())

    return types.CPointer(like.dtype)(like), codegen


@intrinsic
def store(_context, array, i, j, v):
    """array[i, j : j + L] = v."""

    def codegen(context, builder, signature, arguments):
        a, i, j, v = arguments
        store_vector(builder, v, address(context, builder, signature.args[0], a, i, j))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, v), codegen


@intrinsic
def store_part(_context, array, i, j, n, v):
    """array[i, j : j + n] = the first n lanes of v; memory past the n-th is not written."""

    def codegen(context, builder, signature, arguments):
        a, i, j, n, v = arguments
        pointer = builder.bitcast(address(context, builder, signature.args[0], a, i, j), v.type.as_pointer())
        align = INT32(signature.args[4].dtype.bitwidth // 8)
        masked(builder, "store", v.type, ir.VoidType(), [v, pointer, align, first_mask(builder, v.type.count, n)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, v), codegen


@intrinsic
def spread(_context, like, x):
    """Every lane is x, in the lanes type of `like`."""

    def codegen(_context, builder, _signature, arguments):
        return splat(builder, arguments[1], arguments[0].type)

    return like(like, like.dtype), codegen


@intrinsic
def add(_context, a, b):
    """a + b in each lane."""
    return a(a, b), lambda _c, builder, _s, arguments: builder.fadd(*arguments)


@intrinsic
def subtract(_context, a, b):
    """a - b in each lane."""
    return a(a, b), lambda _c, builder, _s, arguments: builder.fsub(*arguments)


@intrinsic
def multiply(_context, a, b):
    """a * b in each lane."""
    return a(a, b), lambda _c, builder, _s, arguments: builder.fmul(*arguments)


@intrinsic
def divide(_context, a, b):
    """a / b in each lane."""
    return a(a, b), lambda _c, builder, _s, arguments: builder.fdiv(*arguments)


@overload(operator.add)
def _add(a, b):
    if isinstance(a, Lanes):
        return lambda a, b: add(a, b)
    return None


@overload(operator.sub)
def _subtract(a, b):
    if isinstance(a, Lanes):
        return lambda a, b: subtract(a, b)
    return None


@overload(operator.mul)
def _multiply(a, b):
    if isinstance(a, Lanes):
        return lambda a, b: multiply(a, b)
    return None


@overload(operator.truediv)
def _divide(a, b):
    if isinstance(a, Lanes):
        return lambda a, b: divide(a, b)
    return None


@intrinsic
def fma(_context, a, b, c):
    """a * b + c in each lane, rounded once."""
    return a(a, b, c), lambda _c, builder, _s, arguments: fused(builder, *arguments)


@intrinsic
def higher(_context, a, b):
    """The larger of a and b in each lane; the bits of b where they are equal."""

    def codegen(_context, builder, _signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return a(a, b), codegen


@intrinsic
def lower(_context, a, b):
    """The smaller of a and b in each lane; the bits of b where they are equal."""

    def codegen(_context, builder, _signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), a, b)

    return a(a, b), codegen


@intrinsic(prefer_literal=True)
def choose(_context, a, op, b, x, y):
    """x in the lanes where a <op> b holds, y elsewhere; op is a literal "<", "<=", ">=" or ">"."""

    def codegen(_context, builder, _signature, arguments):
        a, _, b, x, y = arguments
        return builder.select(builder.fcmp_ordered(op.literal_value, a, b), x, y)

    return x(a, op, b, x, y), codegen


@intrinsic
def absolute(_context, a):
    """|a| in each lane: the sign bit cleared."""

    def codegen(_context, builder, _signature, arguments):
        (a,) = arguments
        return call(builder, f"llvm.fabs.{suffix(a.type)}", a.type, [a])

    return a(a), codegen


@intrinsic
def times_power_of_two(_context, p, t):
    """p * 2**n, where the low bits of t's mantissa hold the integer n (t = n + 1.5 * 2**mantissa_bits).

    The exponent field of p is moved by n as an integer; p and the product must be normal numbers.
    """

    def codegen(_context, builder, _signature, arguments):
        p, t = arguments
        single = isinstance(p.type.element, ir.FloatType)
        whole = ir.VectorType(INT32 if single else INDEX, p.type.count)
        shift = ir.Constant(whole, [23 if single else 52] * p.type.count)
        moved = builder.add(builder.bitcast(p, whole), builder.shl(builder.bitcast(t, whole), shift))
        return builder.bitcast(moved, p.type)

    return p(p, t), codegen
