"""The block-diagonal online Newton step: one inverse curvature matrix per class.

    x (1, >= D)      the learned features, x_0 = 1 for the bias; zeros past D up to a whole vector
    P (K, S)         the lower half of K symmetric matrices (D, D), in the layout below
    U (K, >= D)      written: P_k x for each class k

For class k with the probability p, the error e = p - y and the importance h of a row (Hazan, Agarwal & Kale,
"Logarithmic regret algorithms for online convex optimization", 2007, section 3.2, with the curvature of the logistic
loss in place of their constant):

    w = h max(p (1 - p), floor, pull |e|)             the curvature that the row adds
    u = P x,  q = x^T u,  den = 1 / w + q
    P <- (1 - f) (P - u u^T / den) + f P_0            Sherman & Morrison; f keeps P from reaching 0, see below
    W_k <- W_k - rate h e u / (w den)                 u / (w den) is the new P times x, before the second term

f = forget (1 + surprise e^4), at most 1/2. P falls as rows add up, and with it the step. A small constant part of f
keeps a lower bound on P. A badly wrong row returns P further, so that a change of the data is followed sooner, without
a cost before the change. Digits with noise of 1, all labels rotated after 300,000 rows: the mean loss of 500 rows is
under 0.5 again after 3,600 rows, with surprise = 0 after 5,600 and with forget = 0 after 21,600; the loss before the
change is .0326, .0327 and .0347.

Row i of a matrix is stored up to the end of the vector of eight that holds its diagonal: 8 (i // 8 + 1) numbers. The
elements past the diagonal in that vector mirror others and stay equal to them bit by bit: the update is a product of
two numbers of one scaled vector, which does not depend on their order.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.arrays import Doubles
from service.softmax.kernels.lane_operations import fma, load, spread, store
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.wide import WIDE


def stored_size(D: int) -> int:
    """Return the number S of stored elements of a symmetric (D, D) matrix."""
    return sum(WIDE * (i // WIDE + 1) for i in range(D))


def curvature_start(P: Doubles, D: int, diagonal: float) -> None:
    """Set matrices P (K, S) of zeros to `diagonal` times the identity."""
    for i in range(D):
        P[:, stored_size(i) + i] = diagonal


@inlined
def _row_product(P, k, row, i, x, U, sums):
    """Row i of a product: sums[0, i] = its own part, U += its mirrored part. Returns the start of the next row."""
    block = i - i % WIDE
    x_i = spread(load(x, 0, 0), x[0, i])
    products = x_i - x_i
    for j in range(0, block, WIDE):
        p = load(P, k, row + j)
        products = fma(p, load(x, 0, j), products)
        store(U, k, j, fma(p, x_i, load(U, k, j)))
    sums[0, i] = total(fma(load(P, k, row + block), load(x, 0, block), products))
    return row + block + WIDE


@inlined
def _four_rows_product(P, k, row, i, x, U, sums):
    """_row_product of rows i to i + 3 of one block, with the same order in each sum: U is read and written once."""
    block = i - i % WIDE
    size = block + WIDE
    x_0, x_1 = spread(load(x, 0, 0), x[0, i]), spread(load(x, 0, 0), x[0, i + 1])
    x_2, x_3 = spread(x_0, x[0, i + 2]), spread(x_0, x[0, i + 3])
    s_0 = s_1 = s_2 = s_3 = x_0 - x_0
    for j in range(0, block, WIDE):
        x_j, u = load(x, 0, j), load(U, k, j)
        p_0, p_1 = load(P, k, row + j), load(P, k, row + size + j)
        p_2, p_3 = load(P, k, row + 2 * size + j), load(P, k, row + 3 * size + j)
        s_0, s_1, s_2, s_3 = fma(p_0, x_j, s_0), fma(p_1, x_j, s_1), fma(p_2, x_j, s_2), fma(p_3, x_j, s_3)
        store(U, k, j, fma(p_3, x_3, fma(p_2, x_2, fma(p_1, x_1, fma(p_0, x_0, u)))))
    x_j = load(x, 0, block)
    sums[0, i] = total(fma(load(P, k, row + block), x_j, s_0))
    sums[0, i + 1] = total(fma(load(P, k, row + size + block), x_j, s_1))
    sums[0, i + 2] = total(fma(load(P, k, row + 2 * size + block), x_j, s_2))
    sums[0, i + 3] = total(fma(load(P, k, row + 3 * size + block), x_j, s_3))
    return row + 4 * size


@inlined
def newton_product(P, k, x, D, U, sums):
    """U[k, :D] = P_k x; sums (1, >= D) is scratch with zeros past D. Returns x^T P_k x."""
    zero = spread(load(x, 0, 0), 0.0)
    for j in range(0, U.shape[1], WIDE):
        store(U, k, j, zero)
    row = i = 0
    while i < D:
        if D - i >= 4:
            row = _four_rows_product(P, k, row, i, x, U, sums)
            i += 4
        else:
            row = _row_product(P, k, row, i, x, U, sums)
            i += 1
    q = zero
    for j in range(0, U.shape[1], WIDE):
        u = load(U, k, j) + load(sums, 0, j)
        store(U, k, j, u)
        q = fma(load(x, 0, j), u, q)
    return total(q)


@inlined
def newton_update(P, k, D, U, den, keep, refill, scaled, unit):
    """P_k = keep (P_k - u u^T / den) + refill I; scaled (1, >= D) is scratch, unit (8, 8) the identity."""
    zero = spread(load(U, k, 0), 0.0)
    factor = spread(zero, np.sqrt(keep / den))
    for j in range(0, U.shape[1], WIDE):
        store(scaled, 0, j, load(U, k, j) * factor)
    keeps, refills = spread(zero, keep), spread(zero, refill)
    row = 0
    for i in range(D):
        block = i - i % WIDE
        s_i = spread(zero, -scaled[0, i])
        for j in range(0, block, WIDE):
            store(P, k, row + j, fma(s_i, load(scaled, 0, j), load(P, k, row + j) * keeps))
        p = fma(s_i, load(scaled, 0, block), load(P, k, row + block) * keeps)
        store(P, k, row + block, fma(load(unit, i - block, 0), refills, p))
        row += block + WIDE
