"""Activations: errors, extremes, the arrays that they write, and derivatives."""

from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax.kernels.activations import activation_backward, activation_forward
from service.softmax.kernels.network import ACTIVATIONS
from service.softmax.linear_model import LinearModel
from tests.support.reference import DTYPES, Array

GUARD = 64
# By activation, the bound of its error in ulp from the table of activations.py.
ULP = {"relu": 0.0, "sigmoid": 3.0, "tanh": 2.0}


def padded(Z: Array) -> Array:
    """Return Z in rows of whole vectors, as the matrix kernel writes them."""
    lanes = 64 // Z.itemsize
    wide = np.zeros((len(Z), -(-Z.shape[1] // lanes) * lanes), Z.dtype)
    wide[:, : Z.shape[1]] = Z
    return wide


def activate(name: str, Z: Array) -> Array:
    """Return the activations of finite Z (B, K)."""
    A = np.empty_like(Z)
    assert activation_forward(padded(Z), ACTIVATIONS[name], A) == np.isfinite(Z).all()
    return A


def slope(name: str, A: Array) -> Array:
    """Return the derivative for the activation A."""
    dA = np.ones_like(A)
    activation_backward(A, ACTIVATIONS[name], dA)
    return dA


def exact(name: str, z: Array, numpy: Any = np) -> Array:
    """Return the activation by the textbook formula."""
    if name == "relu":
        return numpy.maximum(z, 0)
    return numpy.tanh(z) if name == "tanh" else 1 / (1 + numpy.exp(-z))


def grid(dtype: type[np.floating]) -> Array:
    """Return evenly spaced, random, large and small pre-activations, and those at the border of tanh's polynomial."""
    rng = np.random.default_rng(0)
    sizes = np.exp2(rng.uniform(-120, 4, 100_000))
    parts = [np.linspace(-30, 30, 200_001), rng.uniform(-1, 1, 200_000), rng.uniform(0.62, 0.63, 20_000), sizes, -sizes]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_error(name: str, dtype: type[np.floating]) -> None:
    """Every activation is within its stated error."""
    z = grid(dtype)
    wanted = exact(name, z.astype(np.longdouble))
    unit = np.spacing(np.abs(wanted).astype(dtype)).astype(np.longdouble)
    assert np.max(np.abs(activate(name, z[None])[0] - wanted) / unit) <= ULP[name]


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes(dtype: type[np.floating]) -> None:
    """The largest numbers saturate exactly, the smallest keep their bits, and 0 gives 0 or a half."""
    most, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    z = np.array([[most, 1e30, -1e30, -most, 0, tiny, -tiny]], dtype)
    assert activate("tanh", z).tolist() == [[1, 1, -1, -1, 0, tiny, -tiny]]
    assert activate("sigmoid", z).tolist() == [[1, 1, 0, 0, 0.5, 0.5, 0.5]]
    assert activate("relu", z).tolist() == [[most, dtype(1e30), 0, 0, 0, tiny, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_symmetry_and_order(name: str, dtype: type[np.floating]) -> None:
    """tanh is exactly odd, and both functions are monotone within their error."""
    z = np.sort(grid(dtype))[None]
    A = activate(name, z)[0]
    assert (np.diff(A) >= -2 * np.spacing(np.abs(A[1:]))).all()
    if name == "tanh":
        assert np.array_equal(activate(name, -z)[0], -A)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_is_that_of_the_head(dtype: type[np.floating]) -> None:
    """The activation has the bits of the multilabel head."""
    Z = (np.random.default_rng(1).standard_normal((70, 33)) * 20).astype(dtype)
    head = LinearModel("multilabel", np.eye(33, dtype=dtype), np.zeros(33, dtype))
    assert np.array_equal(activate("sigmoid", Z), head.predict(Z))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_overflow_is_reported(name: str, dtype: type[np.floating], bad: float) -> None:
    """The kernel returns False for a pre-activation that is not finite, at any position."""
    for K in (1, 16, 17, 40):
        for k in range(K):
            Z = np.zeros((3, K), dtype)
            Z[k % 3, k] = bad
            assert not activation_forward(padded(Z), ACTIVATIONS[name], np.empty_like(Z))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_other_memory_is_written(name: str, dtype: type[np.floating]) -> None:
    """Forward and backward write only (B, K) numbers, for every remainder."""
    rng = np.random.default_rng(2)
    for K in (1, 2, 7, 8, 9, 15, 16, 17, 33):
        for B in (1, 3):
            Z = rng.standard_normal((B, K)).astype(dtype)
            target = np.full(B * K + 2 * GUARD, 7, dtype)
            inner = target[GUARD : GUARD + B * K].reshape(B, K)
            activation_forward(padded(Z), ACTIVATIONS[name], inner)
            assert np.array_equal(inner, activate(name, Z))
            A = inner.copy()
            inner[:] = Z
            activation_backward(A, ACTIVATIONS[name], inner)
            np.testing.assert_allclose(inner, Z * slope(name, A), rtol=4 * np.finfo(dtype).eps)
            assert (np.delete(target, np.arange(GUARD, GUARD + B * K)) == 7).all()


@settings(deadline=None, max_examples=100)
@given(arrays(np.float64, (3, 9), elements=st.floats(-12, 12)), st.sampled_from(list(ACTIVATIONS)))
def test_derivatives_three_ways(Z: Array, name: str) -> None:
    """The derivative agrees with autograd, differences and the closed form."""
    Z = np.where(np.abs(Z) < 1e-3, 0.5, Z)  # relu has no derivative at 0, and no difference near 0
    A = activate(name, Z)
    found = slope(name, A)
    np.testing.assert_allclose(found, elementwise_grad(lambda z: exact(name, z, anp))(Z), rtol=1e-9, atol=1e-14)
    step = 1e-6
    difference = (activate(name, Z + step) - activate(name, Z - step)) / (2 * step)
    np.testing.assert_allclose(found, difference, rtol=1e-6, atol=1e-9)
    closed = {"relu": (A > 0).astype(float), "sigmoid": A * (1 - A), "tanh": 1 - A**2}[name]
    np.testing.assert_allclose(found, closed, rtol=1e-15, atol=1e-15)


def test_relu_at_zero() -> None:
    """The derivative of relu at 0 is 0."""
    assert slope("relu", np.zeros((1, 3))).tolist() == [[0, 0, 0]]
