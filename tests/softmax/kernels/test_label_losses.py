"""Losses of one label against log-probabilities, row by row, and the models that call the kernel."""

import numpy as np
import pytest

from service.errors import UnacceptableError
from service.softmax.classifier import HEADS as CODES
from service.softmax.classifier import Head
from service.softmax.kernels.label_losses import label_losses_forward
from service.softmax.kernels.loss import log_probabilities_forward
from service.softmax.linear_model import LinearModel
from tests.support.reference import DTYPES, Array

CLASSES = (1, 2, 3, 7, 8, 9, 40)
EPS = np.finfo(np.float64).eps


def forward(Z: Array, C: int, labels: Array) -> tuple[Array, Array]:
    """Return losses and answers by the kernel."""
    out, answers = np.empty(len(Z)), np.empty(len(Z), np.int64)
    assert label_losses_forward(Z, C, labels, out, answers)
    return out, answers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("spread", [0.1, 5, 200])
def test_losses_are_those_of_log_probabilities(head: str, dtype: type[np.floating], spread: float) -> None:
    """Each loss is -ln p of the label, as exact as the other kernel's also where it is tiny; the answer is the top."""
    rng = np.random.default_rng(0)
    for K in (1,) if head == "sigmoid" else CLASSES:
        C = 2 if head == "sigmoid" else K
        Z, labels = (rng.standard_normal((70, K)) * spread).astype(dtype), rng.integers(0, C, 70)
        logs = np.empty((70, C))
        log_probabilities_forward(Z, CODES[head], logs)
        losses, answers = forward(Z, C, labels)
        expected = -logs[np.arange(70), labels]
        assert (np.abs(losses - expected) <= 4 * C * EPS * expected).all()
        whole = np.hstack([np.zeros((70, 1)), Z]) if head == "sigmoid" else Z
        np.testing.assert_array_equal(answers, whole.argmax(axis=1))


@pytest.mark.parametrize("K", CLASSES)
def test_a_row_has_the_same_bits_alone(K: int) -> None:
    """No bit of a row depends on the rows beside it."""
    rng = np.random.default_rng(K)
    Z, labels = rng.standard_normal((19, K)) * 4, rng.integers(0, K, 19)
    losses, answers = forward(Z, K, labels)
    for i in range(19):
        assert forward(Z[i : i + 1], K, labels[i : i + 1]) == (losses[i], answers[i])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_logit_that_is_not_finite_is_found(bad: float) -> None:
    """The kernel says so, in any row and class."""
    labels, losses, answers = np.zeros(11, np.int64), np.empty(11), np.empty(11, np.int64)
    for i, k in np.ndindex(11, 3):
        Z = np.zeros((11, 3))
        Z[i, k] = bad
        assert not label_losses_forward(Z, 3, labels, losses, answers)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
def test_models_compute_overflowing_rows_in_float64(head: Head) -> None:
    """A row that overflows float32 has the loss of float64, the others keep theirs, and a worse row is refused."""
    K = 1 if head == "sigmoid" else 3
    weights = np.arange(2 * K, dtype=np.float32).reshape(2, K) - 2
    model = LinearModel(head, weights, np.zeros(K, np.float32))
    X = np.array([[1, 2], [3e38, -3e38], [-1, 0.5]], np.float32)
    labels = np.array([1, 0, 1])
    losses, answers = model.label_losses(X, labels)
    exact, exact_answers = model.float64_model.label_losses(X.astype(np.float64), labels)
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses, exact, rtol=1e-5)
    np.testing.assert_array_equal(answers, exact_answers)
    wide = LinearModel(head, weights.astype(np.float64) * 1e10, np.zeros(K))
    with pytest.raises(UnacceptableError):
        wide.label_losses(np.full((1, 2), 1e300), np.array([0]))
