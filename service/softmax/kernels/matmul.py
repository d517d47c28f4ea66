"""The matrix kernel: logits Z = X W + b by tiles that stay in vector registers.

    X       (B, N)          rows of features
    panels  (C, N + 1, V L) W and b packed: panel c holds classes c V L ... of every feature, V vectors of L lanes wide;
                            its first row is the bias, row j + 1 the weights of feature j; classes past K are 0
    Z       (R, >= C V L)   logits, written whole panels at a time

A tile holds T rows x G panels x V vectors of logits in registers. It starts them at the bias and adds the features in
order with one fused multiply-add each: z <- fma(x_j, w_j, z). So the additions of one logit are b, 0, 1, ..., N - 1 for
every T, G, V, batch and processor. A row gets the same bits alone and in any batch. Only T, G and V depend on the
number of registers.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from service.compiler import FAMILY, inlined, kernel
from service.softmax.arrays import Floats
from service.softmax.kernels.lane_operations import lane_count
from service.softmax.kernels.lanes import BY_DTYPE, INDEX, address, fused, load_vector, splat, store_vector, vector_type

# Tile shapes by register family. VECTORS_MAX is the width of a panel in vectors. For each panel width: the rows of the
# larger tile, of the smaller tile, and the panels of a single row's tile. AVX-512 has 32 registers of 16 float32 lanes.
# AVX2 has 16 of 8, so one vector is two registers. NEON has 32 of 4, so one vector is four.
# Measurements of other shapes: docs/benchmarks/shortfalls.md.
VECTORS_MAX = 3 if FAMILY == "avx512" else 1
ROWS_1, ROWS_2, ROWS_3 = {
    "avx512": ((16, 4, 1), (8, 2, 1), (8, 2, 1)),
    "avx2": ((6, 4, 2), (1, 1, 1), (1, 1, 1)),
    "neon": ((6, 1, 1), (1, 1, 1), (1, 1, 1)),
}.get(FAMILY, ((2, 1, 1), (1, 1, 1), (1, 1, 1)))


def pack(W: Floats, b: Floats, lanes: int = 0) -> Floats:
    """Pack W (N, K) and b (K,) of one dtype into panels (C, N + 1, V L); L = `lanes`, or the lanes of the dtype."""
    N, K = W.shape
    lanes = lanes or 64 // W.itemsize
    width = lanes * min(VECTORS_MAX, -(-K // lanes))
    count = -(-K // width)
    whole = np.zeros((N + 1, count * width), W.dtype)
    whole[0, :K], whole[1:, :K] = b, W
    return np.ascontiguousarray(whole.reshape(N + 1, count, width).swapaxes(0, 1))


def unpack(panels: Floats, K: int) -> Floats:
    """Return a copy (N + 1, K) of the bias and the weights in panels."""
    return np.array(panels.swapaxes(0, 1).reshape(panels.shape[1], -1)[:, :K], order="C")


@intrinsic(prefer_literal=True)
def tile(_context, rows, count, vectors, X, i, panels, c, Z, r):
    """Z[r : r + rows, c V L : (c + count) V L] = X[i : i + rows] times panels c to c + count.

    rows, count and vectors are literals.
    """
    T, G, V = range(rows.literal_value), range(count.literal_value), range(vectors.literal_value)
    lanes = BY_DTYPE[X.dtype]
    width = len(V) * lanes.count

    def codegen(context, builder, signature, arguments):
        _, _, _, X, i, panels, c, Z, r = arguments
        _, _, _, x_type, _, panel_type, _, z_type, _ = signature.args
        vector, zero, one = vector_type(lanes), INDEX(0), INDEX(1)
        n = builder.extract_value(context.make_array(x_type)(context, builder, X).shape, 1)
        x = [address(context, builder, x_type, X, builder.add(i, INDEX(t)), zero) for t in T]
        z = [address(context, builder, z_type, Z, builder.add(r, INDEX(t)), builder.mul(c, INDEX(width))) for t in T]
        data = context.make_array(panel_type)(context, builder, panels).data
        size = builder.mul(builder.add(n, one), INDEX(width))
        starts = [builder.gep(data, [builder.mul(builder.add(c, INDEX(g)), size)]) for g in G]

        def panel_rows(j):
            tops = [builder.gep(start, [builder.mul(j, INDEX(width))]) for start in starts]
            return [load_vector(builder, builder.gep(top, [INDEX(v * lanes.count)]), vector) for top in tops for v in V]

        U = range(len(G) * len(V))  # neighboring panels are adjacent in Z
        bias, before = panel_rows(zero), builder.block
        loop, done = builder.append_basic_block("features"), builder.append_basic_block("done")
        builder.branch(loop)  # models have at least one feature

        builder.position_at_end(loop)
        j = builder.phi(INDEX)
        sums = [[builder.phi(vector) for _ in U] for _ in T]
        following = builder.add(j, one)
        weights = panel_rows(following)
        features = [splat(builder, builder.load(builder.gep(x[t], [j])), vector) for t in T]
        results = [[fused(builder, features[t], weights[u], sums[t][u]) for u in U] for t in T]
        j.add_incoming(zero, before)
        j.add_incoming(following, loop)
        for t in T:
            for u in U:
                sums[t][u].add_incoming(bias[u], before)
                sums[t][u].add_incoming(results[t][u], loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, done)

        builder.position_at_end(done)
        for t in T:
            for u in U:
                store_vector(builder, results[t][u], builder.gep(z[t], [INDEX(u * lanes.count)]))
        return context.get_dummy_value()

    return types.void(rows, count, vectors, X, types.intp, panels, types.intp, Z, types.intp), codegen


def _panel_kernel(most, few, together, vectors):
    """A function that multiplies all rows by all panels: tiles of `most` rows, of `few` rows, then single rows.

    A single row multiplies `together` panels at once if as many are left.
    """

    @inlined
    def run(X, i, rows, panels, Z):
        c = 0
        while c < panels.shape[0]:
            count = min(together, panels.shape[0] - c)
            done = 0
            for g in range(c, c + count):
                done = 0
                while rows - done >= most:
                    tile(most, 1, vectors, X, i + done, panels, g, Z, done)
                    done += most
                while rows - done >= few:
                    tile(few, 1, vectors, X, i + done, panels, g, Z, done)
                    done += few
            for r in range(done, rows):
                if count == together:
                    tile(1, together, vectors, X, i + r, panels, c, Z, r)
                else:
                    for g in range(c, c + count):
                        tile(1, 1, vectors, X, i + r, panels, g, Z, r)
            c += count

    return run


_run_1, _run_2, _run_3 = _panel_kernel(*ROWS_1, 1), _panel_kernel(*ROWS_2, 2), _panel_kernel(*ROWS_3, 3)


@inlined
def linear_block(X, i, rows, panels, Z):
    """Z[:rows] = X[i : i + rows] W + b, every panel; Z (>= rows, C V L) is written."""
    vectors = panels.shape[2] // lane_count(panels)
    if vectors == 1:
        _run_1(X, i, rows, panels, Z)
    elif vectors == 2:
        _run_2(X, i, rows, panels, Z)
    else:
        _run_3(X, i, rows, panels, Z)


@inlined
def linear_row(X, panels, Z):
    """Z[0] = X[0] W + b of a single row, every panel; Z (>= 1, C V L) is written."""
    vectors = panels.shape[2] // lane_count(panels)
    for c in range(panels.shape[0]):
        if vectors == 1:
            tile(1, 1, 1, X, 0, panels, c, Z, 0)
        elif vectors == 2:
            tile(1, 1, 2, X, 0, panels, c, Z, 0)
        else:
            tile(1, 1, 3, X, 0, panels, c, Z, 0)


@kernel(
    "void(float32[:,::1],float32[:,:,::1],float32[:,::1])",
    "void(float64[:,::1],float64[:,:,::1],float64[:,::1])",
)
def linear_forward(X, panels, Z):
    """X (B, N), panels (C, N + 1, V L), Z (B, C V L) written: the logits of every row."""
    linear_block(X, 0, X.shape[0], panels, Z)


def multiply_matrices(A: Floats, B: Floats) -> Floats:
    """Return A (M, J) times B (J, K), J >= 1; each sum over J runs in order on every processor."""
    panels = pack(B, np.zeros(B.shape[1], B.dtype))
    out = np.empty((len(A), panels.shape[0] * panels.shape[2]), B.dtype)
    linear_forward(A, panels, out)
    return np.ascontiguousarray(out[:, : B.shape[1]])
