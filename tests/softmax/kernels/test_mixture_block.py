"""Predictions of a mixture in blocks of rows side by side have the bits of those of single rows."""

import numpy as np
import pytest

from service.softmax.kernels.mixture_block import mixture_block_forward
from service.softmax.kernels.mixture_predict import mixture_predict_forward
from service.softmax.mixture_model import BLOCK_ROWS
from tests.support.mixture_states import learned_mixture, make_rows
from tests.support.mixtures import MixtureState
from tests.support.reference import Array

SHAPES = [
    (1, 2, False, 1), (6, 1, False, 1), (6, 3, True, 1), (9, 10, False, 2), (20, 33, False, 1), (5, 70, False, 2),
    (130, 17, True, 2), (16, 8, False, 1),
]  # fmt: skip


def learned(N: int, K: int, *, wide: bool, heads: int) -> tuple[MixtureState, Array, Array | None]:
    """Return a mixture that has learned, 150 other rows, and their offsets."""
    rng = np.random.default_rng(N)
    state, X = MixtureState(N, K, wide=wide, heads=heads), rng.standard_normal((250, N)).astype(np.float32)
    offsets = rng.standard_normal((250, K)).astype(np.float32) if heads > 1 else None
    first = None if offsets is None else offsets[:100].copy()
    state.fold(X[:100].copy(), rng.integers(0, max(K, 2), 100), offsets=first)
    return state, X[100:].copy(), None if offsets is None else offsets[100:].copy()


@pytest.mark.parametrize(("N", "K", "wide", "heads"), SHAPES)
@pytest.mark.parametrize("broken", [False, True])
def test_a_block_has_the_bits_of_its_rows(*, N: int, K: int, wide: bool, heads: int, broken: bool) -> None:
    """Logits, probabilities and labels are the same, also if rows are not finite or logits overflow."""
    state, X, offsets = learned(N, K, wide=wide, heads=heads)
    if broken:
        X[[3, 80, 149], [0, N // 2, N - 1]] = np.nan, -np.inf, np.inf
        if offsets is not None:
            offsets[[7, 90]] = np.inf
    found, wanted = [], []
    for kernel, results in ((mixture_block_forward, found), (mixture_predict_forward, wanted)):
        Z, P = np.full((150, K), 7, np.float32), np.full((150, max(K, 2)), 7, np.float32)
        labels = np.empty(150, np.int64)
        first = kernel(X, *state.served(offsets), Z, P, labels)
        P[labels < 0] = 0  # unset by either kernel
        results += [Z.tobytes(), P.tobytes(), labels.tobytes(), first]
    assert found == wanted


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("has_offset", [False, True])
def test_batches_of_every_size(head: str, *, has_offset: bool) -> None:
    """A batch of any size has the bits of its rows, whichever kernels take its parts."""
    model, (X, _) = learned_mixture(head, has_offset=has_offset), make_rows(head)
    P, labels = model.classify(X)
    Z = model.logits(X)
    for count in (1, BLOCK_ROWS // 2 - 1, BLOCK_ROWS // 2, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS - 1, len(X)):
        part, part_labels = model.classify(X[:count].copy())
        assert part.tobytes() == P[:count].tobytes()
        assert part_labels == labels[:count]
        assert model.logits(X[:count].copy()).tobytes() == Z[:count].tobytes()
    assert all(model.predict(X[i : i + 1]).tobytes() == P[i : i + 1].tobytes() for i in range(len(X)))
