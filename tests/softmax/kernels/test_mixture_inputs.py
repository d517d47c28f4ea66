"""The inputs of the experts of `mixture`: their values, their bits in blocks, and the running stage."""

from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.kernels.heads import BLOCK
from service.softmax.kernels.mixture_inputs import (
    CLIPS,
    STAGE_ROWS,
    feature_scale,
    inputs_block,
    inputs_scratch,
    update_stage,
)
from service.softmax.kernels.random_features import PackedFeatures, RandomFeatures, draw_features, pack_features
from tests.support.reference import DTYPES, Array

# By dtype: the largest difference to a computation in float64 that rounding explains.
TOLERANCE = {np.float32: 2e-4, np.float64: 1e-11}


class Inputs(NamedTuple):
    """The inputs of the three experts, one row for each row of X."""

    A: Array
    B: Array
    L: Array


def whole_vectors(N: int) -> int:
    """Return S, the columns of a stage of N features."""
    return -(-N // 16) * 16


def random_stage(N: int, dtype: type[np.floating], rng: np.random.Generator) -> Array:
    """Return a stage of N features, some of unknown scale."""
    stage = np.zeros((STAGE_ROWS, whole_vectors(N)), dtype)
    stage[:, :N] = [
        rng.standard_normal(N),
        rng.uniform(0.2, 3, N) * (rng.random(N) < 0.8),
        rng.uniform(1, 30, N) * (rng.random(N) < 0.8),
        rng.standard_normal(N),
        rng.uniform(0.2, 2, N) * (rng.random(N) < 0.8),
    ]
    return stage


@numba.njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]  # Numba has no types
def inputs_forward(X: Array, features: PackedFeatures, stage: Array, inputs: Inputs) -> bool:
    """Write the inputs of every row, by a stage that does not change. Returns whether all are finite."""
    clips, (A, B, L) = np.array(CLIPS, X.dtype), inputs
    scale = X.dtype.type(feature_scale(features[0].shape[0] * features[0].shape[2] + features[1].shape[1]))
    rows = min(BLOCK, X.shape[0])
    scratch = inputs_scratch(X, stage.shape[1], rows, features[0])
    a, b, c = np.zeros_like(A[:rows]), np.zeros_like(B[:rows]), np.zeros_like(L[:rows])
    finite = True
    for i in range(0, X.shape[0], BLOCK):
        count = min(BLOCK, X.shape[0] - i)
        finite &= inputs_block(X, i, count, stage, clips, features, scale, scratch, a, b, c)
        A[i : i + count], B[i : i + count] = a[:count], b[:count]
        if c.shape[0] > 0:
            L[i : i + count] = c[:count]
    return finite


def compute(X: Array, stage: Array, features: RandomFeatures) -> tuple[Inputs, bool]:
    """Return the inputs of all rows by the kernel, and whether every value is finite."""
    (B, N), dtype = X.shape, X.dtype.type
    n_sparse, M = features.sparse_bias.size, features.sparse_bias.size + features.dense_bias.size
    narrow = n_sparse > 0
    found = Inputs(
        np.full((B, M + N * narrow), np.nan, dtype),
        np.full((B, N), np.nan, dtype),
        np.full((B * narrow, N), np.nan, dtype),
    )
    return found, inputs_forward(X, pack_features(features), stage, found)


def reference(X: Array, stage: Array, features: RandomFeatures) -> Inputs:
    """Return the inputs of all rows by the formulas, in float64."""
    X, n_sparse = X.astype(np.float64), features.sparse_bias.size
    mean, inverse, factor, log_mean, log_inverse = stage.astype(np.float64)[:, : X.shape[1]]
    clip_b, clip_a, clip_l, clip_log = CLIPS
    scale = feature_scale(n_sparse + features.dense_bias.size)
    z = np.where(inverse > 0, (X - mean) * inverse, 0)
    g = np.sign(X) * np.log1p(np.abs(X) * factor)
    v, logs = (
        np.clip(z, -clip_a, clip_a),
        np.clip(np.where(log_inverse > 0, (g - log_mean) * log_inverse, 0), -clip_log, clip_log),
    )
    parts = [] if n_sparse == 0 else [v]
    parts.append(scale * np.cos(v @ features.dense.astype(np.float64) + features.dense_bias))
    for rows, which in ((v, slice(n_sparse // 2)), (logs, slice(n_sparse // 2, None))):
        index, weights = features.sparse_index[which], features.sparse_weights[which].astype(np.float64)
        parts.append(scale * np.cos((rows[:, index] * weights).sum(2) + features.sparse_bias[which]))
    L = np.clip(z, -clip_l, clip_l)
    return Inputs(np.hstack(parts), np.clip(z, -clip_b, clip_b), L if n_sparse else L[:0])


SHAPES = (
    (1, 64, True),
    (5, 64, True),
    (16, 128, True),
    (17, 64, True),
    (64, 256, True),
    (100, 64, True),
    (150, 128, False),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "M", "narrow"), SHAPES)
def test_inputs_are_those_of_the_formulas(dtype: type[np.floating], N: int, M: int, narrow: bool) -> None:  # noqa: FBT001  # a case
    """The inputs of all experts equal a computation of the formulas in float64."""
    rng = np.random.default_rng(N)
    X, stage = (3 * rng.standard_normal((70, N))).astype(dtype), random_stage(N, dtype, rng)
    X[::7] *= dtype(100)
    features = draw_features(N, N, M, narrow=narrow, dtype=dtype)
    found, finite = compute(X, stage, features)
    assert finite
    for got, exact in zip(found, reference(X, stage, features), strict=True):
        assert got.shape == exact.shape
        assert np.abs(got - exact).max(initial=0) < TOLERANCE[dtype]


@pytest.mark.parametrize(("N", "M", "narrow"), SHAPES[1:])
def test_size_of_the_features(N: int, M: int, narrow: bool) -> None:  # noqa: FBT001  # a case
    """The random features of a row have the mean square 0.3^2 256, whatever their number."""
    X = np.random.default_rng(1).standard_normal((200, N))
    stage = np.zeros((STAGE_ROWS, whole_vectors(N)))
    stage[[1, 2, 4], :N] = 1
    found, _ = compute(X, stage, draw_features(2, N, M, narrow=narrow, dtype=np.float64))
    features = found.A[:, -M:]
    assert (features**2).sum(1).mean() == pytest.approx(0.3**2 * 256, rel=0.1)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(DTYPES))
def test_bits_in_any_block(data: st.DataObject, dtype: type[np.floating]) -> None:
    """Each row has the same bits alone and in any part of a batch."""
    N, narrow = data.draw(st.integers(1, 40)), data.draw(st.booleans())
    B, rng = data.draw(st.integers(1, 140)), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    X = (rng.standard_normal((B, N)) * np.exp2(rng.integers(-20, 20, (B, N)))).astype(dtype)
    stage, features = random_stage(N, dtype, rng), draw_features(3, N, 64, narrow=narrow, dtype=dtype)
    whole, _ = compute(X, stage, features)
    start = data.draw(st.integers(0, B - 1))
    stop = data.draw(st.integers(start + 1, B))
    for first, last in ((start, stop), (start, start + 1)):
        part, _ = compute(X[first:last].copy(), stage, features)
        for got, wanted in zip(part, whole, strict=True):
            assert got.tobytes() == wanted[first:last].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_finite(dtype: type[np.floating]) -> None:
    """One value that is not finite, in any column, is reported; the largest numbers give finite inputs."""
    N, rng = 19, np.random.default_rng(0)
    stage, features = random_stage(N, dtype, rng), draw_features(4, N, 64, narrow=True, dtype=dtype)
    stage[1, :N], most = 3, np.finfo(dtype).max
    X = np.where(rng.random((3, N)) < 0.5, most, -most).astype(dtype)
    found, finite = compute(X, stage, features)
    assert finite
    assert all(np.isfinite(array).all() for array in found)
    for j in range(N):
        for value in (np.nan, np.inf, -np.inf):
            X[1], X[1, j] = 1, value
            assert not compute(X, stage, features)[1]
            assert not compute(X[1:2].copy(), stage, features)[1]


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]  # Numba has no types
def update_rows(rows: Array, logs: Array, flags: tuple[bool, bool], statistics: Array, stage: Array) -> None:
    """Add rows and their log-scaled values, one after another; flags are `fixed` and `narrow`."""
    for i in range(rows.shape[0]):
        update_stage((rows[i : i + 1], logs[i : i + 1]), i + 1.0, flags[0], flags[1], statistics, stage)


def running(rows: Array, logs: Array, *, fixed: bool = False, narrow: bool = True) -> tuple[Array, Array]:
    """Return statistics and stage after all rows (B, N)."""
    (B, N), S = rows.shape, whole_vectors(rows.shape[1])
    padded = np.zeros((2, B, S), rows.dtype)
    padded[0, :, :N], padded[1, :, :N] = rows, logs
    statistics, stage = np.zeros((STAGE_ROWS, S)), np.zeros((STAGE_ROWS, S), rows.dtype)
    update_rows(padded[0], padded[1], (fixed, narrow), statistics, stage)
    assert not statistics[:, N:].any()
    assert not stage[:, N:].any()
    return statistics[:, :N], stage[:, :N]


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_stage(dtype: type[np.floating]) -> None:
    """The stage holds mean and 1 / scale of all rows, 10 / mean |x|, and the same moments of log-scaled values."""
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((300, 21)) * np.exp(rng.standard_normal(21)) + 1).astype(dtype)
    logs = np.sign(rows) * np.log1p(np.abs(rows))
    wide, wide_logs = rows.astype(np.float64), logs.astype(np.float64)
    exact = np.array(
        [wide.mean(0), 1 / wide.std(0), 10 / np.abs(wide).mean(0), wide_logs.mean(0), 1 / wide_logs.std(0)]
    )
    assert running(rows, logs)[1] == pytest.approx(exact, rel=1e-6 if dtype is np.float32 else 1e-12)
    assert not running(rows, logs, fixed=True)[1][:2].any()
    assert running(rows, logs, fixed=True)[1][2:] == pytest.approx(exact[2:], rel=1e-6)
    assert not running(rows, logs, narrow=False)[1][2:].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_of_unknown_scale(dtype: type[np.floating]) -> None:
    """A feature of one value, of zeros, or of a range near rounding has an inverse of 0; so has any after one row."""
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((50, 4)).astype(dtype)
    rows[:, 1], rows[:, 2], rows[:, 3] = 7.25, 0, 1e6 * (1 + np.float64(1e-8) * rows[:, 3])
    statistics, stage = running(rows, rows)
    assert stage[1, 0] > 0
    assert not stage[1, 1:].any()
    assert (stage[2] > 0).tolist() == [True, True, False, True]
    assert statistics[2, 2] == 0
    assert not running(rows[:1], rows[:1])[1][1].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_and_smallest_rows(dtype: type[np.floating]) -> None:
    """Rows of the largest and of the smallest numbers leave a finite stage."""
    info = np.finfo(dtype)
    for size in (min(float(info.max), 2.0**500), float(info.tiny), float(info.smallest_subnormal)):
        rows = np.array([[size, -size], [-size, size], [0, size]], dtype)
        statistics, stage = running(rows, np.zeros_like(rows))
        assert np.isfinite(statistics).all()
        assert np.isfinite(stage).all()
