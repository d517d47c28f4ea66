"""Losses, log-probabilities and gradients against references, other libraries, differences and identities."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import log_loss

from service.errors import UnacceptableError
from service.softmax.classifier import HEADS as CODES
from service.softmax.input_stage import Delta, Stage
from service.softmax.kernels.loss import cross_entropy_backward, cross_entropy_forward, log_probabilities_forward
from service.softmax.linear_model import LinearModel
from tests.support.budgets import examples
from tests.support.reference import DTYPES, HEADS, Array, log_probabilities, logit_gradient, losses, targets

CLASSES = (1, 2, 7, 8, 9, 16, 17, 40)
GUARD = 32


def forward(head: str, Z: Array, Y: Array) -> Array:
    """Return the losses (B,) by the kernel, and check guards around them."""
    out = np.full(len(Z) + 2 * GUARD, -7.0)
    cross_entropy_forward(Z, Y, CODES[head], out[GUARD:-GUARD])
    assert (out[:GUARD] == -7).all()
    assert (out[-GUARD:] == -7).all()
    return out[GUARD:-GUARD]


def backward(head: str, Z: Array, Y: Array) -> Array:
    """Return the gradient of the logits (B, K) by the kernel, and check guards around it."""
    out = np.full(Z.size + 2 * GUARD, -7, Z.dtype)
    assert cross_entropy_backward(Z, Y, CODES[head], out[GUARD:-GUARD].reshape(Z.shape))
    assert (out[:GUARD] == -7).all()
    assert (out[-GUARD:] == -7).all()
    return out[GUARD:-GUARD].reshape(Z.shape)


def log_forward(head: str, Z: Array) -> Array:
    """Return log-probabilities by the kernel, and check guards around them."""
    K = 2 if head == "sigmoid" else Z.shape[1]
    out = np.full(len(Z) * K + 2 * GUARD, -7.0)
    log_probabilities_forward(Z, CODES[head], out[GUARD:-GUARD].reshape(len(Z), K))
    assert (out[:GUARD] == -7).all()
    assert (out[-GUARD:] == -7).all()
    return out[GUARD:-GUARD].reshape(len(Z), K)


def classes(head: str) -> tuple[int, ...]:
    """Return the numbers of logits to test a head with."""
    return (1,) if head == "sigmoid" else CLASSES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["hard", "soft", "any"])
@pytest.mark.parametrize("spread", [0.1, 5, 200])
def test_losses_against_references(head: str, dtype: type[np.floating], kind: str, spread: float) -> None:
    """Losses have float64's accuracy for hard, soft and unnormalized targets, for models of either dtype."""
    rng = np.random.default_rng(0)
    for K in classes(head):
        Z, Y = (rng.standard_normal((70, K)) * spread).astype(dtype), targets(head, kind, 70, K, rng)
        size = 1 + np.abs(Z).max(axis=1) * (1 + Y.sum(axis=1))
        assert (np.abs(forward(head, Z, Y) - losses(head, Z, Y)) <= 4 * K * size * np.finfo(np.float64).eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["hard", "soft", "any"])
@pytest.mark.parametrize("spread", [0.1, 5, 200])
def test_gradients_against_references(head: str, dtype: type[np.floating], kind: str, spread: float) -> None:
    """Logit gradients have the accuracy of the model's dtype, in batches of more than one block."""
    rng = np.random.default_rng(1)
    for K in classes(head):
        Z, Y = (rng.standard_normal((70, K)) * spread).astype(dtype), targets(head, kind, 70, K, rng)
        size = (1 + np.abs(Z).max(axis=1, keepdims=True)) * (1 + Y.sum(axis=1, keepdims=True))
        error = np.abs(backward(head, Z, Y) - logit_gradient(head, Z, Y))
        assert (error <= 4 * size * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("spread", [0.1, 5, 2000])
def test_log_probabilities_against_references(head: str, dtype: type[np.floating], spread: float) -> None:
    """Log-probabilities have float64's accuracy also if the probability underflows."""
    rng = np.random.default_rng(2)
    for K in classes(head):
        Z = (rng.standard_normal((20, K)) * spread).astype(dtype)
        size = 4 * K * (1 + np.abs(Z).max(axis=1, keepdims=True))
        error = np.abs(log_forward(head, Z) - log_probabilities(head, Z))
        assert (error <= size * np.finfo(np.float64).eps).all()


def test_softmax_against_scipy() -> None:
    """Softmax log-probabilities, losses and gradients equal those computed with SciPy.

    A log-probability near 0 is a difference of numbers of the size of the logits, and has their error.
    """
    rng = np.random.default_rng(3)
    Z, Y = rng.standard_normal((50, 11)) * 9, rng.dirichlet(np.ones(11), 50)
    np.testing.assert_allclose(log_forward("softmax", Z), log_softmax(Z, axis=1), rtol=1e-13, atol=2e-14)
    np.testing.assert_allclose(forward("softmax", Z, Y), -(Y * log_softmax(Z, axis=1)).sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(backward("softmax", Z, Y), softmax(Z, axis=1) - Y, rtol=1e-11, atol=1e-15)


def test_sigmoids_against_scipy() -> None:
    """Binary log-probabilities, losses and gradients equal those computed with SciPy."""
    rng = np.random.default_rng(4)
    Z, Y = rng.standard_normal((50, 11)) * 9, rng.uniform(0, 1, (50, 11))
    expected = -(Y * log_expit(Z) + (1 - Y) * log_expit(-Z)).sum(axis=1)
    np.testing.assert_allclose(log_forward("multilabel", Z), log_expit(Z), rtol=1e-13, atol=2e-14)
    z = Z[:, :1].copy()
    np.testing.assert_allclose(log_forward("sigmoid", z), log_expit(z * [-1, 1]), rtol=1e-13, atol=2e-14)
    for head in ("multilabel", "ovr"):
        np.testing.assert_allclose(forward(head, Z, Y), expected, rtol=1e-13)
        np.testing.assert_allclose(backward(head, Z, Y), expit(Z) - Y, rtol=1e-11, atol=1e-15)


def test_mean_loss_against_scikit_learn() -> None:
    """The mean loss of hard targets equals scikit-learn's log_loss of the probabilities."""
    rng = np.random.default_rng(5)
    Z, labels = rng.standard_normal((200, 6)), rng.integers(0, 6, 200)
    model = LinearModel("softmax", np.eye(6), np.zeros(6))
    mean = model.losses(Z, np.eye(6)[labels]).mean()
    assert mean == pytest.approx(log_loss(labels, model.predict(Z), labels=range(6)), rel=1e-12)
    z, y = rng.standard_normal((200, 1)), rng.integers(0, 2, (200, 1)).astype(float)
    binary = LinearModel("sigmoid", np.eye(1), np.zeros(1))
    assert binary.losses(z, y).mean() == pytest.approx(log_loss(y[:, 0], binary.predict(z)), rel=1e-12)


def difference(loss: Callable[[Array], float], at: Array) -> Array:
    """Return central differences of a function at a float64 array, one element at a time."""
    slope = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-5
        slope[index] = (loss(at + step) - loss(at - step)) / 2e-5
    return slope


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["hard", "soft", "any"])
@pytest.mark.parametrize("clip", [None, 0.8, "no stage"])
def test_gradients_against_finite_differences(head: str, kind: str, clip: float | str | None) -> None:
    """dW, db and dX are the slopes of the summed loss to 1e-6, with and without a stage and a clip."""
    rng = np.random.default_rng(6)
    B, N, K = 9, 4, 1 if head == "sigmoid" else 3
    X, W, b = rng.standard_normal((B, N)), rng.standard_normal((N, K)), rng.standard_normal(K)
    Y = targets(head, kind, B, K, rng)
    statistics = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), None if clip is None else 0.8)
    stage = None if clip == "no stage" else statistics

    def loss(X: Array, W: Array, b: Array) -> float:
        return float(LinearModel(head, W, b, stage).losses(X, Y).sum())

    found = LinearModel(head, W, b, stage).gradients(X, Y)
    assert np.array_equal(found.losses, LinearModel(head, W, b, stage).losses(X, Y))
    for name, exact, got in (
        ("dW", difference(lambda W: loss(X, W, b), W), found.dW),
        ("db", difference(lambda b: loss(X, W, b), b), found.db),
        ("dX", difference(lambda X: loss(X, W, b), X), found.dX),
    ):
        assert got.shape == exact.shape
        assert np.abs(got - exact).max() <= 1e-6 * np.abs(exact).max(), name
    if clip == 0.8:
        assert (found.dX == 0).any(), "some feature is clipped"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("clip", [None, "no stage"])
def test_gradients_with_a_delta_against_finite_differences(head: str, clip: str | None) -> None:
    """With a delta, dD is the slope of its weights, and dX the sum of both slopes."""
    rng = np.random.default_rng(12)
    B, N, K = 9, 4, 1 if head == "sigmoid" else 3
    X, W, D, b = (rng.standard_normal(shape) for shape in ((B, N), (N, K), (N, K), K))
    Y = targets(head, "soft", B, K, rng)
    own = None if clip == "no stage" else Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)))
    stage = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 0.8)

    def loss(X: Array, D: Array) -> float:
        return float(LinearModel(head, W, b, own, Delta(D, stage)).losses(X, Y).sum())

    found = LinearModel(head, W, b, own, Delta(D, stage)).gradients(X, Y)
    for exact, got in (
        (difference(lambda D: loss(X, D), D), found.dD),
        (difference(lambda X: loss(X, D), X), found.dX),
    ):
        assert got.shape == exact.shape
        assert np.abs(got - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_gradients_of_a_model(head: str, dtype: type[np.floating]) -> None:
    """dW = X^T dZ, db = sum of dZ and dX = dZ W^T, in the model's dtype and with its accuracy."""
    rng = np.random.default_rng(7)
    K = 1 if head == "sigmoid" else 20
    X, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((130, 30), (30, K), K))
    Y = targets(head, "soft", 130, K, rng)
    found = LinearModel(head, W, b).gradients(X, Y)
    dZ = logit_gradient(head, X.astype(np.longdouble) @ W + b, Y)
    tolerance = 2000 * np.finfo(dtype).eps
    for got, exact in ((found.dW, X.T @ dZ), (found.db, dZ.sum(axis=0)), (found.dX, dZ @ W.T)):
        assert got.dtype == dtype
        assert np.abs(got - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 16, 17, 100])
def test_softmax_gradient_rows_sum_to_zero(dtype: type[np.floating], K: int) -> None:
    """For a multiple of a distribution the gradient of a row sums to 0 up to rounding."""
    rng = np.random.default_rng(8)
    Z = (rng.standard_normal((70, K)) * 5).astype(dtype)
    Y = rng.dirichlet(np.ones(K), 70)
    for mass in (1, 3):
        sums = backward("softmax", Z, mass * Y).sum(axis=1, dtype=np.float64)
        assert np.abs(sums).max() <= 2 * mass * K * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_gradient_holds_the_returned_probabilities(head: str, dtype: type[np.floating]) -> None:
    """For targets of 0, or of one class, the gradient holds the returned probabilities."""
    rng = np.random.default_rng(9)
    K = 1 if head == "sigmoid" else 17
    Z, Y = (rng.standard_normal((70, K)) * 3).astype(dtype), np.zeros((70, K))
    if head == "softmax":
        Y[:, 0] = 1
    served = "softmax" if head == "softmax" else "multilabel"
    P = LinearModel(served, np.eye(K, dtype=dtype), np.zeros(K, dtype)).predict(Z)
    first = 1 if head == "softmax" else 0
    assert np.array_equal(backward(head, Z, Y)[:, first:], P[:, first:])


@settings(deadline=None, max_examples=examples(400))
@given(st.data(), st.sampled_from(HEADS), st.sampled_from(DTYPES))
def test_extreme_logits(data: st.DataObject, head: str, dtype: type[np.floating]) -> None:
    """Losses, log-probabilities and gradients of any finite float32 logits are finite, in either dtype."""
    K = 1 if head == "sigmoid" else data.draw(st.sampled_from(CLASSES))
    ends = st.sampled_from([3.4e38, -3.4e38, 1e-45, 0.0, 88.0, -88.0, 710.0, -746.0])
    anything = st.one_of(ends, st.floats(width=32, allow_nan=False, allow_infinity=False))
    Z = data.draw(arrays(np.float32, (3, K), elements=anything.map(np.float32))).astype(dtype)
    Y = targets(head, data.draw(st.sampled_from(["hard", "soft", "any"])), 3, K, np.random.default_rng(10))
    assert np.isfinite(forward(head, Z, Y)).all()
    assert np.isfinite(log_forward(head, Z)).all()
    gradient = backward(head, Z, Y)
    assert (np.abs(gradient) <= 2 * max(K, 1)).all()
    assert (forward(head, Z, np.clip(Y, 0, 1)) >= 0).all()


def test_largest_logits_of_float64() -> None:
    """The loss of a certain prediction is 0, also if logits differ by more than float64 can represent."""
    Z = np.array([[1.7e308, -1.7e308, 0]])
    assert forward("softmax", Z, np.array([[1.0, 0, 0]]))[0] == 0
    assert forward("softmax", Z, np.array([[0.0, 0, 1]]))[0] == 1.7e308


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_reports_overflow(dtype: type[np.floating]) -> None:
    """The backward kernel returns False for a logit that is not finite."""
    for bad in (np.inf, -np.inf, np.nan):
        Z = np.array([[0, 1], [bad, 0]], dtype)
        for head in ("softmax", "multilabel"):
            assert not cross_entropy_backward(Z, np.zeros((2, 2)), CODES[head], np.empty_like(Z))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_logarithms_near_one_keep_their_digits(head: str, dtype: type[np.floating]) -> None:
    """Loss and log-probability of a nearly certain class have a relative error of 1e-14, down to e**-700."""
    for gap in (1.0, 20.0, 36.0, 40.0, 100.0, 600.0):
        Z = np.array([[gap]] if head == "sigmoid" else [[gap / 2, -gap / 2, -gap / 2 - 1]], dtype)
        Y = np.ones((1, 1)) if head == "sigmoid" else np.array([[1.0, 0, 0]])
        exact = log_probabilities(head, Z)
        at = 1 if head == "sigmoid" else 0
        assert 0 < -log_forward(head, Z)[0, at] == pytest.approx(float(-exact[0, at]), rel=1e-14)
        assert forward(head, Z, Y)[0] == pytest.approx(float(losses(head, Z, Y)[0]), rel=1e-14)


STEEP: dict[str, Callable[[LinearModel, Array, Array], object]] = {
    "losses": lambda model, X, Y: model.losses(X, Y),
    "gradients": lambda model, X, Y: model.gradients(X, Y),
    "log_probabilities": lambda model, X, _: model.log_probabilities(X),
}


@pytest.mark.parametrize("method", STEEP)
def test_rows_without_a_prediction_have_no_loss(method: str) -> None:
    """Rows that overflow float64 are rejected as in `predict`."""
    Y = np.array([[1.0, 0]])
    double = LinearModel("softmax", np.full((1, 2), 10.0), np.zeros(2))
    with pytest.raises(UnacceptableError, match="overflow"):
        STEEP[method](double, np.array([[1e308]]), Y)
    narrow = LinearModel("softmax", np.full((1, 2), 10, np.float32), np.zeros(2, np.float32))
    with pytest.raises(UnacceptableError, match="finite"):
        STEEP[method](narrow, np.array([[np.inf]], np.float32), Y)


@pytest.mark.parametrize("stage", [None, Stage(np.ones(3), np.full(3, 2.0))], ids=["raw", "staged"])
@pytest.mark.parametrize("head", HEADS)
def test_losses_of_overflowing_rows(head: str, stage: Stage | None) -> None:
    """Rows that overflow float32 have the losses and gradients of float64; the others keep their bits."""
    rng = np.random.default_rng(11)
    K = 1 if head == "sigmoid" else 4
    W, b, X = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, K), K, (8, 3)))
    Y = targets(head, "soft", 8, K, rng)
    W[0], W[1] = 7, -7
    X[[2, 5]] = [[2e38, 2e38, 1], [-1e38, -1e38, 1]]
    model, usual = LinearModel(head, W, b, stage), np.array([0, 1, 3, 4, 6, 7])
    double = LinearModel(head, W.astype(np.float64), b.astype(np.float64), stage)
    assert np.isfinite(model.predict(X)).all()
    for got, plain, exact in (
        (model.log_probabilities(X), model.log_probabilities(X[usual]), double.log_probabilities(X.astype(float))),
        (model.losses(X, Y), model.losses(X[usual], Y[usual]), double.losses(X.astype(float), Y)),
    ):
        assert np.array_equal(got[usual], plain)
        assert np.array_equal(got[[2, 5]], exact[[2, 5]])
    found, exact = model.gradients(X, Y), double.gradients(X.astype(float), Y)
    assert np.array_equal(found.losses, model.losses(X, Y))
    assert np.array_equal(found.dX[usual], model.gradients(X[usual], Y[usual]).dX)
    assert np.array_equal(found.dX[[2, 5]], exact.dX[[2, 5]].astype(np.float32))
    for got, wanted in ((found.dW, exact.dW), (found.db, exact.db)):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_that_overflow_float32_are_rejected() -> None:
    """Rows whose summed gradient overflows float32 have a loss, but no gradient."""
    model = LinearModel("softmax", np.zeros((1, 2), np.float32), np.zeros(2, np.float32))
    X, Y = np.full((3, 1), 3e38, np.float32), np.eye(2)[[0, 0, 0]]
    assert np.isfinite(model.losses(X, Y)).all()
    with pytest.raises(UnacceptableError, match="gradient"):
        model.gradients(X, Y)
    assert model.gradients(X[[0, 1, 2, 0]], np.eye(2)[[0, 0, 1, 1]]).dW.tolist() == [[0, 0]]
    with pytest.raises(UnacceptableError, match="gradient"):
        LinearModel("softmax", np.zeros((1, 2)), np.zeros(2)).gradients(np.full((4, 1), 1.7e308), Y[[0, 0, 0, 0]])
