"""exp, log and log1p: errors, limits, and the arrays that they write."""

import numpy as np
import pytest

from service.softmax.kernels.exp_log import exp_forward, log1p_forward, log_forward
from tests.support.arithmetic import floats_around, largest_error
from tests.support.reference import DTYPES, Array

# By dtype: the interval of exp, and the bound of its error in ulp, both from the table of exp_log.py.
LOW = {np.float32: -87.0, np.float64: -708.0}
HIGH = {np.float32: 88.0, np.float64: 709.0}
EXP_ULP, LOG_ULP, LOG1P_ULP = 1.5, 2.0, 3.0
GUARD = 64


def exp(x: Array) -> Array:
    """Return e**x of a vector by the kernel."""
    out = np.empty((1, x.size), x.dtype)
    exp_forward(np.ascontiguousarray(x).reshape(1, -1), out)
    return out[0]


def log(x: Array) -> Array:
    """Return the natural logarithm of a float64 vector by the kernel."""
    out = np.empty_like(x)
    log_forward(x, out)
    return out


def log1p(x: Array) -> Array:
    """Return ln(1 + x) of a float64 vector by the kernel."""
    out = np.empty_like(x)
    log1p_forward(x, out)
    return out


def breaks(dtype: type[np.floating]) -> Array:
    """Return every float near the arguments where the integer of the range reduction changes: (n + 1/2) ln 2."""
    halves = np.arange(np.ceil(LOW[dtype] / np.log(2)), np.floor(HIGH[dtype] / np.log(2))) + 0.5
    points = (halves * np.log(2)).astype(dtype)
    return floats_around(points[(points > LOW[dtype] + 0.1) & (points < HIGH[dtype] - 0.1)], 64)


def grid(dtype: type[np.floating]) -> Array:
    """Return evenly spaced, random and small arguments of exp, and those at its limits."""
    rng = np.random.default_rng(0)
    low, high = LOW[dtype], HIGH[dtype]
    magnitudes = np.exp2(rng.uniform(np.log2(np.finfo(dtype).smallest_subnormal), np.log2(-low), 100_000))
    parts = [
        np.linspace(low, high, 300_001),
        rng.uniform(low, high, 300_000),
        rng.uniform(low, 0, 300_000),
        rng.uniform(-1, 1, 100_000),
        magnitudes,
        -magnitudes,
        breaks(dtype),
        np.nextafter(np.array([low, high], dtype), dtype(0)),
    ]
    whole = np.concatenate([part.astype(dtype) for part in parts])
    return np.clip(whole, dtype(low), dtype(high))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_error(dtype: type[np.floating]) -> None:
    """exp is within the stated 1.5 ulp of the exact value on its whole interval."""
    x = grid(dtype)
    assert largest_error(exp(x), np.exp(x.astype(np.longdouble))) < EXP_ULP


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_below_its_range(dtype: type[np.floating]) -> None:
    """exp is 0 for every argument below its interval, including -inf, and positive at its limit."""
    low = dtype(LOW[dtype])
    below = np.array([np.nextafter(low, dtype(-np.inf)), low - 1, 2 * low, np.finfo(dtype).min, -np.inf], dtype)
    assert np.array_equal(exp(below), np.zeros(5, dtype))
    assert exp(np.array([low]))[0] > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_at_zero(dtype: type[np.floating]) -> None:
    """exp is exactly 1 at both zeros and at the smallest numbers of both signs."""
    tiny, small = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal
    assert np.array_equal(exp(np.array([0.0, -0.0, tiny, -tiny, small, -small], dtype)), np.ones(6, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_monotone(dtype: type[np.floating]) -> None:
    """exp never decreases, also where the range reduction changes, and is at most 1 up to 0."""
    dense = np.sort(np.concatenate([grid(dtype), floats_around(np.array([-1.0, 1.0, LOW[dtype] / 2], dtype), 5000)]))
    values = exp(dense)
    assert (np.diff(values) >= 0).all()
    assert values[dense <= 0].max() == 1


def test_log_error() -> None:
    """log is within 2 ulp over all normal numbers, near 1, and where its range reduction changes."""
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            np.ldexp(rng.uniform(1, 2, 300_000), rng.integers(-1022, 1024, 300_000)),
            np.ldexp(1.0, np.arange(-1022, 1024)),
            rng.uniform(0.5, 2, 300_000),
            1 + np.ldexp(rng.uniform(-1, 1, 100_000), rng.integers(-50, -1, 100_000)),
            floats_around(np.array([0.5**0.5, 1.0, 2**0.5, 2.0, 8**0.5]), 500),
            [np.finfo(np.float64).tiny, np.finfo(np.float64).max],
        ]
    )
    exact = np.log(x.astype(np.longdouble))
    assert largest_error(log(x), exact) < LOG_ULP
    assert log(np.array([1.0]))[0] == 0


def test_log1p_error() -> None:
    """log1p is within 3 ulp on [0, 1], also where 1 + x rounds to 1."""
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [
            np.linspace(0, 1, 300_001),
            np.exp2(rng.uniform(-1074, 0, 300_000)),
            np.exp2(rng.uniform(-60, 0, 300_000)),
            floats_around(np.array([2.0**-53, 2.0**-52, 2**0.5 - 1]), 500),
            [0.0, np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).tiny, 1.0],
        ]
    )
    assert largest_error(log1p(x), np.log1p(x.astype(np.longdouble))) < LOG1P_ULP


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_exp_writes_no_other_memory(dtype: type[np.floating], rows: int) -> None:
    """A size that is no multiple of the lanes gives the same bits and writes no other memory."""
    x = np.random.default_rng(3).uniform(-90, 5, rows * 50).astype(dtype)
    for n in range(1, 51):
        size = rows * n
        source, target = (np.full(size + 2 * GUARD, np.nan, dtype) for _ in range(2))
        source[GUARD : GUARD + size] = x[:size]
        inner = slice(GUARD, GUARD + size)
        exp_forward(source[inner].reshape(rows, n), target[inner].reshape(rows, n))
        assert np.array_equal(target[inner], np.array([exp(x[i : i + 1])[0] for i in range(size)]))
        assert np.isnan(np.delete(target, np.arange(GUARD, GUARD + size))).all()


@pytest.mark.parametrize("kernel", [log_forward, log1p_forward])
def test_logarithms_write_no_other_memory(kernel: object) -> None:
    """log and log1p write no memory outside their array."""
    assert callable(kernel)
    for n in range(1, 20):
        x, target = np.linspace(0.1, 1, n), np.full(n + 2 * GUARD, np.nan)
        kernel(x, target[GUARD : GUARD + n])
        assert np.isfinite(target).sum() == n
