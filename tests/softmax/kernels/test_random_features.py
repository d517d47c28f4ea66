"""Random features: their numbers, their distributions, their directions and their bits."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from service.softmax.kernels.random_features import (
    DENSE_WIDTH_NARROW,
    DENSE_WIDTH_WIDE,
    SPARSE_WIDTH,
    RandomFeatures,
    draw_features,
    gaussian_forward,
    integer_forward,
    pack_features,
    uniform_forward,
)
from tests.support.reference import DTYPES

GOLDEN = Path(__file__).parents[2] / "golden" / "random_features.json"
# The first outputs of SplitMix64 from the seed 1234567, as published with its reference implementation.
SPLIT_MIX = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)


def digest(features: RandomFeatures) -> str:
    """Return the sha256 of all arrays."""
    return hashlib.sha256(b"".join(array.tobytes() for array in features)).hexdigest()


def test_numbers_are_those_of_split_mix() -> None:
    """Integers below 2^32 are the high halves of SplitMix64's published outputs, from any position on."""
    for first in range(5):
        out = np.empty(5 - first, np.int64)
        integer_forward(np.uint64(1234567), np.uint64(first), np.uint64(2**32), out)
        assert out.tolist() == [number >> 32 for number in SPLIT_MIX[first:]]


def test_uniform_numbers() -> None:
    """Uniform numbers are inside (0, 1), with the moments of that distribution."""
    u = np.empty(200_000)
    uniform_forward(np.uint64(3), np.uint64(0), u)
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 1 / 2) < 0.003
    assert abs(u.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


def test_gaussian_numbers() -> None:
    """Gaussian numbers have the moments of that distribution, and zeros follow them in a row."""
    out = np.empty((20_000, 16))
    gaussian_forward(np.uint64(4), np.uint64(0), 13, out)
    assert not out[:, 13:].any()
    g = out[:, :13]
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        assert abs((g**power).mean() - moment) < 0.01 * 3**power / power
    assert np.abs(np.corrcoef(g.T) - np.eye(13)).max() < 0.04


@pytest.mark.parametrize(("N", "count", "narrow"), [(1, 64, True), (7, 64, True), (64, 256, True), (200, 128, False)])
def test_dense_directions(N: int, count: int, narrow: bool) -> None:  # noqa: FBT001  # a case
    """The directions of each N dense features are orthogonal, and their lengths are those of Gaussian vectors."""
    dense = draw_features(5, N, count, narrow=narrow, dtype=np.float64).dense.T
    lengths = np.sqrt((dense**2).sum(1))
    for start in range(0, len(dense), N):
        unit = dense[start : start + N] / lengths[start : start + N, None]
        assert np.abs(unit @ unit.T - np.eye(len(unit))).max() < 1e-9
    width = DENSE_WIDTH_NARROW if narrow else DENSE_WIDTH_WIDE
    assert np.sqrt((lengths**2).mean()) == pytest.approx(width, rel=0.25)
    assert np.unique(lengths).size == lengths.size


def test_sparse_features() -> None:
    """Sparse features take two different coordinates, each about equally often, with Gaussian weights."""
    features = draw_features(6, 9, 6400, narrow=True, dtype=np.float64)
    assert (features.sparse_index[:, 0] != features.sparse_index[:, 1]).all()
    often = np.bincount(features.sparse_index.ravel(), minlength=9) / features.sparse_index.size
    assert often == pytest.approx(1 / 9, rel=0.15)
    assert features.sparse_weights.std() * 2**0.5 == pytest.approx(SPARSE_WIDTH, rel=0.03)
    for bias in (features.sparse_bias, features.dense_bias):
        assert 0 <= bias.min() < 0.05
        assert 6.2 < bias.max() <= 2 * np.pi


def test_one_coordinate() -> None:
    """With one coordinate, the second weight of each sparse feature is 0."""
    features = draw_features(7, 1, 64, narrow=True, dtype=np.float64)
    assert not features.sparse_index.any()
    assert features.sparse_weights[:, 0].all()
    assert not features.sparse_weights[:, 1].any()


def test_packed_features() -> None:
    """Packed features hold the same numbers, by vectors."""
    for dtype in DTYPES:
        features = draw_features(8, 5, 128, narrow=True, dtype=dtype)
        dense, pairs, pair_numbers = pack_features(features)
        whole = dense.swapaxes(0, 1).reshape(6, 64)
        assert np.array_equal(whole, np.vstack([features.dense_bias, features.dense]))
        assert np.array_equal(pairs.T, features.sparse_index)
        assert np.array_equal(pair_numbers.T, np.column_stack([features.sparse_weights, features.sparse_bias]))


def test_features_of_another_seed_differ() -> None:
    """Another seed gives other features; the largest seed is accepted."""
    one, other = (draw_features(seed, 4, 64, narrow=True, dtype=np.float32) for seed in (1, 2**64 - 1))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def golden_digests() -> dict[str, str]:
    """Return the hashes that GOLDEN holds."""
    cases: list[tuple[int, int, int, bool, type[np.floating]]] = [
        (11, 64, 256, True, np.float32),
        (11, 64, 256, True, np.float64),
        (11, 1, 64, True, np.float32),
        (12, 384, 256, False, np.float32),
    ]
    return {
        f"{seed} {N} {M} {'narrow' if narrow else 'wide'} {np.dtype(dtype)}": digest(
            draw_features(seed, N, M, narrow=narrow, dtype=dtype)
        )
        for seed, N, M, narrow, dtype in cases
    }


def test_bits_of_this_release() -> None:
    """All features have the bits that are checked in: weights that were learned depend on them."""
    assert golden_digests() == json.loads(GOLDEN.read_text())


def test_features_approximate_a_gaussian_kernel() -> None:
    """The mean of 2 phi(v) phi(v') over many dense features is exp(-width^2 |v - v'|^2 / (2 N))."""
    N, count = 4, 64 * 400
    features = draw_features(9, N, count, narrow=False, dtype=np.float64)
    rng = np.random.default_rng(0)
    v, w = rng.standard_normal((2, 20, N))
    phi, psi = (np.cos(rows @ features.dense + features.dense_bias) for rows in (v, w))
    exact = np.exp(-(DENSE_WIDTH_WIDE**2) / (2 * N) * ((v - w) ** 2).sum(1))
    assert 2 * (phi * psi).mean(1) == pytest.approx(exact, abs=0.03)
