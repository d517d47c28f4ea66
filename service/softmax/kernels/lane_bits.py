"""Operations that move bits of lanes, to be called in kernels.

    exponent(x)            the exponent n of each lane, as a number of the same dtype: x = 2**n significand(x)
    significand(x)         the significand of each lane, 1 <= m < 2
    flip_if_odd(v, t)      -v in the lanes where t holds an odd integer (t = n + 1.5 * 2**mantissa_bits), else v
    gather(A, i, B, k, j)  lanes A[i, B[k, j : j + L]]

exponent and significand take positive normal numbers. Every operation moves bits or is exact.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.softmax.kernels.lanes import BY_DTYPE, INDEX, INT32, address, vector_type

# By the bits of a number: the bits of its mantissa, and the bias of its exponent.
MANTISSA = {32: 23, 64: 52}
BIAS = {32: 127, 64: 1023}


def _whole(vector: ir.VectorType) -> tuple[ir.VectorType, int]:
    """Return the type of integers with the size of a vector's lanes, and the bits of a lane."""
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    return ir.VectorType(INT32 if bits == 32 else INDEX, vector.count), bits


def _each(whole: ir.VectorType, number: int) -> ir.Constant:
    """Return the vector that holds an integer in each lane."""
    return ir.Constant(whole, [number] * whole.count)


@intrinsic
def exponent(_context, x):
    """The exponent of each lane, as a number."""

    def codegen(_context, builder, _signature, arguments):
        (x,) = arguments
        whole, bits = _whole(x.type)
        # With the exponent of 2**mantissa_bits and n as the mantissa, a number is 2**mantissa_bits + n. Processors
        # without AVX-512 have no instruction that converts 64-bit integers.
        head = (BIAS[bits] + MANTISSA[bits]) << MANTISSA[bits]
        biased = builder.lshr(builder.bitcast(x, whole), _each(whole, MANTISSA[bits]))
        number = builder.bitcast(builder.or_(biased, _each(whole, head)), x.type)
        return builder.fsub(number, ir.Constant(x.type, [2.0 ** MANTISSA[bits] + BIAS[bits]] * x.type.count))

    return x(x), codegen


@intrinsic
def significand(_context, x):
    """The significand of each lane, at least 1 and less than 2."""

    def codegen(_context, builder, _signature, arguments):
        (x,) = arguments
        whole, bits = _whole(x.type)
        mantissa = builder.and_(builder.bitcast(x, whole), _each(whole, (1 << MANTISSA[bits]) - 1))
        return builder.bitcast(builder.or_(mantissa, _each(whole, BIAS[bits] << MANTISSA[bits])), x.type)

    return x(x), codegen


@intrinsic
def flip_if_odd(_context, v, t):
    """-v in the lanes where the lowest bit of t is 1, else v."""

    def codegen(_context, builder, _signature, arguments):
        v, t = arguments
        whole, bits = _whole(v.type)
        sign = builder.shl(builder.bitcast(t, whole), _each(whole, bits - 1))
        return builder.bitcast(builder.xor(builder.bitcast(v, whole), sign), v.type)

    return v(v, t), codegen


@intrinsic
def gather(_context, array, i, indices, k, j):
    """Lanes array[i, indices[k, j : j + L]]; indices are int64."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i, places, k, j = arguments
        vector, zero = vector_type(lanes), INDEX(0)
        start = address(context, builder, signature.args[0], a, i, zero)
        place = address(context, builder, signature.args[2], places, k, j)
        found = ir.Constant(vector, ir.Undefined)
        for lane in range(lanes.count):
            at = builder.load(builder.gep(place, [INDEX(lane)]))
            found = builder.insert_element(found, builder.load(builder.gep(start, [at])), INT32(lane))
        return found

    return lanes(array, types.intp, indices, types.intp, types.intp), codegen
