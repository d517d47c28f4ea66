"""Activations of hidden layers, and their derivatives in terms of the activation.

    Z (R, whole vectors >= K)  pre-activations of a block of rows, written in whole panels by matmul.py
    A (R, K)                   activations, written
    dA (B, K)                  the loss's derivative with respect to A; replaced by the one with respect to Z

Function   a = f(z)                                da / dz           error
relu       max(z, 0)                               1 where a > 0     exact
sigmoid    1 / (1 + e**-z), by e**-|z|             a (1 - a)         < 3 ulp, where the result is a normal number
tanh       |z| < 0.625: z + z**3 R(z**2)           (1 - a)(1 + a)    < 2 ulp
           else: sign(z) (1 - e) / (1 + e), e = e**-2|z|

The derivative of relu at 0 is taken as 0. R is the polynomial (float32) or rational function (float64) of Moshier's
Cephes library, tanhf.c and tanh.c. Near 0 the quotient would lose the digits that 1 - e cancels. The derivatives are
in Goodfellow, Bengio & Courville, Deep Learning, 2016, sections 3.10 and 6.3. A rounded activation that has reached 1
has the slope 0.
"""

import numpy as np
from numba import types
from numba.extending import overload

from service.compiler import inlined, kernel
from service.softmax.kernels.exp_log import exp_lanes
from service.softmax.kernels.heads import sigma
from service.softmax.kernels.lane_operations import (
    absolute,
    choose,
    fma,
    higher,
    lane_count,
    load,
    load_part,
    spread,
    store,
    store_part,
)
from service.softmax.kernels.lane_reductions import all_below

RELU, SIGMOID, TANH = 0, 1, 2
# Below this tanh is a polynomial.
TANH_SMALL = 0.625


@inlined
def _tanh_ratio_32(s):
    """(tanh(z) / z - 1) / z**2 of s = z**2 < 0.625**2, float32."""
    q = fma(spread(s, -5.70498872745e-3), s, spread(s, 2.06390887954e-2))
    q = fma(q, s, spread(s, -5.37397155531e-2))
    q = fma(q, s, spread(s, 1.33314422036e-1))
    return fma(q, s, spread(s, -3.33332819422e-1))


@inlined
def _tanh_ratio_64(s):
    """(tanh(z) / z - 1) / z**2 of s = z**2 < 0.625**2, float64."""
    p = fma(spread(s, -9.64399179425052238628e-1), s, spread(s, -9.92877231001918586564e1))
    p = fma(p, s, spread(s, -1.61468768441708447952e3))
    q = fma(s + spread(s, 1.12811678491632931402e2), s, spread(s, 2.23548839060100448583e3))
    q = fma(q, s, spread(s, 4.84406305325125486048e3))
    return p / q


def _tanh_ratio(s):
    """The ratio for the dtype of s; callable inside Numba functions only."""
    raise TypeError(f"_tanh_ratio works on lanes inside a kernel, not on {type(s).__name__}")


@overload(_tanh_ratio)
def _overload_tanh_ratio(s):
    if s.dtype == types.float32:
        return lambda s: _tanh_ratio_32(s)
    return lambda s: _tanh_ratio_64(s)


@inlined
def tanh_lanes(z):
    """tanh(z) in each lane."""
    one, zero, size = spread(z, 1.0), spread(z, 0.0), absolute(z)
    e = exp_lanes(spread(z, -2.0) * size)
    large = (one - e) / (one + e)
    large = choose(z, ">=", zero, large, zero - large)
    # A large lane overflows in the polynomial; the NaN that results is not chosen.
    small = fma(z * (z * z), _tanh_ratio(z * z), z)
    return choose(size, "<", spread(z, TANH_SMALL), small, large)


@inlined
def relu_lanes(z):
    """max(z, 0) in each lane."""
    return higher(z, spread(z, 0.0))


@inlined
def times_slope(code, a, d):
    """d f'(z) in each lane, given the activation a = f(z)."""
    one = spread(a, 1.0)
    if code == RELU:
        return choose(a, ">", spread(a, 0.0), d, spread(a, 0.0))
    if code == SIGMOID:
        return d * (a * (one - a))
    return d * ((one - a) * (one + a))


def _rows_kernel(function):
    """A function that applies an activation to rows. Each gets its own loop, which keeps its constants in registers."""

    @inlined
    def run(Z, rows, K, A):
        lanes = lane_count(Z)
        rest = K % lanes
        whole = K - rest
        # A finite number times 0 is 0, any other gives NaN. The values past K are 0.
        probe = spread(load(Z, 0, 0), 0.0)
        for r in range(rows):
            for j in range(0, whole, lanes):
                z = load(Z, r, j)
                probe = fma(z, spread(z, 0.0), probe)
                store(A, r, j, function(z))
            if rest > 0:
                z = load(Z, r, whole)
                probe = fma(z, spread(z, 0.0), probe)
                store_part(A, r, whole, rest, function(z))
        return all_below(probe, np.inf)

    return run


_relu_rows, _sigmoid_rows, _tanh_rows = _rows_kernel(relu_lanes), _rows_kernel(sigma), _rows_kernel(tanh_lanes)


@inlined
def activation_block(code, Z, rows, K, A):
    """A[:rows] = f(Z[:rows, :K]). Returns whether every pre-activation is finite."""
    if code == RELU:
        return _relu_rows(Z, rows, K, A)
    if code == SIGMOID:
        return _sigmoid_rows(Z, rows, K, A)
    return _tanh_rows(Z, rows, K, A)


@kernel(
    "boolean(float32[:,::1],int64,float32[:,::1])",
    "boolean(float64[:,::1],int64,float64[:,::1])",
)
def activation_forward(Z, code, A):
    """Z (B, whole vectors >= K), A (B, K) written: A = f(Z). Returns whether every pre-activation is finite."""
    return activation_block(code, Z, A.shape[0], A.shape[1], A)


@kernel("void(float32[:,::1],int64,float32[:,::1])", "void(float64[:,::1],int64,float64[:,::1])")
def activation_backward(A, code, dA):
    """A (B, K), dA (B, K) in and out: dA becomes dA f'(z), the derivative with respect to the pre-activations."""
    n, lanes = A.shape[0] * A.shape[1], lane_count(A)
    whole = n - n % lanes
    for j in range(0, whole, lanes):
        store(dA, 0, j, times_slope(code, load(A, 0, j), load(dA, 0, j)))
    if whole < n:
        rest = n - whole
        d = times_slope(code, load_part(A, 0, whole, rest, 0.0), load_part(dA, 0, whole, rest, 0.0))
        store_part(dA, 0, whole, rest, d)
