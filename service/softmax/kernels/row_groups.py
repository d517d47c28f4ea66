"""Operations on eight rows at a time: the vectors of eight rows as one value.

The operations of one row depend on each other (140 cycles from logits to probabilities), and a processor's queue holds
four such rows in sequence. With eight rows interleaved, the operands of an operation are ready when it is issued: 6 ns
a row instead of 8 with AVX-512. Each function does to every row what the function of the same name in
lane_operations.py or lane_reductions.py does to one, in the same order, so the bits are the same. `array` only gives
the dtype, and with it the number of lanes of a row.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.softmax.kernels.lanes import (
    BY_DTYPE,
    INDEX,
    INT32,
    Lanes,
    address,
    first_mask,
    load_vector,
    masked,
    splat,
    vector_type,
)

GROUP = 8
GROUPS = {types.float32: Lanes(types.float32, 16 * GROUP), types.float64: Lanes(types.float64, 8 * GROUP)}


@intrinsic
def load_group(_context, array, i):
    """The first L lanes of the rows i, ..., i + 7, one row after another."""
    group, lanes = GROUPS[array.dtype], BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i = arguments
        rows = [
            load_vector(
                builder,
                address(context, builder, signature.args[0], a, builder.add(i, INDEX(t)), INDEX(0)),
                vector_type(lanes),
            )
            for t in range(GROUP)
        ]
        while len(rows) > 1:
            both = ir.Constant(ir.VectorType(INT32, 2 * rows[0].type.count), list(range(2 * rows[0].type.count)))
            rows = [builder.shuffle_vector(rows[k], rows[k + 1], both) for k in range(0, len(rows), 2)]
        return rows[0]

    return group(array, types.intp), codegen


@intrinsic
def first_lanes_group(_context, array, v, n, fill):
    """In each row of a group the first n lanes of v, then `fill`; `array` only gives the dtype."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(_context, builder, _signature, arguments):
        _, v, n, fill = arguments
        numbers = ir.Constant(ir.VectorType(INT32, v.type.count), list(range(lanes.count)) * GROUP)
        mask = builder.icmp_signed("<", numbers, splat(builder, builder.trunc(n, INT32), numbers.type))
        return builder.select(mask, v, splat(builder, fill, v.type))

    return v(array, v, types.intp, v.dtype), codegen


def _across(builder, v, lanes, combine):
    """Combine the lanes of each row of a group in the tree of `_reduce`; every lane of a row gets the result.

    Lane i is combined with lane i xor L/2, then i xor L/4, and so on. A sum or maximum of two does not depend on their
    order.
    """
    width = lanes.count
    while width > 1:
        width //= 2
        partner = ir.Constant(ir.VectorType(INT32, v.type.count), [k ^ width for k in range(v.type.count)])
        v = combine(v, builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), partner))
    return v


@intrinsic
def highest_group(_context, array, v):
    """The largest lane of each row of a group, in all its lanes; no lane may be NaN."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(_context, builder, _signature, arguments):
        larger = lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)  # noqa: E731
        return _across(builder, arguments[1], lanes, larger)

    return v(array, v), codegen


@intrinsic
def inverse_total_group(_context, array, v):
    """1 / total of each row of a group, in all its lanes: one division for all rows."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(_context, builder, _signature, arguments):
        sums = _across(builder, arguments[1], lanes, builder.fadd)
        undefined = ir.Constant(sums.type, ir.Undefined)
        heads = ir.Constant(ir.VectorType(INT32, GROUP), [t * lanes.count for t in range(GROUP)])
        heads_only = builder.shuffle_vector(sums, undefined, heads)
        inverse = builder.fdiv(ir.Constant(heads_only.type, [1.0] * GROUP), heads_only)
        spread_out = [k // lanes.count for k in range(sums.type.count)]
        return builder.shuffle_vector(
            inverse,
            ir.Constant(heads_only.type, ir.Undefined),
            ir.Constant(ir.VectorType(INT32, len(spread_out)), spread_out),
        )

    return v(array, v), codegen


@intrinsic
def store_group(_context, array, i, n, v):
    """array[i + t, :n] = the first n lanes of row t of a group, for its rows."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i, n, v = arguments
        mask = first_mask(builder, lanes.count, n)
        align = INT32(lanes.dtype.bitwidth // 8)
        for t in range(GROUP):
            own = ir.Constant(ir.VectorType(INT32, lanes.count), [t * lanes.count + k for k in range(lanes.count)])
            row = builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), own)
            start = address(context, builder, signature.args[0], a, builder.add(i, INDEX(t)), INDEX(0))
            masked(
                builder,
                "store",
                row.type,
                ir.VoidType(),
                [row, builder.bitcast(start, row.type.as_pointer()), align, mask],
            )
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, v), codegen


@intrinsic
def first_at_group(_context, labels, r, array, p, x):
    """labels[r + t] = the index of the first lane of row t where p equals x; one must. `array` only gives the dtype."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        labels, r, _, p, x = arguments
        wide = ir.IntType(p.type.count)
        mask = builder.bitcast(builder.fcmp_ordered("==", p, x), wide)
        start = context.make_array(signature.args[0])(context, builder, labels).data
        for t in range(GROUP):
            own = builder.trunc(builder.lshr(mask, ir.Constant(wide, t * lanes.count)), ir.IntType(lanes.count))
            index = builder.cttz(builder.zext(own, INDEX), ir.Constant(ir.IntType(1), 1))
            builder.store(index, builder.gep(start, [builder.add(r, INDEX(t))]))
        return context.get_dummy_value()

    return types.void(labels, types.intp, array, p, x), codegen
