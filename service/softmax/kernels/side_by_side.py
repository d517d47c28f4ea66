"""Many rows side by side: lane r of a vector belongs to row r of a block, and each number of a row has its own vector.

    XT (F, R)        R rows, transposed; R is a whole number of vectors
    panels (C, F + 1, W)    weights as in matmul.py
    ZT (>= K, R)     written

A row whose numbers lie side by side fills few vectors, and their last lanes are empty. A block of rows fills all lanes,
and nothing is summed over lanes. Each sum runs in the order of matmul.py, so the bits are the same.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.compiler import FAMILY, inlined
from service.softmax.kernels.lane_operations import lane_count
from service.softmax.kernels.lanes import (
    BY_DTYPE,
    INDEX,
    INT32,
    address,
    fused,
    load_vector,
    splat,
    store_vector,
    vector_type,
)

# Vectors of rows in a block, and columns whose sums run together: as many as the registers can hold, and fewer.
VECTORS, MANY, FEW = (2, 8, 5) if FAMILY == "avx512" else (1, 4, 2)


@inlined
def block_rows(X):
    """R, the rows of a block for an array of the model's dtype."""
    return VECTORS * lane_count(X)


@intrinsic
def transpose(_context, array, i, j, out, k, c):
    """out[k : k + L, c : c + L] = array[i : i + L, j : j + L] transposed."""
    lanes = BY_DTYPE[array.dtype]

    def codegen(context, builder, signature, arguments):
        a, i, j, out, k, c = arguments
        L, vector = lanes.count, vector_type(lanes)
        from_type, to_type = signature.args[0], signature.args[3]
        rows = [
            load_vector(builder, address(context, builder, from_type, a, builder.add(i, INDEX(t)), j), vector)
            for t in range(L)
        ]
        d = L // 2
        while d > 0:  # exchanges one bit of the row with the same bit of the lane
            low = ir.Constant(ir.VectorType(INT32, L), [m if not m & d else m - d + L for m in range(L)])
            high = ir.Constant(ir.VectorType(INT32, L), [m + d if not m & d else m + L for m in range(L)])
            for t in range(L):
                if not t & d:
                    pair = rows[t], rows[t + d]
                    rows[t], rows[t + d] = (builder.shuffle_vector(*pair, mask) for mask in (low, high))
            d //= 2
        for t in range(L):
            store_vector(builder, rows[t], address(context, builder, to_type, out, builder.add(k, INDEX(t)), c))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, out, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def _sums(_context, count, XT, panels, c, k, ZT, z):
    """ZT[z : z + count] = XT times the columns k to k + count of panel c, plus their bias; count is a literal."""
    U, lanes = range(count.literal_value), BY_DTYPE[XT.dtype]

    def codegen(context, builder, signature, arguments):
        _, XT, panels, c, k, ZT, z = arguments
        _, x_type, panel_type, _, _, z_type, _ = signature.args
        vector, zero, one = vector_type(lanes), INDEX(0), INDEX(1)
        n = builder.extract_value(context.make_array(x_type)(context, builder, XT).shape, 0)
        view = context.make_array(panel_type)(context, builder, panels)
        rows, width = (builder.extract_value(view.shape, axis) for axis in (1, 2))
        start = builder.gep(view.data, [builder.add(builder.mul(builder.mul(c, rows), width), k)])

        def weights(j):
            top = builder.gep(start, [builder.mul(j, width)])
            return [splat(builder, builder.load(builder.gep(top, [INDEX(u)])), vector) for u in U]

        bias, before = weights(zero), builder.block
        loop, done = builder.append_basic_block("features"), builder.append_basic_block("done")
        builder.branch(loop)  # models have at least one feature

        builder.position_at_end(loop)
        j = builder.phi(INDEX)
        sums = [[builder.phi(vector) for _ in range(VECTORS)] for _ in U]
        following = builder.add(j, one)
        x = [
            load_vector(builder, address(context, builder, x_type, XT, j, INDEX(v * lanes.count)), vector)
            for v in range(VECTORS)
        ]
        w = weights(following)
        results = [[fused(builder, x[v], w[u], sums[u][v]) for v in range(VECTORS)] for u in U]
        j.add_incoming(zero, before)
        j.add_incoming(following, loop)
        for u in U:
            for v in range(VECTORS):
                sums[u][v].add_incoming(bias[u], before)
                sums[u][v].add_incoming(results[u][v], loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, done)

        builder.position_at_end(done)
        for u in U:
            for v in range(VECTORS):
                row = builder.add(z, INDEX(u))
                at = address(context, builder, z_type, ZT, row, INDEX(v * lanes.count))
                store_vector(builder, results[u][v], at)
        return context.get_dummy_value()

    return types.void(count, XT, panels, types.intp, types.intp, ZT, types.intp), codegen


@inlined
def product(XT, panels, K, ZT, z):
    """ZT[z : z + K] = W^T XT + b for the first K columns of the panels."""
    width = panels.shape[2]
    for c in range(panels.shape[0]):
        stop, k = min(width, K - c * width), 0
        while k < stop:
            top, left = z + c * width + k, stop - k
            if left >= MANY and left != 10:  # ten columns are twice five
                _sums(MANY, XT, panels, c, k, ZT, top)
                k += MANY
            elif left >= FEW:
                _sums(FEW, XT, panels, c, k, ZT, top)
                k += FEW
            else:
                _sums(1, XT, panels, c, k, ZT, top)
                k += 1
