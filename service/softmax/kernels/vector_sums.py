"""Products and sums of long vectors, in one order on every processor.

    A (M, n), B (P, n)   float64, C-contiguous; a vector is a row of a matrix

A dot product adds element i to lane i % 32, in order; four vectors of eight lanes are then added in a fixed tree. BLAS
and NumPy choose the order by the processor.
"""

from service.compiler import inlined, kernel
from service.softmax.kernels.lane_operations import fma, load, load_part, spread, store, store_part
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.wide import WIDE

STRIDE = 4 * WIDE


@inlined
def _tail_product(A, i, B, j, at, n, s):
    """Add the products of up to eight elements from `at` on to the lanes s."""
    if at >= n:
        return s
    count = min(WIDE, n - at)
    return fma(load_part(A, i, at, count, 0.0), load_part(B, j, at, count, 0.0), s)


@kernel("float64(float64[:,::1],int64,float64[:,::1],int64)")
def dot(A, i, B, j):
    """A (M, n), B (P, n). Returns the sum over e of A[i, e] B[j, e]."""
    n = A.shape[1]
    whole = n - n % STRIDE
    # The first part may be short, and what is loaded is replaced.
    first = load_part(A, i, 0, 0, 0.0)
    s_0 = s_1 = s_2 = s_3 = spread(first, 0.0)
    for e in range(0, whole, STRIDE):
        s_0 = fma(load(A, i, e), load(B, j, e), s_0)
        s_1 = fma(load(A, i, e + WIDE), load(B, j, e + WIDE), s_1)
        s_2 = fma(load(A, i, e + 2 * WIDE), load(B, j, e + 2 * WIDE), s_2)
        s_3 = fma(load(A, i, e + 3 * WIDE), load(B, j, e + 3 * WIDE), s_3)
    s_0 = _tail_product(A, i, B, j, whole, n, s_0)
    s_1 = _tail_product(A, i, B, j, whole + WIDE, n, s_1)
    s_2 = _tail_product(A, i, B, j, whole + 2 * WIDE, n, s_2)
    s_3 = _tail_product(A, i, B, j, whole + 3 * WIDE, n, s_3)
    return total((s_0 + s_1) + (s_2 + s_3))


@kernel("void(float64[:,::1],int64,float64,float64[:,::1],int64)")
def add_scaled(A, i, factor, B, j):
    """A (M, n), B (P, n): adds factor A[i] to B[j], each element rounded once."""
    n = A.shape[1]
    whole = n - n % WIDE
    f = spread(load_part(A, i, 0, 0, 0.0), factor)
    for e in range(0, whole, WIDE):
        store(B, j, e, fma(f, load(A, i, e), load(B, j, e)))
    if whole < n:
        rest = n - whole
        store_part(B, j, whole, rest, fma(f, load_part(A, i, whole, rest, 0.0), load_part(B, j, whole, rest, 0.0)))
