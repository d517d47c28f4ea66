"""Dot products and sums of vectors have one order, whatever their length and place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.kernels.vector_sums import add_scaled, dot
from tests.support.budgets import examples


def fused(a: float, b: float, c: float) -> float:
    """Return a * b + c, rounded once: exact in the 64 bits of longdouble for numbers of 24 bits."""
    return float(np.longdouble(a) * np.longdouble(b) + np.longdouble(c))


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 100), st.integers(0, 1000))
def test_dot_product_adds_lanes_in_order(n: int, seed: int) -> None:
    """Element i is added to lane i % 32 in order, then lanes in a tree."""
    rng = np.random.default_rng(seed)
    A, B = (rng.integers(-(2**15), 2**15, (2, n)).astype(np.float64) / 2**12 for _ in range(2))
    lanes = np.zeros(32)
    for e in range(n):
        lanes[e % 32] = fused(A[1, e], B[0, e], lanes[e % 32])
    vectors = lanes.reshape(4, 8)
    tree = (vectors[0] + vectors[1]) + (vectors[2] + vectors[3])
    while len(tree) > 1:
        tree = tree[: len(tree) // 2] + tree[len(tree) // 2 :]
    assert dot(A, 1, B, 0) == tree[0]


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 100), st.integers(0, 1000))
def test_sum_changes_its_row_alone(n: int, seed: int) -> None:
    """Each element is a product and a sum, rounded once; other rows stay."""
    rng = np.random.default_rng(seed)
    A, B = (rng.integers(-(2**15), 2**15, (3, n)).astype(np.float64) / 2**12 for _ in range(2))
    expected = B.copy()
    expected[1] = [fused(0.75, a, b) for a, b in zip(A[2], B[1], strict=True)]
    add_scaled(A, 2, 0.75, B, 1)
    assert np.array_equal(B, expected)
