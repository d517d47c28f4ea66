"""Predictions of a mixture: the same bits alone and in blocks, and rows that are not finite."""

from typing import Any

import numpy as np
import pytest

from service.softmax.kernels.heads import NOT_FINITE
from tests.support.mixtures import MixtureState
from tests.support.reference import log_probabilities


def learned(K: int, dtype: Any, *, wide: bool = False) -> tuple[MixtureState, Any]:
    """Return a mixture that has learned, and 150 other rows."""
    rng = np.random.default_rng(K)
    state, X = MixtureState(6, K, wide=wide, dtype=dtype), rng.standard_normal((250, 6)).astype(dtype)
    state.fold(X[:100].copy(), rng.integers(0, max(K, 2), 100))
    return state, X[100:].copy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("K", "wide"), [(1, False), (3, True), (10, False), (33, False)])
def test_bits_of_every_row_alone(*, K: int, wide: bool, dtype: Any) -> None:
    """Each of 150 rows has the same logits, probabilities and label alone and in the batch."""
    state, X = learned(K, dtype, wide=wide)
    Z, (P, labels, first) = state.logits(X), state.predict(X)
    assert first == labels[0]
    for i in range(len(X)):
        alone, own, label = state.predict(X[i : i + 1])
        assert alone.tobytes() == P[i : i + 1].tobytes()
        assert label == own[0] == labels[i]
        assert state.logits(X[i : i + 1]).tobytes() == Z[i : i + 1].tobytes()


@pytest.mark.parametrize("K", [1, 10])
def test_probabilities_are_those_of_the_logits(K: int) -> None:
    """The head of the logits gives the probabilities, whose largest is the label."""
    state, X = learned(K, np.float64)
    P, labels, _ = state.predict(X)
    wanted = np.exp(log_probabilities("sigmoid" if K == 1 else "softmax", state.logits(X)))
    np.testing.assert_allclose(P, wanted.astype(np.float64), rtol=1e-14)
    assert np.array_equal(labels, P.argmax(1))


def test_rows_that_are_not_finite() -> None:
    """A row with a number that is not finite gets NaN and no label; the others keep their bits."""
    state, X = learned(3, np.float32)
    P, labels, _ = state.predict(X)
    broken = X.copy()
    broken[[3, 140], [0, 5]] = np.nan, -np.inf
    Z, (found, found_labels, first) = state.logits(broken), state.predict(broken)
    rest = np.delete(np.arange(150), [3, 140])
    assert first == NOT_FINITE
    assert found_labels[[3, 140]].tolist() == [NOT_FINITE, NOT_FINITE]
    assert np.isnan(Z[[3, 140]]).all()
    assert found[rest].tobytes() == P[rest].tobytes()
    assert Z[rest].tobytes() == state.logits(X)[rest].tobytes()
    assert np.array_equal(found_labels[rest], labels[rest])
