"""log in lanes: its error, its bits beside log of one number, and the arrays that it writes."""

import numpy as np
import pytest

from service.softmax.kernels.exp_log import log_forward
from service.softmax.kernels.logarithm import log_lanes_forward
from tests.support.arithmetic import floats_around, largest_error
from tests.support.reference import DTYPES, Array

LOG_ULP = 2.0
GUARD = 64


def log(x: Array) -> Array:
    """Return the natural logarithm of a vector by the kernel."""
    out = np.empty((1, x.size), x.dtype)
    log_lanes_forward(np.ascontiguousarray(x).reshape(1, -1), out)
    return out[0]


def arguments(dtype: type[np.floating]) -> Array:
    """Return random normal numbers, all powers of 2, and every float where the range reduction changes."""
    rng, limits = np.random.default_rng(0), np.finfo(dtype)
    exponents = np.arange(limits.minexp, limits.maxexp)
    parts = [
        np.ldexp(rng.uniform(1, 2, 100_000), rng.choice(exponents, 100_000)),
        np.ldexp(1.0, exponents),
        rng.uniform(0.5, 2, 100_000),
        rng.uniform(1, 100, 100_000),
        1 + np.ldexp(rng.uniform(-1, 1, 100_000), rng.integers(-limits.nmant, -1, 100_000)),
        floats_around(np.array([0.5**0.5, 1.0, 2**0.5, 2.0, 8**0.5], dtype), 500),
        [limits.tiny, limits.max],
    ]
    return np.concatenate([np.asarray(part, dtype) for part in parts])


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_error(dtype: type[np.floating]) -> None:
    """log is within the stated 2 ulp of the exact value over all normal numbers, and 0 at 1."""
    x = arguments(dtype)
    assert largest_error(log(x), np.log(x.astype(np.longdouble))) < LOG_ULP
    assert log(np.ones(1, dtype))[0] == 0


def test_lanes_have_the_bits_of_one_number() -> None:
    """In float64, log in lanes has the bits of log of one number."""
    x = arguments(np.float64)
    alone = np.empty_like(x)
    log_forward(x, alone)
    assert log(x).tobytes() == alone.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_writes_no_other_memory(dtype: type[np.floating]) -> None:
    """A size that is no multiple of the lanes gives the same bits and writes no other memory."""
    x = np.random.default_rng(3).uniform(0.1, 90, 40).astype(dtype)
    alone = np.array([log(x[i : i + 1])[0] for i in range(x.size)])
    for n in range(1, 41):
        target = np.full((1, n + 2 * GUARD), np.nan, dtype)
        log_lanes_forward(x[:n].reshape(1, n).copy(), target[:, GUARD : GUARD + n])
        assert np.array_equal(target[0, GUARD : GUARD + n], alone[:n])
        assert np.isfinite(target).sum() == n
