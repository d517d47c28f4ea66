"""cos: its error, its values outside its domain, and the arrays that it writes."""

import numpy as np
import pytest

from service.softmax.kernels.cosine import COS_MAX, cos_forward
from tests.support.arithmetic import floats_around, largest_error
from tests.support.reference import DTYPES, Array

COS_ULP = 2.0
GUARD = 64


def cos(x: Array) -> Array:
    """Return the cosine of a vector by the kernel."""
    out = np.empty((1, x.size), x.dtype)
    cos_forward(np.ascontiguousarray(x).reshape(1, -1), out)
    return out[0]


def arguments(dtype: type[np.floating]) -> Array:
    """Return even, random and small arguments, and every float near a zero or an extremum of the cosine."""
    rng = np.random.default_rng(0)
    halves = np.arange(1, np.floor(COS_MAX / (np.pi / 2))) * (np.pi / 2)
    near = floats_around(halves.astype(dtype), 3)
    parts = [
        np.linspace(-COS_MAX, COS_MAX, 100_001),
        rng.uniform(-8, 8, 200_000),
        rng.uniform(-300, 300, 100_000),
        np.exp2(rng.uniform(-149, 3, 50_000)),
        near,
        -near,
    ]
    whole = np.concatenate([part.astype(dtype) for part in parts])
    return np.clip(whole, dtype(-COS_MAX), dtype(COS_MAX))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cos_error(dtype: type[np.floating]) -> None:
    """cos is within the stated 2 ulp of the exact value on its whole domain, and never larger than 1."""
    x = arguments(dtype)
    values = cos(x)
    assert largest_error(values, np.cos(x.astype(np.longdouble))) < COS_ULP
    assert np.abs(values).max() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_cos_outside_its_domain(dtype: type[np.floating]) -> None:
    """Outside the domain cos has its value at the nearest end, and is finite for infinities and NaN."""
    ends = cos(np.array([COS_MAX, -COS_MAX], dtype))
    outside = np.array([2 * COS_MAX, np.inf, np.finfo(dtype).max, -2 * COS_MAX, -np.inf, np.finfo(dtype).min], dtype)
    assert np.array_equal(cos(outside), np.repeat(ends, 3))
    assert np.isfinite(cos(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_cos_at_zero(dtype: type[np.floating]) -> None:
    """cos is exactly 1 at both zeros and at the smallest numbers of both signs."""
    tiny, small = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal
    assert np.array_equal(cos(np.array([0.0, -0.0, tiny, -tiny, small, -small], dtype)), np.ones(6, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_cos_writes_no_other_memory(dtype: type[np.floating], rows: int) -> None:
    """A size that is no multiple of the lanes gives the same bits and writes no other memory."""
    x = np.random.default_rng(2).uniform(-90, 90, rows * 40).astype(dtype)
    alone = np.array([cos(x[i : i + 1])[0] for i in range(x.size)])
    for n in range(1, 41):
        size = rows * n
        source, target = (np.full(size + 2 * GUARD, np.nan, dtype) for _ in range(2))
        source[GUARD : GUARD + size] = x[:size]
        inner = slice(GUARD, GUARD + size)
        cos_forward(source[inner].reshape(rows, n), target[inner].reshape(rows, n))
        assert np.array_equal(target[inner], alone[:size])
        assert np.isnan(np.delete(target, np.arange(GUARD, GUARD + size))).all()
