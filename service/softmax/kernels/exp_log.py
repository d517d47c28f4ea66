"""exp and log, whose bits depend on no library and no processor.

Both reduce their argument to a small interval and evaluate a polynomial there. They use only + - * / and fused
multiply-add. The coefficients interpolate the exact quotient at the Chebyshev nodes of that interval (computed with 60
digits; tests/softmax/kernels/test_exp_log.py measures the remaining error).

Function        domain                   error           source of the method
exp, float32    [-87, 88], below it 0    < 1.5 ulp       Cody & Waite, Software Manual for the Elementary
exp, float64    [-708, 709], below it 0  < 1.5 ulp       Functions, 1980, chapter 6
log, float64    normal numbers > 0       < 2 ulp         2 artanh((m - 1) / (m + 1)), as in Tang, ACM TOMS 16(4), 1990
log1p, float64  [0, 1]                   < 3 ulp         Kahan's correction: log(u) x / (u - 1) written as a sum

No caller passes exp an argument above the interval: each subtracts a maximum or negates an absolute value first.
No caller passes NaN to these functions (its integer form would be undefined).
"""

import numpy as np
from numba import types
from numba.extending import overload

from service.compiler import inlined, kernel
from service.softmax.kernels.lane_operations import (
    choose,
    fma,
    higher,
    load,
    load_part,
    spread,
    store,
    store_part,
    times_power_of_two,
)

LOG2_E = 1.4426950408889634
# ln 2 in two parts whose sum is exact to twice the format's precision.
LN2_32, LN2_32_REST = 0.693147182464599609375, -1.904654299957767e-09
LN2_64, LN2_64_REST = 0.6931471805599453, 2.3190468138462996e-17
# Adding 1.5 * 2**mantissa_bits rounds a small number to an integer, held in the low bits of the sum.
ROUND_32, ROUND_64 = 12582912.0, 6755399441055744.0


@inlined
def _exp_32(x):
    """e**x in each of 16 float32 lanes, x <= 88."""
    inside = higher(x, spread(x, -87.0))
    rounded = fma(inside, spread(x, LOG2_E), spread(x, ROUND_32))
    n = rounded - spread(x, ROUND_32)
    r = fma(n, spread(x, -LN2_32), inside)
    r = fma(n, spread(x, -LN2_32_REST), r)
    square = r * r
    # Estrin's scheme computes the polynomial's halves in parallel, which shortens the chain of dependent steps.
    high = fma(spread(x, 0.008363179053), r, spread(x, 0.04166655462))
    low = fma(spread(x, 0.1666657699), r, spread(x, 0.5))
    q = fma(fma(spread(x, 0.001392618359), square, high), square, low)
    p = fma(q, square, r) + spread(x, 1.0)
    return choose(x, ">=", spread(x, -87.0), times_power_of_two(p, rounded), spread(x, 0.0))


@inlined
def _exp_64(x):
    """e**x in each of 8 float64 lanes, x <= 709."""
    inside = higher(x, spread(x, -708.0))
    rounded = fma(inside, spread(x, LOG2_E), spread(x, ROUND_64))
    n = rounded - spread(x, ROUND_64)
    r = fma(n, spread(x, -LN2_64), inside)
    r = fma(n, spread(x, -LN2_64_REST), r)
    q = spread(x, 2.0914686968086877233e-9)
    q = fma(q, r, spread(x, 2.5105217004720745164e-8))
    q = fma(q, r, spread(x, 2.7557273643110295328e-7))
    q = fma(q, r, spread(x, 2.755725540020642443e-6))
    q = fma(q, r, spread(x, 0.000024801587325547741216))
    q = fma(q, r, spread(x, 0.00019841269874820625271))
    q = fma(q, r, spread(x, 0.0013888888888883748305))
    q = fma(q, r, spread(x, 0.0083333333333261351258))
    q = fma(q, r, spread(x, 0.041666666666666669755))
    q = fma(q, r, spread(x, 0.16666666666666670991))
    q = fma(q, r, spread(x, 0.5))
    p = fma(q, r * r, r) + spread(x, 1.0)
    return choose(x, ">=", spread(x, -708.0), times_power_of_two(p, rounded), spread(x, 0.0))


def exp_lanes(x):
    """e**x in each lane of a vector; callable inside Numba functions only."""
    raise TypeError(f"exp_lanes works on lanes inside a kernel, not on {type(x).__name__}")


@overload(exp_lanes)
def _exp_lanes(x):
    if x.dtype == types.float32:
        return lambda x: _exp_32(x)
    return lambda x: _exp_64(x)


@inlined
def log_64(x):
    """ln x of one positive normal float64."""
    bits = np.float64(x).view(np.int64)
    k = (bits >> 52) - 1023
    m = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    if m > 1.4142135623730951:
        m, k = m * 0.5, k + 1
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    q = 0.14616585424888621989
    q = q * z + 0.15331710618210771568
    q = q * z + 0.18182889455674946039
    q = q * z + 0.22222211130259877029
    q = q * z + 0.28571428626003268742
    q = q * z + 0.39999999999899443233
    q = q * z + 0.66666666666666696883
    # f - s * (f - z q) equals 2 s + s z q without rounding 2 s first: the leading term f keeps all its bits.
    return k * LN2_64 + (f - (s * (f - z * q) - k * LN2_64_REST))


@inlined
def log1p_64(x):
    """ln(1 + x) for 0 <= x <= 1, accurate also where 1 + x rounds x away."""
    u = 1.0 + x
    return log_64(u) + (x - (u - 1.0)) / u


@kernel("void(float32[:,::1],float32[:,::1])", "void(float64[:,::1],float64[:,::1])")
def exp_forward(X, out):
    """X (B, N), out (B, N) written: out = e**X."""
    n = X.shape[0] * X.shape[1]
    count = 64 // X.itemsize
    whole = n - n % count
    for j in range(0, whole, count):
        store(out, 0, j, exp_lanes(load(X, 0, j)))
    if whole < n:
        store_part(out, 0, whole, n - whole, exp_lanes(load_part(X, 0, whole, n - whole, 0.0)))


@kernel("void(float64[::1],float64[::1])")
def log_forward(x, out):
    """x (n,), out (n,) written: out = ln x."""
    for i in range(x.size):
        out[i] = log_64(x[i])


@kernel("void(float64[::1],float64[::1])")
def log1p_forward(x, out):
    """x (n,), out (n,) written: out = ln(1 + x)."""
    for i in range(x.size):
        out[i] = log1p_64(x[i])
