"""Derivatives of the heads, checked by differences, autograd and closed identities."""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad, jacobian
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax import derivatives as d
from service.softmax.classifier import HEADS as CODES
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward
from service.softmax.linear_model import LinearModel
from tests.support.reference import DTYPES, HEADS, Array, targets

quick = settings(deadline=None, max_examples=80)
CLASSES = (1, 2, 3, 8, 9, 16, 17, 40)
STEP = 1e-5


def random_logits(limit: float = 8.0, dtype: Any = np.float64) -> st.SearchStrategy[Array]:
    """Return random logits of a few rows and classes."""
    shapes = st.tuples(st.integers(1, 4), st.integers(2, 9))
    return arrays(dtype, shapes, elements=st.floats(-limit, limit, width=np.dtype(dtype).itemsize * 8))


def differences(function: Callable[[Array], Array], Z: Array) -> Array:
    """Return central differences of a function of rows, (B, out, in)."""
    columns = []
    for k in range(Z.shape[1]):
        step = np.zeros_like(Z)
        step[:, k] = STEP
        columns.append((function(Z + step) - function(Z - step)) / (2 * STEP))
    return np.stack(columns, axis=-1)


def by_autograd(function: Callable[[Array], Array], Z: Array) -> Array:
    """Return the Jacobians of a function of one row by automatic differentiation."""
    return np.stack([jacobian(function)(z) for z in Z])


def plain_softmax(z: Array) -> Array:
    """Return the softmax of one row by the textbook formula."""
    e = anp.exp(z - anp.max(z))
    return e / anp.sum(e)


def assert_near(found: Array, expected: Array, tolerance: float = 1e-6) -> None:
    """Assert that two arrays agree to a part of the largest number, the precision of a difference."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@quick
@given(random_logits())
def test_softmax_jacobian(Z: Array) -> None:
    """The softmax Jacobian equals differences and autograd, is exactly symmetric, and its rows sum to 0."""
    P = d.softmax(Z)
    J = d.softmax_jacobian(P)
    assert_near(J, differences(d.softmax, Z))
    assert_near(J, by_autograd(plain_softmax, Z), 1e-12)
    assert np.array_equal(J, J.swapaxes(1, 2))
    assert np.abs(J.sum(axis=2)).max() <= 1e-15
    np.testing.assert_allclose(J, P[:, :, None] * (np.eye(Z.shape[1]) - P[:, None]), atol=1e-15)


@quick
@given(random_logits())
def test_log_softmax_jacobian(Z: Array) -> None:
    """The log-softmax Jacobian equals differences and autograd, and S_i times it is that of softmax."""
    P = d.softmax(Z)
    J = d.log_softmax_jacobian(P)
    assert_near(J, differences(d.log_softmax, Z))
    assert_near(J, by_autograd(lambda z: z - anp.max(z) - anp.log(anp.sum(anp.exp(z - anp.max(z)))), Z), 1e-12)
    assert np.abs(J.sum(axis=2)).max() <= 1e-14
    np.testing.assert_allclose(P[:, :, None] * J, d.softmax_jacobian(P), rtol=1e-12, atol=1e-300)


@quick
@given(st.data(), st.sampled_from(DTYPES))
def test_products_equal_those_with_the_matrix(data: st.DataObject, dtype: type[np.floating]) -> None:
    """Products computed without the matrix equal those with it, for both functions and both sides."""
    Z = data.draw(random_logits(dtype=dtype))
    V = data.draw(arrays(dtype, Z.shape, elements=st.floats(-100, 100, width=32)))
    P = d.softmax(Z)
    soft, logs = d.softmax_jacobian(P).astype(float), d.log_softmax_jacobian(P).astype(float)
    for found, J in (
        (d.softmax_product(P, V), soft),
        (d.softmax_product(P, V), soft.swapaxes(1, 2)),
        (d.log_softmax_product(P, V), logs),
        (d.log_softmax_backward(P, V), logs.swapaxes(1, 2)),
    ):
        assert found.dtype == dtype
        bound = 8 * Z.shape[1] * np.finfo(dtype).eps * (np.abs(V).max() + 1e-30)
        assert np.abs(found - (J @ V[:, :, None])[:, :, 0]).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_of_a_nearly_certain_row(dtype: type[np.floating]) -> None:
    """If p rounds to 1, its derivative keeps the digits of the other classes."""
    Z = np.array([[50, 0, 1, -3]], dtype)
    exact = np.exp(Z[0, 1:].astype(np.longdouble) - 50).sum()
    P = d.softmax(Z)
    assert P[0, 0] == 1
    unit = np.zeros_like(Z)
    unit[0, 0] = 1
    for found in (d.softmax_jacobian(P)[0, 0, 0], d.log_softmax_jacobian(P)[0, 0, 0], d.softmax_product(P, unit)[0, 0]):
        assert float(found) == pytest.approx(float(exact), rel=float(50 * np.finfo(dtype).eps))


@quick
@given(random_logits())
def test_sigmoid_slope(Z: Array) -> None:
    """The sigmoid slope equals differences and autograd, is even in z, and at most a quarter."""
    found = d.sigmoid_slope(Z)
    model = LinearModel("multilabel", np.eye(Z.shape[1]), np.zeros(Z.shape[1]))
    step = np.full_like(Z, STEP)
    assert_near(found, (model.predict(Z + step) - model.predict(Z - step)) / (2 * STEP))
    assert_near(found, elementwise_grad(lambda z: 1 / (1 + anp.exp(-z)))(Z), 1e-12)
    assert np.array_equal(found, d.sigmoid_slope(-Z))
    assert found.max() <= 0.25 * (1 + 4e-16)
    assert d.sigmoid_slope(np.zeros((1, 1))).tolist() == [[0.25]]


def test_sigmoid_slope_keeps_its_digits() -> None:
    """At z = 40, where sigma is 1 in float64, the slope is e**-40."""
    assert d.sigmoid_slope(np.array([[40.0]]))[0, 0] == pytest.approx(np.exp(-40.0), rel=1e-14)


def logit_loss(head: str, y: Array) -> Callable[[Array], Array]:
    """Return the loss of one row of logits by the textbook formula, for autograd."""
    if head == "softmax":
        return lambda z: -anp.sum(y * anp.log(plain_softmax(z)))
    return lambda z: -anp.sum(y * anp.log(1 / (1 + anp.exp(-z))) + (1 - y) * anp.log(1 / (1 + anp.exp(z))))


@quick
@given(random_logits(), st.sampled_from(HEADS), st.sampled_from(["hard", "soft", "any"]), st.integers(0, 99))
def test_cross_entropy_to_the_logits(Z: Array, head: str, kind: str, seed: int) -> None:
    """The gradient p sum(y) - y equals differences, autograd, and J^T of log-softmax, for targets of any sum."""
    Z = Z[:, :1].copy() if head == "sigmoid" else Z
    Y = targets(head, kind, *Z.shape, np.random.default_rng(seed))
    found = np.empty_like(Z)
    assert cross_entropy_backward(Z, Y, CODES[head], found)  # type: ignore[index]  # a head's name

    def losses(Z: Array) -> Array:
        out = np.empty(len(Z))
        cross_entropy_forward(Z, Y, CODES[head], out)
        return out[:, None]

    assert_near(found, differences(losses, Z)[:, 0])
    assert_near(found, np.stack([grad(logit_loss(head, y))(z) for z, y in zip(Z, Y, strict=True)]), 1e-9)
    if head == "softmax":
        P = d.softmax(Z)
        np.testing.assert_allclose(found, d.log_softmax_backward(P, -Y), atol=1e-13)
        if kind != "any":
            np.testing.assert_allclose(found, P - Y, atol=1e-14)


@quick
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_affine_jacobian(B: int, N: int, K: int, seed: int) -> None:
    """The affine Jacobian equals differences and autograd, and 1 / K of its numbers are not 0."""
    rng = np.random.default_rng(seed)
    X, W, b = rng.uniform(0.1, 2, (B, N)), rng.standard_normal((N, K)), rng.standard_normal(K)
    J = d.affine_jacobian(X, K)
    assert J.shape == (B, K, N * K)
    assert np.count_nonzero(J) == B * N * K
    for x, one in zip(X, J, strict=True):
        assert np.array_equal(one, np.kron(x, np.eye(K)))
        flat = W.reshape(1, -1)
        by_steps = differences(lambda w, x=x: LinearModel("softmax", w.reshape(N, K), b).logits(x[None]), flat)  # type: ignore[misc]
        assert_near(one, by_steps[0], 1e-8)
        assert_near(one, by_autograd(lambda w, x=x: anp.dot(x, w.reshape(N, K)) + b, flat)[0], 1e-15)  # type: ignore[misc]


@quick
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.sampled_from(DTYPES), st.integers(0, 99))
def test_the_fused_product_is_that_of_the_jacobian(B: int, N: int, K: int, dtype: type[np.floating], seed: int) -> None:
    """dW = X^T dZ equals the sum of dZ J over rows, bit by bit for a single row."""
    rng = np.random.default_rng(seed)
    X, W, dZ = (rng.standard_normal(shape).astype(dtype) for shape in ((B, N), (N, K), (B, K)))
    found, J = d.affine_backward(X, W, dZ), d.affine_jacobian(X, K)
    whole = np.stack([(dz @ one).reshape(N, K) for dz, one in zip(dZ, J, strict=True)])
    if B == 1:
        assert np.array_equal(found.dW, whole[0])
    tolerance = {"rtol": 0, "atol": 20 * (B + K) * np.finfo(dtype).eps}
    np.testing.assert_allclose(found.dW, whole.sum(axis=0), **tolerance)
    np.testing.assert_allclose(found.db, dZ.sum(axis=0), **tolerance)
    np.testing.assert_allclose(found.dX, dZ @ W.T, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_training_uses_the_fused_product(head: str, dtype: type[np.floating]) -> None:
    """The gradients of a model have the bits of `affine_backward`."""
    rng = np.random.default_rng(3)
    K = 1 if head == "sigmoid" else 5
    X, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((30, 7), (7, K), K))
    model, Y = LinearModel(head, W, b), targets(head, "soft", 30, K, rng)
    dZ = np.empty((30, K), dtype)
    cross_entropy_backward(model.logits(X), Y, CODES[head], dZ)
    for found, expected in zip(d.affine_backward(X, W, dZ), model.gradients(X, Y)[:3], strict=True):
        assert np.array_equal(found, expected)


@quick
@given(st.data(), st.sampled_from(DTYPES))
def test_two_classes_are_a_sigmoid_of_the_difference(data: st.DataObject, dtype: type[np.floating]) -> None:
    """Softmax of (a, b) is the sigmoid head of b - a, including the column 1 - p."""
    Z = data.draw(arrays(dtype, (5, 2), elements=st.floats(-30, 30, width=32)))
    head = LinearModel("sigmoid", np.eye(1, dtype=dtype), np.zeros(1, dtype)).predict(
        np.ascontiguousarray(Z[:, 1:] - Z[:, :1])
    )
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(d.softmax(Z), head, rtol=64 * eps)
    post_hoc = np.hstack([1 - head[:, 1:], head[:, 1:]])
    assert np.abs(post_hoc - head).max() <= eps


@quick
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(CLASSES))
def test_adding_a_constant_changes_nothing(data: st.DataObject, dtype: type[np.floating], K: int) -> None:
    """A constant on all logits changes no bit if sums are exact; derivatives in its direction are 0."""
    Z = data.draw(arrays(dtype, (3, K), elements=st.integers(-60, 60)))
    P = d.softmax(Z)
    assert np.array_equal(d.softmax(Z + dtype(data.draw(st.integers(-1000, 1000)))), P)
    assert np.array_equal(d.softmax_product(P, np.full_like(P, 7)), np.zeros_like(P))


@quick
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(CLASSES))
def test_order_and_sum(data: st.DataObject, dtype: type[np.floating], K: int) -> None:
    """A larger logit has no smaller probability, equal logits have equal ones, and rows sum to 1."""
    ends = st.sampled_from([1e30, -1e30, float(np.finfo(dtype).max), -float(np.finfo(dtype).max), 0.0])
    Z = data.draw(arrays(dtype, (3, K), elements=st.one_of(st.floats(-100, 100, width=32), ends).map(dtype)))
    temperature = data.draw(st.sampled_from([1.0, 2.0, 1.5, 100.0]))
    P = d.softmax(Z, temperature)
    order = np.argsort(Z, axis=1, kind="stable")
    sorted_Z, sorted_P = np.take_along_axis(Z, order, axis=1), np.take_along_axis(P, order, axis=1)
    assert (np.diff(sorted_P) >= 0).all()
    assert (np.diff(sorted_P)[sorted_Z[:, 1:] == sorted_Z[:, :-1]] == 0).all()
    assert np.abs(P.sum(axis=1, dtype=np.float64) - 1).max() <= (K + 4) * np.finfo(dtype).eps
    assert d.softmax(np.full((1, K), Z[0, 0], dtype)).tolist() == [[dtype(1 / dtype(K))] * K]


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_are_exact(dtype: type[np.floating]) -> None:
    """Logits of +-1e30 give exactly 0 and 1, ties give exact halves, and derivatives are exactly 0."""
    P = d.softmax(np.array([[1e30, -1e30, 0], [1e30, 1e30, -1e30], [-1e30, -1e30, -1e30]], dtype))
    assert P[:2].tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert P[2].tolist() == [dtype(1) / dtype(3)] * 3
    assert not d.softmax_jacobian(P[:1].copy()).any()
    assert np.isfinite(d.log_softmax(np.array([[1e30, -1e30, 0]], dtype))).all()


@quick
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(CLASSES))
def test_masked_classes(data: st.DataObject, dtype: type[np.floating], K: int) -> None:
    """An excluded class has the probability 0, and the others have those without it."""
    extreme = st.sampled_from([1e30, -1e30, float(-np.finfo(dtype).max)])
    Z = data.draw(arrays(dtype, (3, K), elements=st.one_of(st.floats(-50, 50, width=32), extreme).map(dtype)))
    allowed = data.draw(arrays(np.bool_, K).filter(lambda mask: mask.any()))
    P = d.softmax(Z, allowed=allowed)
    assert (P[:, ~allowed] == 0).all()
    rest = d.softmax(np.ascontiguousarray(Z[:, allowed]))
    np.testing.assert_allclose(P[:, allowed], rest, rtol=2 * K * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [*CLASSES, 32, 33, 48, 100])
def test_temperature_one_is_the_identity(dtype: type[np.floating], K: int) -> None:
    """Temperature 1 gives the bits of a model, and T divides the logits."""
    Z = (np.random.default_rng(4).standard_normal((70, K)) * 9).astype(dtype)
    model = LinearModel("softmax", np.eye(K, dtype=dtype), np.zeros(K, dtype))
    assert d.softmax(Z).tobytes() == d.softmax(Z, 1.0, np.ones(K, np.bool_)).tobytes() == model.predict(Z).tobytes()
    assert d.log_softmax(Z, 1.0).tobytes() == model.log_probabilities(Z).tobytes()
    assert d.softmax(Z, 2.0).tobytes() == model.predict(Z / dtype(2)).tobytes()
    assert d.softmax(Z, 0.5).max() >= d.softmax(Z).max()


def test_invalid_arguments_are_rejected() -> None:
    """Arrays that kernels cannot read, and invalid options, are rejected."""
    Z = np.zeros((2, 3))
    for bad in (Z[0], Z[:0], Z.astype(np.float16), Z.astype(np.int64), np.asfortranarray(Z), Z.astype(">f8")):
        with pytest.raises(ValueError, match="every array"):
            d.softmax_jacobian(bad)
    for temperature in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="temperature"):
            d.softmax(Z, temperature)
    for dtype, temperature in ((np.float32, 1e-50), (np.float64, 1e-308)):
        with pytest.raises(ValueError, match="temperature"):
            d.softmax(np.full((1, 2), 1e30, dtype), temperature)
    with pytest.raises(ValueError, match="finite"):
        d.softmax(np.array([[np.inf, 0]]))
    for mask in (np.zeros(3, np.bool_), np.ones(2, np.bool_), np.ones(3)):
        with pytest.raises(ValueError, match="allowed"):
            d.softmax(Z, allowed=mask)
    with pytest.raises(ValueError, match="one dtype"):
        d.softmax_product(Z, Z.astype(np.float32))
    with pytest.raises(ValueError, match="one dtype"):
        d.affine_backward(Z, np.zeros((3, 4)), np.zeros((2, 3)))
