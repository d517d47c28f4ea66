"""A vector of lanes as a value that Numba functions can hold, add and multiply.

Numba vectorises loops when LLVM sees fit, which differs by processor, and with it the order of a sum. Here the
vectors are written out: sixteen float32 or eight float64 lanes, one 512-bit register or several smaller ones. LLVM
splits them to the registers that the target has; the operations of one lane, and their order, stay what is written.

Every operation is exactly rounded by IEEE 754 (+ - * / fma min max compare) or moves bits, so it gives the same bits
on every processor. LLVM fuses a multiplication and an addition only where `fma` is written, because no fast-math flag
is ever set.

    load(A, i, j)            lanes A[i, j : j + L]
    load_part(A, i, j, n, f) the same for the first n lanes, the others are f; reads nothing past them
    first_lanes(v, n, f)     the first n lanes of v, the others are f
    lane_count(A)            L, the lanes of a vector of A's dtype
    store, store_part        the way back
    stack(A)                 4 KiB of scratch on the stack, as a pointer to A's dtype
    spread(like, x)          every lane is x, in the type of `like`
    a + b, a - b, a * b, a / b, fma(a, b, c) = a * b + c rounded once
    lower, higher            lane-wise minimum and maximum; neither operand may be NaN
    choose(a, op, b, x, y)   lane-wise x where a <op> b, else y
    total(v)                 the sum over lanes in one fixed tree: halves are added until one lane is left
    highest(v)               the largest lane
    first_at(v, x)           index of the first lane equal to x, or L where none is
    all_below(v, x)          whether every |lane| < x; False for NaN
"""

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

INDEX = ir.IntType(64)
INT32 = ir.IntType(32)
STACK_BYTES = 4096


class Lanes(types.Type):
    """The Numba type of one vector: `count` lanes of `dtype`."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype = dtype
        self.count = count
        super().__init__(name=f"Lanes({dtype}x{count})")


F32 = Lanes(types.float32, 16)
F64 = Lanes(types.float64, 8)
BY_DTYPE = {types.float32: F32, types.float64: F64}


def vector_type(lanes: Lanes) -> ir.VectorType:
    """Return the LLVM type of a Numba lanes type."""
    return ir.VectorType(ir.FloatType() if lanes.dtype == types.float32 else ir.DoubleType(), lanes.count)


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]  # Numba has no types
    """A vector is kept, passed and returned as the LLVM vector that it is."""

    def __init__(self, manager: object, lanes: Lanes) -> None:
        super().__init__(manager, lanes, vector_type(lanes))


def address(context, builder, array_type, array, i, j):
    """Return the LLVM pointer to array[i, j] of a C-contiguous two-dimensional array."""
    view = context.make_array(array_type)(context, builder, array)
    width = builder.extract_value(view.shape, 1)
    return builder.gep(view.data, [builder.add(builder.mul(i, width), j)])


def call(builder, name, result, arguments):
    """Call the LLVM intrinsic `name`, declaring it once in the module."""
    module = builder.module
    function = module.globals.get(name) or ir.Function(
        module, ir.FunctionType(result, [a.type for a in arguments]), name
    )
    return builder.call(function, arguments)


def suffix(vector: ir.VectorType) -> str:
    """Return what LLVM appends to an intrinsic's name for a vector type, such as "v16f32"."""
    return f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


def fused(builder, a, b, c):
    """Emit a * b + c, rounded once."""
    return call(builder, f"llvm.fma.{suffix(a.type)}", a.type, [a, b, c])


def splat(builder, scalar, vector):
    """Emit a vector of `vector`'s type whose lanes all are `scalar`."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, INT32(0))
    return builder.shuffle_vector(
        first, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(INT32, vector.count), None)
    )


def load_vector(builder, pointer, vector):
    """Emit the load of a vector from a pointer that is aligned to its elements only."""
    loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    loaded.align = 4 if isinstance(vector.element, ir.FloatType) else 8
    return loaded


def store_vector(builder, vector, pointer):
    """Emit the store of a vector to a pointer that is aligned to its elements only."""
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer())).align = (
        4 if isinstance(vector.type.element, ir.FloatType) else 8
    )


def first_mask(builder, count, n):
    """Emit the mask of the first n of `count` lanes."""
    numbers = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
    return builder.icmp_signed("<", numbers, splat(builder, builder.trunc(n, INT32), ir.VectorType(INT32, count)))


def masked(builder, name, vector, result, arguments):
    """Call a masked load or store, whose name holds the vector's and the pointer's type."""
    return call(builder, f"llvm.masked.{name}.{suffix(vector)}.p0", result, arguments)


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


def _halves(builder, v, combine):
    """Combine the two halves of v again and again, in one fixed tree, and return the lane that is left."""
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
    """The sum of all lanes: lane i and lane i + L/2 are added, and so on with what is left."""
    return v.dtype(v), lambda _c, builder, _s, arguments: _halves(builder, arguments[0], builder.fadd)


@intrinsic
def highest(_context, v):
    """The largest lane; no lane may be NaN."""

    def codegen(_context, builder, _signature, arguments):
        return _halves(builder, arguments[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return v.dtype(v), codegen


@intrinsic
def first_at(_context, v, x):
    """Index of the first lane that equals x, or the number of lanes where none does."""

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
