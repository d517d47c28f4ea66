"""One inverse curvature matrix for all classes: its product with a row, and its update.

    x (1, D16) float32       the input, x_0 = 1 for the bias; zeros past D up to a whole vector
    P (1, S) float32         the lower half of one symmetric matrix (D, D), in the layout below
    start (1, D16) float32   the diagonal of P_0, zeros past D
    u (1, D16) float32       written: P x

    P <- (1 - f) (P - u u^T / den) + f P_0                 as in newton.py

Row i of P is stored up to the end of the vector of sixteen that holds its diagonal: 16 (i // 16 + 1) numbers. The
elements past the diagonal in that vector mirror others, bit by bit, as in newton.py.

P is read for each row, but written only for every eighth (`DELAY`). Between, it is the sum

    P = c P_stored - sum_i g_i s_i s_i^T + r P_0           s_i = u_i sqrt((1 - f_i) / den_i)

    pending (DELAY, D16) float32   s_i, zeros past D
    delayed (DELAYED,) float64     g_0, ..., g_7, then c, r, and the number of vectors that are pending

The memory that is written bounds an update of one rank; arithmetic bounds one of eight. The pending vectors are part of
the state, so the bits do not depend on the blocks in which rows come.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.arrays import Floats
from service.softmax.kernels.lane_operations import fma, load, spread, store
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.wide import WIDE, load_wide

LANES = 16
# Rows between two writes of P. At D = 321, 8 take half the time of 1 (6 and 12 microseconds on a busy machine).
DELAY = 8
# Elements of `delayed` after the weights of the pending vectors.
SCALE, REFILL, PENDING = DELAY, DELAY + 1, DELAY + 2
DELAYED = DELAY + 3


def shared_size(D: int) -> int:
    """Return the number S of stored elements of a symmetric (D, D) matrix."""
    return sum(LANES * (i // LANES + 1) for i in range(D))


def shared_start(diagonal: Floats) -> Floats:
    """Return the stored elements (1, S) of the matrix with this diagonal (D,) and zeros elsewhere."""
    P = np.zeros((1, shared_size(diagonal.size)), np.float32)
    for i in range(diagonal.size):
        P[0, shared_size(i) + i] = diagonal[i]
    return P


@inlined
def _row_product(P, row, i, x, u, sums):
    """Row i of a product: sums[0, i] = its own part, u += its mirrored part. Returns the start of the next row."""
    block = i - i % LANES
    x_i = spread(load(x, 0, 0), x[0, i])
    products = x_i - x_i
    for j in range(0, block, LANES):
        p = load(P, 0, row + j)
        products = fma(p, load(x, 0, j), products)
        store(u, 0, j, fma(p, x_i, load(u, 0, j)))
    sums[0, i] = total(fma(load(P, 0, row + block), load(x, 0, block), products))
    return row + block + LANES


@inlined
def _four_rows_product(P, row, i, x, u, sums):
    """_row_product of rows i to i + 3 of one block, with the same order in each sum: u is read and written once."""
    block = i - i % LANES
    size = block + LANES
    x_0, x_1 = spread(load(x, 0, 0), x[0, i]), spread(load(x, 0, 0), x[0, i + 1])
    x_2, x_3 = spread(x_0, x[0, i + 2]), spread(x_0, x[0, i + 3])
    s_0 = s_1 = s_2 = s_3 = x_0 - x_0
    for j in range(0, block, LANES):
        x_j, u_j = load(x, 0, j), load(u, 0, j)
        p_0, p_1 = load(P, 0, row + j), load(P, 0, row + size + j)
        p_2, p_3 = load(P, 0, row + 2 * size + j), load(P, 0, row + 3 * size + j)
        s_0, s_1, s_2, s_3 = fma(p_0, x_j, s_0), fma(p_1, x_j, s_1), fma(p_2, x_j, s_2), fma(p_3, x_j, s_3)
        store(u, 0, j, fma(p_3, x_3, fma(p_2, x_2, fma(p_1, x_1, fma(p_0, x_0, u_j)))))
    x_j = load(x, 0, block)
    sums[0, i] = total(fma(load(P, 0, row + block), x_j, s_0))
    sums[0, i + 1] = total(fma(load(P, 0, row + size + block), x_j, s_1))
    sums[0, i + 2] = total(fma(load(P, 0, row + 2 * size + block), x_j, s_2))
    sums[0, i + 3] = total(fma(load(P, 0, row + 3 * size + block), x_j, s_3))
    return row + 4 * size


@inlined
def _stored_product(P, x, D, u, sums):
    """u[0, :D] = P_stored x; sums (1, D16) is scratch with zeros past D."""
    zero = spread(load(x, 0, 0), np.float32(0.0))
    for j in range(0, u.shape[1], LANES):
        store(u, 0, j, zero)
    row = i = 0
    while i < D:
        if D - i >= 4:
            row = _four_rows_product(P, row, i, x, u, sums)
            i += 4
        else:
            row = _row_product(P, row, i, x, u, sums)
            i += 1
    for j in range(0, u.shape[1], LANES):
        store(u, 0, j, load(u, 0, j) + load(sums, 0, j))


@inlined
def shared_product(P, pending, delayed, start, x, D, u, sums):
    """u[0, :D] = P x; start (1, D16) is the diagonal of P_0. Returns x^T P x, at least 0, summed in float64."""
    _stored_product(P, x, D, u, sums)
    zero = spread(load(x, 0, 0), np.float32(0.0))
    scale, refill = spread(zero, np.float32(delayed[SCALE])), spread(zero, np.float32(delayed[REFILL]))
    for j in range(0, u.shape[1], LANES):
        store(u, 0, j, fma(refill * load(start, 0, j), load(x, 0, j), load(u, 0, j) * scale))
    for i in range(int(delayed[PENDING])):
        products = zero
        for j in range(0, u.shape[1], LANES):
            products = fma(load(pending, i, j), load(x, 0, j), products)
        factor = spread(zero, np.float32(-delayed[i]) * total(products))
        for j in range(0, u.shape[1], LANES):
            store(u, 0, j, fma(factor, load(pending, i, j), load(u, 0, j)))
    q = spread(load_wide(x, 0, 0), 0.0)
    for j in range(0, u.shape[1], WIDE):
        q = fma(load_wide(x, 0, j), load_wide(u, 0, j), q)
    return max(total(q), 0.0)


@inlined
def shared_update(P, pending, delayed, start, D, u, den, part, unit):
    """P = (1 - part) (P - u u^T / den) + part P_0; unit (16, 16) is the identity in float32."""
    keep, at = 1.0 - part, int(delayed[PENDING])
    factor = spread(load(u, 0, 0), np.float32(np.sqrt(keep / den)))
    for j in range(0, u.shape[1], LANES):
        store(pending, at, j, load(u, 0, j) * factor)
    for i in range(at):
        delayed[i] *= keep
    delayed[at] = 1.0
    delayed[SCALE] *= keep
    delayed[REFILL] = delayed[REFILL] * keep + part
    delayed[PENDING] = at + 1
    if at + 1 == DELAY:
        _write(P, pending, delayed, start, D, unit)


@inlined
def _write(P, pending, delayed, start, D, unit):
    """P_stored = P, and no vector is pending."""
    zero = spread(load(pending, 0, 0), np.float32(0.0))
    for i in range(DELAY):
        factor = spread(zero, np.float32(np.sqrt(delayed[i])))
        for j in range(0, pending.shape[1], LANES):
            store(pending, i, j, load(pending, i, j) * factor)
    scale, refill = spread(zero, np.float32(delayed[SCALE])), np.float32(delayed[REFILL])
    row = 0
    for i in range(D):
        block = i - i % LANES
        t_0, t_1 = spread(zero, -pending[0, i]), spread(zero, -pending[1, i])
        t_2, t_3 = spread(zero, -pending[2, i]), spread(zero, -pending[3, i])
        t_4, t_5 = spread(zero, -pending[4, i]), spread(zero, -pending[5, i])
        t_6, t_7 = spread(zero, -pending[6, i]), spread(zero, -pending[7, i])
        for j in range(0, block + LANES, LANES):
            p = load(P, 0, row + j) * scale
            p = fma(t_1, load(pending, 1, j), fma(t_0, load(pending, 0, j), p))
            p = fma(t_3, load(pending, 3, j), fma(t_2, load(pending, 2, j), p))
            p = fma(t_5, load(pending, 5, j), fma(t_4, load(pending, 4, j), p))
            p = fma(t_7, load(pending, 7, j), fma(t_6, load(pending, 6, j), p))
            store(P, 0, row + j, p)
        refills = spread(zero, refill * start[0, i])
        store(P, 0, row + block, fma(load(unit, i - block, 0), refills, load(P, 0, row + block)))
        row += block + LANES
    delayed[:DELAY] = 0.0
    delayed[SCALE], delayed[REFILL], delayed[PENDING] = 1.0, 0.0, 0.0
