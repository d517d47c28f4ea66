"""The matrix kernel: values, the order of sums, and the arrays that it writes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.kernels.matmul import linear_forward, multiply_matrices, pack, unpack
from tests.support.reference import DTYPES, Array, linear, linear_in_order, nearest

# Around every multiple of both dtypes' vectors and panels, so that each panel width and each remainder occurs.
CLASSES = (1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 96, 97)
GUARD = 3


def draw(seed: int, dtype: type[np.floating], B: int, N: int, K: int) -> tuple[Array, Array, Array]:
    """Return X (B, N), W (N, K) and b (K,) of random values over a few magnitudes."""
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> Array:
        return (rng.standard_normal(shape) * np.exp2(rng.integers(-3, 4, shape))).astype(dtype)

    return values(B, N), values(N, K), values(K)


def logits(X: Array, W: Array, b: Array) -> Array:
    """Return Z (B, K) by the kernel, and check guard rows around it."""
    panels = pack(W, b)
    Z = np.full((len(X) + 2 * GUARD, panels.shape[0] * panels.shape[2]), -7, W.dtype)
    linear_forward(X, panels, Z[GUARD : GUARD + len(X)])
    assert (Z[:GUARD] == -7).all()
    assert (Z[GUARD + len(X) :] == -7).all()
    assert (Z[GUARD : GUARD + len(X), W.shape[1] :] == 0).all(), "classes past K have no weights"
    return Z[GUARD : GUARD + len(X), : W.shape[1]]


def assert_close(Z: Array, X: Array, W: Array, b: Array) -> None:
    """Assert the bound of N + 1 roundings: |error| <= (N + 1) u / (1 - (N + 1) u) (|b| + sum |x w|)."""
    unit = (X.shape[1] + 1) * np.finfo(W.dtype).eps / 2
    bound = unit / (1 - unit) * linear(np.abs(X), np.abs(W), np.abs(b))
    assert (np.abs(Z - linear(X, W, b)) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 2, 3, 5, 64])
def test_logits_of_every_remainder(dtype: type[np.floating], N: int) -> None:
    """Z is X W + b for every remainder of rows and classes, and no other row is written."""
    for K in CLASSES:
        X, W, b = draw(K, dtype, 40, N, K)
        for B in range(1, 41):
            rows = X[:B].copy()
            assert_close(logits(rows, W, b), rows, W, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "N", "K"), [(1, 784, 10), (65, 300, 100), (130, 33, 193), (7, 2000, 3)])
def test_logits_of_large_shapes(dtype: type[np.floating], B: int, N: int, K: int) -> None:
    """Z is X W + b for shapes of real models."""
    X, W, b = draw(0, dtype, B, N, K)
    assert_close(logits(X, W, b), X, W, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "N", "K"), [(1, 1, 1), (1, 9, 3), (5, 4, 17), (17, 3, 2), (2, 6, 49), (3, 40, 2)])
def test_order_of_the_sum(dtype: type[np.floating], B: int, N: int, K: int) -> None:
    """Z has the bits of exact fused multiply-adds in the order bias, feature 0, 1, ..., N - 1."""
    X, W, b = draw(5, dtype, B, N, K)
    assert np.array_equal(logits(X, W, b), linear_in_order(X, W, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_not_rounded(dtype: type[np.floating]) -> None:
    """x w + z is rounded once: (1 + e)(1 - e) - 1 is -e**2, which a separate multiplication would lose."""
    e = np.finfo(dtype).eps
    Z = logits(np.array([[1 + e]], dtype), np.array([[1 - e]], dtype), np.array([-1], dtype))
    assert Z[0, 0] == -(e**2)


@settings(deadline=None)
@given(st.fractions(), st.sampled_from(DTYPES))
def test_reference_rounds_to_nearest(value: object, dtype: type[np.floating]) -> None:
    """The reference's rounding agrees with NumPy's conversion from longdouble."""
    exact = np.longdouble(value.numerator) / np.longdouble(value.denominator)  # type: ignore[attr-defined]
    assert abs(nearest(value, dtype) - exact) <= np.spacing(np.abs(dtype(exact))) * 0.5000001  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack(dtype: type[np.floating]) -> None:
    """Panels hold the bias, then the features, of consecutive classes; past K they are 0."""
    for K in CLASSES:
        _, W, b = draw(6, dtype, 1, 4, K)
        panels = pack(W, b)
        flat = np.concatenate(list(panels), axis=1)
        assert panels.flags.c_contiguous
        assert panels.dtype == dtype
        assert panels.shape[2] % (64 // W.itemsize) == 0
        assert np.array_equal(flat[:, :K], np.vstack([b, W]))
        assert not flat[:, K:].any()
        rows = unpack(panels, K)
        panels[:] = 7
        assert np.array_equal(rows, np.vstack([b, W])), "also where one panel holds exactly the classes"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("M", "J", "K"), [(1, 1, 1), (10, 64, 3), (64, 10, 64), (5, 3, 50)])
def test_multiply_matrices(dtype: type[np.floating], M: int, J: int, K: int) -> None:
    """`multiply_matrices` returns A B of shape (M, K) in the fixed order of the kernel."""
    A, B, _ = draw(7, dtype, M, J, K)
    product = multiply_matrices(A, B)
    assert product.shape == (M, K)
    assert_close(product, A, B, np.zeros(K, dtype))
    if M * J * K < 2000:
        assert np.array_equal(product, linear_in_order(A, B, np.zeros(K, dtype)))
