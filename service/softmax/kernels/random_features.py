"""Draw the random features of the rule `mixture` from a seed, with the same bits everywhere.

    phi_m(v) = cos(w_m . v + b_m),   b_m uniform on [0, 2 pi)

A feature of the dense kind takes all N coordinates of v. The directions w_m of each N features are orthogonal, and
their lengths are those of Gaussian vectors (Yu et al., "Orthogonal random features", NeurIPS 2016). Modified
Gram-Schmidt gives the directions in a fixed order; the length is that of the vector before it, which does not depend on
its direction. A feature of the sparse kind takes two coordinates, drawn uniformly, with Gaussian weights.

Numbers come from SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the
n-th number is a mix of seed + (n + 1) gamma, so it depends on the seed and n alone. A uniform number is the middle of
one of 2^52 intervals of (0, 1). A Gaussian number is sqrt(-2 ln u) cos(2 pi v) (Box & Muller, 1958) of the uniform
numbers at two positions. log and cos are the own ones of logarithm.py and cosine.py.

Positions: 2 M_d N for the dense directions, vector by vector; M_d for their b; then for M_s sparse features M_s first
coordinates, M_s second ones (none if N = 1), 2 M_s for each weight of a feature, and M_s for their b.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.kernels.cosine import cos_lanes
from service.softmax.kernels.lane_operations import fma, load, spread, store
from service.softmax.kernels.lane_reductions import total
from service.softmax.kernels.logarithm import log_lanes
from service.softmax.kernels.wide import WIDE, root

# The constants of SplitMix64. Shifts are uint64 too, because Numba turns a mix of signed and unsigned into float64.
GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_12, SHIFT_27, SHIFT_30, SHIFT_31, SHIFT_32 = (np.uint64(n) for n in (12, 27, 30, 31, 32))
ONE, TWO = np.uint64(1), np.uint64(2)
TWO_PI = 6.283185307179586

# The number of features is a multiple of this, so that each kind fills whole vectors.
FEATURES_STEP: Final = 64
# The standard deviation of w . v for independent standardized coordinates, by kind: the best of a grid on public sets.
DENSE_WIDTH_NARROW: Final = 1.7
DENSE_WIDTH_WIDE: Final = 1.2
SPARSE_WIDTH: Final = 4.0
# Features that are drawn once for several versions and snapshots. A set has at most 2^21 weights: 16 MiB in float64.
DRAWN_MAX: Final = 8


@inlined
def _split_mix(seed, n):
    """The n-th number of SplitMix64, uint64, from a seed; both are uint64."""
    z = seed + (n + ONE) * GAMMA
    z = (z ^ (z >> SHIFT_30)) * MIX_1
    z = (z ^ (z >> SHIFT_27)) * MIX_2
    return z ^ (z >> SHIFT_31)


@inlined
def _uniform(seed, n):
    """The n-th uniform number: never 0 and never 1."""
    return (np.float64(np.int64(_split_mix(seed, n) >> SHIFT_12)) + 0.5) * 2.0**-52


@kernel("void(uint64,uint64,float64[::1])")
def uniform_forward(seed, first, out):
    """out (n,) written: the uniform numbers from position `first` on."""
    for i in range(out.size):
        out[i] = _uniform(seed, first + np.uint64(i))


@kernel("void(uint64,uint64,uint64,int64[::1])")
def integer_forward(seed, first, below, out):
    """out (n,) written: integers from 0 to below - 1, each with the same probability; below <= 2**32."""
    for i in range(out.size):
        high = _split_mix(seed, first + np.uint64(i)) >> SHIFT_32
        out[i] = np.int64((high * below) >> SHIFT_32)


@kernel("void(uint64,uint64,int64,float64[:,::1])")
def gaussian_forward(seed, first, n, out):
    """out (R, a multiple of 8) written: n Gaussian numbers in each row, then zeros."""
    width = out.shape[1]
    u, v = np.full((1, width), 1.0), np.zeros((1, width))
    position = first
    for r in range(out.shape[0]):
        for j in range(n):
            u[0, j] = _uniform(seed, position)
            v[0, j] = TWO_PI * _uniform(seed, position + ONE)
            position += TWO
        for j in range(0, width, WIDE):
            length = root(log_lanes(load(u, 0, j)) * spread(load(u, 0, j), -2.0))
            store(out, r, j, length * cos_lanes(load(v, 0, j)))


@inlined
def _inner_product(V, k, j):
    """The inner product of rows k and j of V."""
    sums = spread(load(V, 0, 0), 0.0)
    for i in range(0, V.shape[1], WIDE):
        sums = fma(load(V, k, i), load(V, j, i), sums)
    return total(sums)


@kernel("void(float64[:,::1],int64,int64)")
def orthogonal_forward(V, start, stop):
    """Make the rows start to stop of V (R, a multiple of 8) orthogonal; each keeps its length."""
    lengths = np.empty(stop - start)
    for k in range(start, stop):
        lengths[k - start] = np.sqrt(_inner_product(V, k, k))
    for k in range(start, stop):
        size = _inner_product(V, k, k)
        for j in range(k + 1, stop):
            factor = spread(load(V, 0, 0), -_inner_product(V, k, j) / size)
            for i in range(0, V.shape[1], WIDE):
                store(V, j, i, fma(factor, load(V, k, i), load(V, j, i)))
        factor = spread(load(V, 0, 0), lengths[k - start] / np.sqrt(size))
        for i in range(0, V.shape[1], WIDE):
            store(V, k, i, load(V, k, i) * factor)


class RandomFeatures(NamedTuple):
    """M_d dense and M_s sparse features of N coordinates, in the model's dtype.

    Attributes:
        dense: (N, M_d), the weights of the dense features.
        dense_bias: (M_d,)
        sparse_index: (M_s, 2) int64, the coordinates of the sparse features.
        sparse_weights: (M_s, 2)
        sparse_bias: (M_s,)
    """

    dense: Floats
    dense_bias: Floats
    sparse_index: Integers
    sparse_weights: Floats
    sparse_bias: Floats


class PackedFeatures(NamedTuple):
    """Random features in the layout of mixture_inputs.py.

    Attributes:
        dense: (M_d / L, N + 1, L), as panels of one vector in matmul.py.
        pairs: (2, M_s) int64, the coordinates of the sparse features.
        pair_numbers: (3, M_s), both weights and b of the sparse features.
    """

    dense: Floats
    pairs: Integers
    pair_numbers: Floats


class _Numbers:
    """The numbers of a seed, one position after another."""

    def __init__(self, seed: int) -> None:
        self._seed: Final = np.uint64(seed)
        self._position = 0

    def uniform(self, count: int) -> Doubles:
        """Return `count` uniform numbers."""
        out = np.empty(count)
        uniform_forward(self._seed, self._take(count), out)
        return out

    def integers(self, count: int, below: int) -> Integers:
        """Return `count` integers from 0 to below - 1."""
        out = np.empty(count, np.int64)
        integer_forward(self._seed, self._take(count), np.uint64(below), out)
        return out

    def gaussian(self, rows: int, count: int) -> Doubles:
        """Return (rows, count up to whole vectors): Gaussian numbers, then zeros."""
        out = np.empty((rows, -(-count // WIDE) * WIDE))
        gaussian_forward(self._seed, self._take(2 * rows * count), count, out)
        return out

    def _take(self, count: int) -> np.uint64:
        """Return the position, and move on by `count`."""
        first = np.uint64(self._position)
        self._position += count
        return first


@lru_cache(maxsize=DRAWN_MAX)
def draw_features(seed: int, n_features: int, count: int, *, narrow: bool, dtype: type[np.floating]) -> RandomFeatures:
    """Draw `count` random features of rows of `n_features`; callers must not write to the arrays.

    Args:
        seed: 0 to 2^64 - 1.
        n_features: N.
        count: M, a multiple of FEATURES_STEP.
        narrow: Whether half of the features are sparse; else all are dense.
        dtype: The model's.
    """
    numbers = _Numbers(seed)
    n_dense = count // 2 if narrow else count
    n_sparse, n_pair = count - n_dense, min(2, n_features)
    V = numbers.gaussian(n_dense, n_features)
    for start in range(0, n_dense, n_features):
        orthogonal_forward(V, start, min(start + n_features, n_dense))
    width = (DENSE_WIDTH_NARROW if narrow else DENSE_WIDTH_WIDE) / np.sqrt(n_features)
    dense_bias = TWO_PI * numbers.uniform(n_dense)
    index = np.zeros((n_sparse, 2), np.int64)
    index[:, 0] = numbers.integers(n_sparse, n_features)
    if n_pair > 1:
        others = numbers.integers(n_sparse, n_features - 1)
        index[:, 1] = others + (others >= index[:, 0])
    weights = numbers.gaussian(n_sparse, n_pair)[:, :2] * (SPARSE_WIDTH / np.sqrt(n_pair))
    sparse_bias = TWO_PI * numbers.uniform(n_sparse)
    return RandomFeatures(
        np.ascontiguousarray((V[:, :n_features] * width).T, dtype),
        dense_bias.astype(dtype),
        index,
        weights.astype(dtype),
        sparse_bias.astype(dtype),
    )


def pack_features(features: RandomFeatures) -> PackedFeatures:
    """Return the features in the layout of the kernels."""
    N, n_dense = features.dense.shape
    lanes = 64 // features.dense.itemsize
    whole = np.vstack([features.dense_bias, features.dense]).reshape(N + 1, n_dense // lanes, lanes)
    return PackedFeatures(
        np.ascontiguousarray(whole.swapaxes(0, 1)),
        np.ascontiguousarray(features.sparse_index.T),
        np.ascontiguousarray(np.vstack([features.sparse_weights.T, features.sparse_bias])),
    )
