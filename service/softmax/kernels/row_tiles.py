"""Products of float32 rows and float64 weights by tiles of registers, for the gradient of a training objective.

    X      (B, N)     float32 rows
    tail   (GROUP, 8) float32, the last N % 8 columns of each row of a group and then zeros; all zeros if N % 8 is 0
    W, G   (K, S)     float64, S is N rounded up to a multiple of 8; weights, and sums of the gradient
    Z, R   (K, GROUP) float64, logits without the bias, and residuals, of a group of rows

The lanes of a vector are eight neighboring columns, so a row is read as it is stored, whatever the number of classes.
A logit is the sum over columns of eight lanes, which are added in a fixed tree. Each element of G is a sum in the order
of rows. A tile holds more sums in registers, but no sum depends on the shape of a tile, which follows the processor.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.compiler import FAMILY, inlined
from service.softmax.kernels.lane_operations import load
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.lanes import F64, INDEX, address, fused, load_vector, splat, store_vector, vector_type

GROUP = 64
LANES = F64.count
# Sums of a tile: rows and classes of logits, and classes and vectors of columns of the gradient. AVX-512 has 32
# registers of 8 lanes, AVX2 16 of 4, others have 16 or 32 of 2.
LOGIT_ROWS, LOGIT_CLASSES = (4, 4) if FAMILY == "avx512" else (4, 1)
SUM_CLASSES, SUM_VECTORS = (4, 4) if FAMILY == "avx512" else (1, 4)


def _load_single(builder, pointer):
    """Emit the load of eight float32 numbers as float64 lanes."""
    loaded = load_vector(builder, pointer, ir.VectorType(ir.FloatType(), LANES))
    return builder.fpext(loaded, vector_type(F64))


@intrinsic(prefer_literal=True)
def logit_tile(_context, rows, classes, X, i, tail, t, whole, W, k, sums):
    """The products of rows X[i + t : i + t + rows] and weights W[k : k + classes], by lanes of columns.

    sums (>= rows classes, 8) is written: row r classes + c has the lanes of row t + r and class k + c. rows and classes
    are literals; whole is N - N % 8.
    """
    T, C = range(rows.literal_value), range(classes.literal_value)

    def codegen(context, builder, signature, arguments):
        _, _, X, i, tail, t, whole, W, k, out = arguments
        _, _, x_type, _, tail_type, _, _, w_type, _, out_type = signature.args
        zero, vector = INDEX(0), vector_type(F64)
        size = builder.extract_value(context.make_array(w_type)(context, builder, W).shape, 1)
        number = [builder.add(t, INDEX(r)) for r in T]
        x = [address(context, builder, x_type, X, builder.add(i, row), zero) for row in number]
        w = [address(context, builder, w_type, W, builder.add(k, INDEX(c)), zero) for c in C]
        last = builder.sub(size, INDEX(LANES))
        ends = [_load_single(builder, address(context, builder, tail_type, tail, row, zero)) for row in number]
        weights = [load_vector(builder, builder.gep(w[c], [last]), vector) for c in C]
        starts = [[builder.fmul(ends[r], weights[c]) for c in C] for r in T]
        before = builder.block
        loop, body = builder.append_basic_block("columns"), builder.append_basic_block("products")
        done = builder.append_basic_block("sums")
        builder.branch(loop)

        builder.position_at_end(loop)
        j = builder.phi(INDEX)
        sums = [[builder.phi(vector) for _ in C] for _ in T]
        builder.cbranch(builder.icmp_signed("<", j, whole), body, done)

        builder.position_at_end(body)
        weights = [load_vector(builder, builder.gep(w[c], [j]), vector) for c in C]
        values = [_load_single(builder, builder.gep(x[r], [j])) for r in T]
        results = [[fused(builder, values[r], weights[c], sums[r][c]) for c in C] for r in T]
        j.add_incoming(zero, before)
        j.add_incoming(builder.add(j, INDEX(LANES)), body)
        for r in T:
            for c in C:
                sums[r][c].add_incoming(starts[r][c], before)
                sums[r][c].add_incoming(results[r][c], body)
        builder.branch(loop)

        builder.position_at_end(done)
        for r in T:
            for c in C:
                place = address(context, builder, out_type, out, INDEX(r * len(C) + c), zero)
                store_vector(builder, sums[r][c], place)
        return context.get_dummy_value()

    index = types.intp
    return types.void(rows, classes, X, index, tail, index, index, W, index, sums), codegen


@intrinsic(prefer_literal=True)
def sum_tile(_context, classes, vectors, X, i, j, rows, R, k, G, at):
    """G[k : k + classes, at : at + 8 vectors] += sum over t of R[k :, t] X[i + t, j : j + 8 vectors].

    classes and vectors are literals; rows >= 1.
    """
    C, U = range(classes.literal_value), range(vectors.literal_value)

    def codegen(context, builder, signature, arguments):
        _, _, X, i, j, rows, R, k, G, at = arguments
        _, _, x_type, _, _, _, r_type, _, g_type, _ = signature.args
        zero, vector = INDEX(0), vector_type(F64)
        width = builder.extract_value(context.make_array(x_type)(context, builder, X).shape, 1)
        x = address(context, builder, x_type, X, i, j)
        r = [address(context, builder, r_type, R, builder.add(k, INDEX(c)), zero) for c in C]
        tops = [address(context, builder, g_type, G, builder.add(k, INDEX(c)), at) for c in C]
        g = [[builder.gep(top, [INDEX(u * LANES)]) for u in U] for top in tops]
        starts = [[load_vector(builder, g[c][u], vector) for u in U] for c in C]
        before = builder.block
        loop, done = builder.append_basic_block("rows"), builder.append_basic_block("sums")
        builder.branch(loop)

        builder.position_at_end(loop)
        t = builder.phi(INDEX)
        sums = [[builder.phi(vector) for _ in U] for _ in C]
        row = builder.gep(x, [builder.mul(t, width)])
        values = [_load_single(builder, builder.gep(row, [INDEX(u * LANES)])) for u in U]
        residuals = [splat(builder, builder.load(builder.gep(r[c], [t])), vector) for c in C]
        results = [[fused(builder, values[u], residuals[c], sums[c][u]) for u in U] for c in C]
        following = builder.add(t, INDEX(1))
        t.add_incoming(zero, before)
        t.add_incoming(following, loop)
        for c in C:
            for u in U:
                sums[c][u].add_incoming(starts[c][u], before)
                sums[c][u].add_incoming(results[c][u], loop)
        builder.cbranch(builder.icmp_signed("<", following, rows), loop, done)

        builder.position_at_end(done)
        for c in C:
            for u in U:
                store_vector(builder, results[c][u], g[c][u])
        return context.get_dummy_value()

    index = types.intp
    return types.void(classes, vectors, X, index, index, index, R, index, G, index), codegen


@inlined
def copy_tail(X, i, rows, whole, tail):
    """Copy the columns from `whole` on of a group's rows."""
    for t in range(rows):
        for j in range(whole, X.shape[1]):
            tail[t, j - whole] = X[i + t, j]


def _logit_kernel(rows, classes):
    """A function that computes the logits of a tile."""

    @inlined
    def run(X, i, tail, t, whole, W, k, sums, Z):
        logit_tile(rows, classes, X, i, tail, t, whole, W, k, sums)
        for r in range(rows):
            for c in range(classes):
                Z[k + c, t + r] = total(load(sums, r * classes + c, 0))

    return run


_several_rows_classes, _several_rows = _logit_kernel(LOGIT_ROWS, LOGIT_CLASSES), _logit_kernel(LOGIT_ROWS, 1)
_several_classes, _one_logit = _logit_kernel(1, LOGIT_CLASSES), _logit_kernel(1, 1)


@inlined
def multiply_group(X, i, rows, tail, whole, W, sums, Z):
    """Z[:, :rows] = W times rows i to i + rows, without the bias; sums (LOGIT_ROWS LOGIT_CLASSES, 8) is scratch."""
    K, k = W.shape[0], 0
    while k < K:
        several = K - k >= LOGIT_CLASSES
        t = 0
        while rows - t >= LOGIT_ROWS:
            if several:
                _several_rows_classes(X, i, tail, t, whole, W, k, sums, Z)
            else:
                _several_rows(X, i, tail, t, whole, W, k, sums, Z)
            t += LOGIT_ROWS
        while t < rows:
            if several:
                _several_classes(X, i, tail, t, whole, W, k, sums, Z)
            else:
                _one_logit(X, i, tail, t, whole, W, k, sums, Z)
            t += 1
        k += LOGIT_CLASSES if several else 1


@inlined
def _add_columns(X, i, j, rows, R, G, at, stop):
    """G[:, at : stop] += R[:, :rows] times the columns from j on of rows i to i + rows."""
    K = G.shape[0]
    while at < stop:
        several = stop - at >= SUM_VECTORS * LANES
        k = 0
        while K - k >= SUM_CLASSES:
            if several:
                sum_tile(SUM_CLASSES, SUM_VECTORS, X, i, j, rows, R, k, G, at)
            else:
                sum_tile(SUM_CLASSES, 1, X, i, j, rows, R, k, G, at)
            k += SUM_CLASSES
        while k < K:
            if several:
                sum_tile(1, SUM_VECTORS, X, i, j, rows, R, k, G, at)
            else:
                sum_tile(1, 1, X, i, j, rows, R, k, G, at)
            k += 1
        step = SUM_VECTORS * LANES if several else LANES
        at, j = at + step, j + step


@inlined
def add_group(X, i, rows, tail, whole, R, G):
    """G += R[:, :rows] times rows i to i + rows."""
    _add_columns(X, i, 0, rows, R, G, 0, whole)
    if whole < X.shape[1]:
        _add_columns(tail, 0, 0, rows, R, G, whole, whole + LANES)
