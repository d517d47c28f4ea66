"""The matrix kernel: logits Z = X W + b by tiles that stay in vector registers.

    X       (B, N)          rows of features
    panels  (C, N + 1, V L) W and b packed: panel c holds classes c V L ... of every feature, V vectors of L lanes wide;
                            its first row is the bias, row j + 1 the weights of feature j; classes past K are 0
    Z       (R, >= C V L)   logits, written whole panels at a time

A tile holds T rows x V vectors of logits in registers, starts them at the bias, and walks the features in order with
one fused multiply-add each: z <- fma(x_j, w_j, z). So the additions of one logit are b, 0, 1, ..., N - 1 whatever T,
the batch or the processor is, and a row gets the same bits alone and in any batch. T and V follow the number of
registers, nothing else does.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from service.compiler import FAMILY, inlined, kernel
from service.softmax.lanes import (
    BY_DTYPE,
    INDEX,
    address,
    fused,
    lane_count,
    load_vector,
    splat,
    store_vector,
    vector_type,
)

# Vectors of a panel, and rows of the largest tile for each panel width, by register family. AVX-512 has 32 registers of
# 16 float32 lanes; AVX2 has 16 of 8, so that one vector is two registers; NEON 32 of 4, so that one vector is four.
VECTORS_MAX = 3 if FAMILY == "avx512" else 1
ROWS_1, ROWS_2, ROWS_3 = {"avx512": (16, 8, 8), "avx2": (6, 1, 1), "neon": (6, 1, 1)}.get(FAMILY, (2, 1, 1))


def pack(W: NDArray[np.floating], b: NDArray[np.floating], lanes: int = 0) -> NDArray[np.floating]:
    """Pack W (N, K) and b (K,) of one dtype into panels (C, N + 1, V L), see above; L = `lanes`, or the dtype's own."""
    N, K = W.shape
    lanes = lanes or 64 // W.itemsize
    width = lanes * min(VECTORS_MAX, -(-K // lanes))
    count = -(-K // width)
    whole = np.zeros((N + 1, count * width), W.dtype)
    whole[0, :K], whole[1:, :K] = b, W
    return np.ascontiguousarray(whole.reshape(N + 1, count, width).swapaxes(0, 1))


def unpack(panels: NDArray[np.floating], K: int) -> NDArray[np.floating]:
    """The bias, then the weights (N + 1, K), of panels."""
    return np.ascontiguousarray(panels.swapaxes(0, 1).reshape(panels.shape[1], -1)[:, :K])


@intrinsic(prefer_literal=True)
def tile(_context, rows, vectors, X, i, panels, c, Z, r):
    """Z[r : r + rows, c V L : (c + 1) V L] = X[i : i + rows] times panel c; rows and vectors are literals."""
    T, V = range(rows.literal_value), range(vectors.literal_value)
    lanes = BY_DTYPE[X.dtype]
    width = len(V) * lanes.count

    def codegen(context, builder, signature, arguments):
        _, _, X, i, panels, c, Z, r = arguments
        _, _, x_type, _, panel_type, _, z_type, _ = signature.args
        vector, zero, one = vector_type(lanes), INDEX(0), INDEX(1)
        n = builder.extract_value(context.make_array(x_type)(context, builder, X).shape, 1)
        x = [address(context, builder, x_type, X, builder.add(i, INDEX(t)), zero) for t in T]
        z = [address(context, builder, z_type, Z, builder.add(r, INDEX(t)), builder.mul(c, INDEX(width))) for t in T]
        panel = context.make_array(panel_type)(context, builder, panels).data
        panel = builder.gep(panel, [builder.mul(builder.mul(c, builder.add(n, one)), INDEX(width))])

        def panel_row(j):
            row = builder.gep(panel, [builder.mul(j, INDEX(width))])
            return [load_vector(builder, builder.gep(row, [INDEX(v * lanes.count)]), vector) for v in V]

        bias, before = panel_row(zero), builder.block
        loop, done = builder.append_basic_block("features"), builder.append_basic_block("done")
        builder.branch(loop)  # there is at least one feature: the safe door refuses models without

        builder.position_at_end(loop)
        j = builder.phi(INDEX)
        sums = [[builder.phi(vector) for _ in V] for _ in T]
        following = builder.add(j, one)
        weights = panel_row(following)
        features = [splat(builder, builder.load(builder.gep(x[t], [j])), vector) for t in T]
        results = [[fused(builder, features[t], weights[v], sums[t][v]) for v in V] for t in T]
        j.add_incoming(zero, before)
        j.add_incoming(following, loop)
        for t in T:
            for v in V:
                sums[t][v].add_incoming(bias[v], before)
                sums[t][v].add_incoming(results[t][v], loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, done)

        builder.position_at_end(done)
        for t in T:
            for v in V:
                store_vector(builder, results[t][v], builder.gep(z[t], [INDEX(v * lanes.count)]))
        return context.get_dummy_value()

    return types.void(rows, vectors, X, types.intp, panels, types.intp, Z, types.intp), codegen


def _panel_kernel(most, vectors):
    """A function that runs one panel over all rows, in tiles of `most`, then a quarter of that, then single rows."""
    few = max(1, most // 4)

    @inlined
    def panel(X, i, rows, panels, c, Z):
        done = 0
        while rows - done >= most:
            tile(most, vectors, X, i + done, panels, c, Z, done)
            done += most
        while rows - done >= few:
            tile(few, vectors, X, i + done, panels, c, Z, done)
            done += few
        while done < rows:
            tile(1, vectors, X, i + done, panels, c, Z, done)
            done += 1

    return panel


_panel_1, _panel_2, _panel_3 = _panel_kernel(ROWS_1, 1), _panel_kernel(ROWS_2, 2), _panel_kernel(ROWS_3, 3)


@inlined
def linear_block(X, i, rows, panels, Z):
    """Z[:rows] = X[i : i + rows] W + b, every panel; Z (>= rows, C V L) is written."""
    vectors = panels.shape[2] // lane_count(panels)
    for c in range(panels.shape[0]):
        if vectors == 1:
            _panel_1(X, i, rows, panels, c, Z)
        elif vectors == 2:
            _panel_2(X, i, rows, panels, c, Z)
        else:
            _panel_3(X, i, rows, panels, c, Z)


@kernel(
    "void(float32[:,::1],float32[:,:,::1],float32[:,::1])",
    "void(float64[:,::1],float64[:,:,::1],float64[:,::1])",
)
def linear_forward(X, panels, Z):
    """X (B, N), panels (C, N + 1, V L), Z (B, C V L) written: the logits of every row."""
    linear_block(X, 0, X.shape[0], panels, Z)
