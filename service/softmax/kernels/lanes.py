"""The vector type of the kernels, and the LLVM instructions that build its operations.

A `Lanes` value holds sixteen float32 or eight float64 lanes: one 512-bit register or several smaller ones. LLVM splits
it to the registers of the target. Numba's own vectorization depends on the processor, and with it the order of a sum.
Here the vectors are written out, so the operations of one lane, and their order, are those of the source.

lane_operations.py provides the operations that kernels call.
"""

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

INDEX = ir.IntType(64)
INT32 = ir.IntType(32)


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
    """Store, pass and return a vector as an LLVM vector."""

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
    """Return the suffix of an LLVM intrinsic's name for a vector type, such as "v16f32"."""
    return f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


def fused(builder, a, b, c):
    """Emit a * b + c, rounded once."""
    return call(builder, f"llvm.fma.{suffix(a.type)}", a.type, [a, b, c])


def splat(builder, scalar, vector):
    """Emit a vector of the type `vector` in which every lane is `scalar`."""
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
