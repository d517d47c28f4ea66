"""Reductions of a vector to one number, to be called in kernels.

    total(v)                 the sum over lanes in one fixed tree: halves are added until one lane is left
    highest(v)               the largest lane
    first_at(v, x)           index of the first lane equal to x, or L if there is none
    all_below(v, x)          whether every |lane| < x; False for NaN

The tree of a sum is part of the result's bits: lane i and lane i + L/2 are combined, then the halves of what is left.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.softmax.kernels.lanes import INDEX, INT32, call, splat, suffix


def _reduce(builder, v, combine):
    """Combine the two halves of v in one fixed tree until one lane is left, and return that lane."""
    width = v.type.count
    while width > 1:
        width //= 2
        undefined = ir.Constant(v.type, ir.Undefined)
        low = ir.Constant(ir.VectorType(INT32, width), list(range(width)))
        high = ir.Constant(ir.VectorType(INT32, width), list(range(width, 2 * width)))
        v = combine(builder.shuffle_vector(v, undefined, low), builder.shuffle_vector(v, undefined, high))
    return builder.extract_element(v, INT32(0))


@intrinsic
def total(_context, v):
    """The sum of all lanes: lanes i and i + L/2 are added, then the halves of the result, down to one lane."""
    return v.dtype(v), lambda _c, builder, _s, arguments: _reduce(builder, arguments[0], builder.fadd)


@intrinsic
def highest(_context, v):
    """The largest lane; no lane may be NaN."""

    def codegen(_context, builder, _signature, arguments):
        return _reduce(builder, arguments[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return v.dtype(v), codegen


@intrinsic
def first_at(_context, v, x):
    """Index of the first lane that equals x, or the number of lanes if none does."""

    def codegen(_context, builder, _signature, arguments):
        v, x = arguments
        count = v.type.count
        mask = builder.bitcast(builder.fcmp_ordered("==", v, splat(builder, x, v.type)), ir.IntType(count))
        wide = builder.or_(builder.zext(mask, INDEX), ir.Constant(INDEX, 1 << count))
        return builder.cttz(wide, ir.Constant(ir.IntType(1), 1))

    return types.intp(v, v.dtype), codegen


@intrinsic
def all_below(_context, v, x):
    """Whether |lane| < x holds in every lane; a NaN lane makes it False."""

    def codegen(_context, builder, _signature, arguments):
        v, x = arguments
        size = call(builder, f"llvm.fabs.{suffix(v.type)}", v.type, [v])
        mask = builder.bitcast(builder.fcmp_ordered("<", size, splat(builder, x, v.type)), ir.IntType(v.type.count))
        return builder.icmp_unsigned("==", mask, ir.Constant(ir.IntType(v.type.count), -1))

    return types.boolean(v, v.dtype), codegen
