"""log in lanes, whose bits depend on no library and no processor; exp_log.py has log of one number.

    log x = k log 2 + log m,   x = 2^k m,   sqrt(1/2) < m <= sqrt(2)

In float64 the operations of a lane are those of `log_64`, so both have the same bits. In float32, with f = m - 1:
log m = f - f^2 / 2 + f^3 q(f). The coefficients of q interpolate the exact quotient at Chebyshev nodes (computed with
60 digits; tests/softmax/kernels/test_logarithm.py measures the remaining error).

Function      domain               error
log, float32  normal numbers > 0   < 2 ulp
log, float64  normal numbers > 0   < 2 ulp

No caller passes 0, a negative number or NaN. Their results are not defined, but they are computed without an exception.
"""

from numba import types
from numba.extending import overload

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import LN2_32, LN2_32_REST, LN2_64, LN2_64_REST
from service.softmax.kernels.lane_bits import exponent, significand
from service.softmax.kernels.lane_operations import choose, fma, load, load_part, spread, store, store_part

ROOT_2 = 1.4142135623730951


@inlined
def _split(x):
    """Return m and k in each lane."""
    m, k = significand(x), exponent(x)
    root = spread(x, ROOT_2)
    return choose(m, ">", root, m * spread(x, 0.5), m), choose(m, ">", root, k + spread(x, 1.0), k)


@inlined
def _log_32(x):
    """ln x in each of 16 float32 lanes."""
    m, k = _split(x)
    f = m - spread(x, 1.0)
    z = f * f
    q = fma(spread(x, -0.079027146), f, spread(x, 0.12622654))
    q = fma(q, f, spread(x, -0.12998323))
    q = fma(q, f, spread(x, 0.14214465))
    q = fma(q, f, spread(x, -0.1664127))
    q = fma(q, f, spread(x, 0.20001046))
    q = fma(q, f, spread(x, -0.25000307))
    q = fma(q, f, spread(x, 0.3333333))
    rest = fma(k, spread(x, LN2_32_REST), fma(z * f, q, spread(x, -0.5) * z))
    return fma(k, spread(x, LN2_32), f + rest)


@inlined
def _log_64(x):
    """ln x in each of 8 float64 lanes."""
    m, k = _split(x)
    f = m - spread(x, 1.0)
    s = f / (spread(x, 2.0) + f)
    z = s * s
    q = spread(x, 0.14616585424888621989)
    q = q * z + spread(x, 0.15331710618210771568)
    q = q * z + spread(x, 0.18182889455674946039)
    q = q * z + spread(x, 0.22222211130259877029)
    q = q * z + spread(x, 0.28571428626003268742)
    q = q * z + spread(x, 0.39999999999899443233)
    q = q * z + spread(x, 0.66666666666666696883)
    return k * spread(x, LN2_64) + (f - (s * (f - z * q) - k * spread(x, LN2_64_REST)))


def log_lanes(x):
    """ln x in each lane of a vector; callable inside Numba functions only."""
    raise TypeError(f"log_lanes works on lanes inside a kernel, not on {type(x).__name__}")


@overload(log_lanes)
def _log_lanes(x):
    if x.dtype == types.float32:
        return lambda x: _log_32(x)
    return lambda x: _log_64(x)


@kernel("void(float32[:,::1],float32[:,::1])", "void(float64[:,::1],float64[:,::1])")
def log_lanes_forward(X, out):
    """X (B, N), out (B, N) written: out = ln X."""
    n = X.shape[0] * X.shape[1]
    count = 64 // X.itemsize
    whole = n - n % count
    for j in range(0, whole, count):
        store(out, 0, j, log_lanes(load(X, 0, j)))
    if whole < n:
        store_part(out, 0, whole, n - whole, log_lanes(load_part(X, 0, whole, n - whole, 1.0)))
