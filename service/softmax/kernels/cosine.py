"""cos, whose bits depend on no library and no processor.

    cos x = sin(pi / 2 - x) = (-1)^n sin r,   r = x - (n - 1/2) pi,   |r| <= pi / 2

n is the integer nearest to x / pi + 1/2. Three numbers, whose sum is pi, and fused multiply-adds give r with the
precision of its format, also where the cosine is close to 0 (Cody & Waite, Software Manual for the Elementary
Functions, 1980, chapter 8). Then sin r = r + r (s c + s^2 q(s)) with s = r^2, where c is -1/6 rounded. The coefficients
of q interpolate the exact quotient at the Chebyshev nodes of the interval of s (computed with 60 digits;
tests/softmax/kernels/test_cosine.py measures the remaining error).

Function      domain          error      outside the domain
cos, float32  |x| <= 2**15    < 2 ulp    the value at the nearest end
cos, float64  |x| <= 2**15    < 2 ulp    the value at the nearest end

|cos x| is never larger than 1. NaN counts as outside, so every result is finite.
"""

from numba import types
from numba.extending import overload

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import ROUND_32, ROUND_64
from service.softmax.kernels.lane_bits import flip_if_odd
from service.softmax.kernels.lane_operations import fma, higher, load, load_part, lower, spread, store, store_part

COS_MAX = 2.0**15
INVERSE_PI = 0.3183098861837907
# Three parts of pi. The product of n - 1/2 and the first part cancels the leading bits of x without rounding.
PI_32 = (3.1415927410125732, -8.742277657347586e-08, -3.430248965064353e-15)
PI_64 = (3.141592653589793, 1.2246467991473532e-16, -2.9947698097183397e-33)


@inlined
def _reduce(x, shift, pi_0, pi_1, pi_2):
    """Return r and t in each lane; the lowest bit of t is that of n."""
    inside = higher(lower(x, spread(x, COS_MAX)), spread(x, -COS_MAX))
    t = fma(inside, spread(x, INVERSE_PI), spread(x, 0.5)) + spread(x, shift)
    m = (t - spread(x, shift)) - spread(x, 0.5)
    r = fma(m, spread(x, -pi_0), inside)
    r = fma(m, spread(x, -pi_1), r)
    return fma(m, spread(x, -pi_2), r), t


@inlined
def _signed_sine(r, s, q, t):
    """(-1)^n (r + r (s c + s^2 q)). Adding the large term s c last leaves one rounding of it."""
    e = fma(s, spread(s, -1.0 / 6.0), (s * s) * q)
    return flip_if_odd(fma(r, e, r), t)


@inlined
def _cos_32(x):
    """cos x in each of 16 float32 lanes."""
    r, t = _reduce(x, ROUND_32, PI_32[0], PI_32[1], PI_32[2])
    s = r * r
    q = fma(spread(x, -3.5052818e-08), s, spread(x, 2.8088152e-06))
    q = fma(q, s, spread(x, -0.00019849883))
    q = fma(q, s, spread(x, 0.008333379))
    return _signed_sine(r, s, q, t)


@inlined
def _cos_64(x):
    """cos x in each of 8 float64 lanes."""
    r, t = _reduce(x, ROUND_64, PI_64[0], PI_64[1], PI_64[2])
    s = r * r
    q = fma(spread(x, 2.6980268158722155e-15), s, spread(x, -7.640988844846144e-13))
    q = fma(q, s, spread(x, 1.6058871837395588e-10))
    q = fma(q, s, spread(x, -2.5052105739747564e-08))
    q = fma(q, s, spread(x, 2.7557319201583154e-06))
    q = fma(q, s, spread(x, -0.00019841269841172675))
    q = fma(q, s, spread(x, 0.008333333333333153))
    return _signed_sine(r, s, q, t)


def cos_lanes(x):
    """cos x in each lane of a vector; callable inside Numba functions only."""
    raise TypeError(f"cos_lanes works on lanes inside a kernel, not on {type(x).__name__}")


@overload(cos_lanes)
def _cos_lanes(x):
    if x.dtype == types.float32:
        return lambda x: _cos_32(x)
    return lambda x: _cos_64(x)


@kernel("void(float32[:,::1],float32[:,::1])", "void(float64[:,::1],float64[:,::1])")
def cos_forward(X, out):
    """X (B, N), out (B, N) written: out = cos X."""
    n = X.shape[0] * X.shape[1]
    count = 64 // X.itemsize
    whole = n - n % count
    for j in range(0, whole, count):
        store(out, 0, j, cos_lanes(load(X, 0, j)))
    if whole < n:
        store_part(out, 0, whole, n - whole, cos_lanes(load_part(X, 0, whole, n - whole, 0.0)))
