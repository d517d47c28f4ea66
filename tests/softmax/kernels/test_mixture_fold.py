"""The fold of a mixture: its reference, its blocks, the rows that it skips, and its bounds."""

from itertools import pairwise
from math import lgamma
from typing import Any

import numpy as np
import pytest

from service.softmax.kernels.fold import SEEN, SKIPPED
from service.softmax.kernels.mixture_fold import FIXED, RUNNING, TRAINED
from service.softmax.kernels.shared_curvature import LANES, shared_size
from tests.support.mixtures import MixtureState, ReferenceMixture
from tests.support.reference import Array

N = 5


def draw_rows(B: int, K: int, dtype: Any = np.float64, n_features: int = N) -> tuple[Array, Array]:
    """Return rows of several scales, and labels that follow from them."""
    rng = np.random.default_rng(K)
    X = rng.standard_normal((B, n_features)) * np.exp(rng.standard_normal(n_features)) + 1
    labels = (X @ rng.standard_normal((n_features, max(K, 2))) + rng.standard_normal((B, max(K, 2)))).argmax(1)
    return X.astype(dtype), labels


@pytest.mark.parametrize(
    ("K", "wide", "heads", "form"),
    [
        (1, False, 1, RUNNING),
        (3, False, 1, RUNNING),
        (17, False, 2, RUNNING),
        (3, False, 2, TRAINED),
        (9, True, 2, TRAINED),
        (1, True, 1, RUNNING),
        (3, False, 1, FIXED),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_reference(*, K: int, wide: bool, heads: int, form: int, soft: bool) -> None:
    """Logits, matrices and the mixture are those of the textbook formulas, for all kinds of models and targets."""
    X, labels = draw_rows(80, K)
    rng = np.random.default_rng(1)
    stage = None if form == RUNNING else (rng.standard_normal(N), np.exp(rng.standard_normal(N)))
    state = MixtureState(N, K, wide=wide, heads=heads, form=form, stage=stage, firm=40.0, dtype=np.float64)
    reference = ReferenceMixture(state, stage)
    Y = np.eye(K)[labels] if K > 1 else labels[:, None].astype(np.float64)
    h = rng.uniform(0.2, 3, len(X)) if soft else np.ones(len(X))
    if soft:
        Y = 0.7 * Y + 0.3 * rng.uniform(0, 1 / K, Y.shape)
    offsets = rng.standard_normal((len(X), K)) if heads > 1 else None
    rows = zip(X, Y, h, X[:, :0] if offsets is None else offsets, strict=True)
    wanted = np.array([reference.step(x, y, t, offset if heads > 1 else None) for x, y, t, offset in rows])
    _, scores = state.fold(X, None if soft else labels, Y=Y if soft else None, weights=h, offsets=offsets)
    np.testing.assert_allclose(scores, wanted, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(state.curvature(0), reference.P[0], atol=2e-6)
    np.testing.assert_allclose(state.mix, np.concatenate([reference.a, reference.v]), atol=2e-4)
    assert state.progress[SEEN] == len(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("K", "wide", "heads"), [(1, False, 1), (10, False, 2), (3, True, 1)])
def test_blocks_of_any_size(*, K: int, wide: bool, heads: int, dtype: Any) -> None:
    """Rows folded in any blocks have the bits of one fold, and each score those of the prediction before its row."""
    X, labels = draw_rows(60, K, dtype)
    offsets = np.random.default_rng(2).standard_normal((60, K)).astype(dtype) if heads > 1 else None
    whole, parts = (MixtureState(N, K, wide=wide, heads=heads, dtype=dtype) for _ in range(2))
    losses, scores = whole.fold(X, labels, offsets=offsets)
    cuts = sorted({0, 60, *np.random.default_rng(K).integers(1, 60, 20).tolist()})
    for start, stop in pairwise(cuts):
        rows, own = X[start:stop].copy(), None if offsets is None else offsets[start:stop].copy()
        first = None if own is None else own[:1].copy()
        assert parts.logits(rows[:1].copy(), first).tobytes() == scores[start : start + 1].tobytes()
        found, found_scores = parts.fold(rows, labels[start:stop], offsets=own)
        assert found.tobytes() == losses[start:stop].tobytes()
        assert found_scores.tobytes() == scores[start:stop].tobytes()
    assert parts.tobytes() == whole.tobytes()


def test_rows_that_are_skipped() -> None:
    """A row that is not finite, names no class, or has an importance that is no positive number changes nothing."""
    X, labels = draw_rows(30, 3)
    state = MixtureState(N, 3, dtype=np.float64)
    state.fold(X, labels)
    before = state.tobytes()
    bad = np.array([[np.nan, *X[0, 1:]], [np.inf, *X[0, 1:]], [1e200, *X[0, 1:]], *X[:5]])
    weights = np.array([1, 1, 1, 1, 1, 0.0, np.nan, 1e9])
    losses, _ = state.fold(bad, np.array([0, 0, 0, 3, -1, 0, 0, 0]), weights=weights)
    assert np.isnan(losses).all()
    assert state.progress[SKIPPED] == len(bad)
    assert state.tobytes() == before


def test_without_learning_only_counts_change() -> None:
    """Rows that are scored without learning have the losses of the state, which stays as it is."""
    X, labels = draw_rows(40, 3)
    state = MixtureState(N, 3, dtype=np.float64)
    state.fold(X[:20].copy(), labels[:20])
    before = state.tobytes()
    losses, scores = state.fold(X[20:].copy(), labels[20:], learning=False)
    assert state.tobytes() == before
    assert scores.tobytes() == state.logits(X[20:].copy()).tobytes()
    assert np.isfinite(losses).all()
    assert state.progress[SEEN] == 20


@pytest.mark.parametrize("heads", [1, 2])
def test_a_state_that_learned_nothing_answers_as_the_offset(heads: int) -> None:
    """Before the first learned row the logits are exactly those of the offset, or 0."""
    X, _ = draw_rows(70, 4, np.float32)
    offsets = np.random.default_rng(3).standard_normal((70, 4)).astype(np.float32) if heads > 1 else None
    Z = MixtureState(N, 4, heads=heads).logits(X, offsets)
    assert Z.tobytes() == (np.zeros((70, 4), np.float32) if offsets is None else offsets).tobytes()


def test_never_much_worse_than_an_expert() -> None:
    """On labels that change their meaning, the total loss stays within the guard's bound of each expert's."""
    X, labels = draw_rows(300, 3)
    labels[150:] = (labels[150:] + 1) % 3
    state = MixtureState(N, 3, dtype=np.float64)
    reference = ReferenceMixture(state)
    for x, label in zip(X, labels, strict=True):
        reference.step(x, np.eye(3)[label])
    losses, _ = state.fold(X, labels)
    experts = np.sum(reference.expert_losses, 0)
    assert losses.sum() <= experts.min() + np.log(4) + len(X) * -np.log1p(-0.001) + 0.1


@pytest.mark.parametrize("K", [1, 4])
def test_never_much_worse_than_the_frequencies(K: int) -> None:
    """Also if each row has the label that the answer finds least probable."""
    X, _ = draw_rows(300, K)
    state, C, total = MixtureState(N, K, dtype=np.float64), max(K, 2), 0.0
    counts = np.zeros(C)
    for row in X:
        P, _, _ = state.predict(row[None].copy())
        label = P.argmin(1)
        losses, _ = state.fold(row[None].copy(), label)
        total, counts[label] = total + losses[0], counts[label] + 1
    n, members = len(X), len(state.mix_curvature) + 2
    frequencies = lgamma(n + C) - lgamma(C) - sum(lgamma(count + 1) for count in counts)
    assert frequencies <= n * np.log(C) + (C - 1) * (1 + np.log((n + C - 1) / (C - 1)))
    assert n * np.log(C) < total <= frequencies + np.log(members) - n * np.log1p(-0.001) + 1e-6


@pytest.mark.parametrize("wide", [False, True])
def test_hostile_rows_leave_a_finite_state(*, wide: bool) -> None:
    """Constant, huge and contradicting rows of large importance leave finite numbers and a positive definite matrix."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((600, N)) * np.exp2(rng.integers(-60, 60, (600, 1)))
    X[100:200], X[:, 0] = X[0], 3.0
    state = MixtureState(N, 3, wide=wide, dtype=np.float64)
    losses, _ = state.fold(X, rng.integers(0, 3, 600), weights=np.exp2(rng.uniform(-900, 9, 600)))
    assert np.isfinite(losses).all()
    assert all(np.isfinite(array).all() for array in state.arrays())
    assert np.linalg.eigvalsh(state.curvature(0)).min() > 0
    assert np.isfinite(state.logits(X)).all()


def test_mirrored_elements_of_the_shared_matrix_are_equal() -> None:
    """The elements stored twice in the diagonal blocks stay bit-identical."""
    X, labels = draw_rows(80, 3)
    state = MixtureState(N, 3)
    state.fold(X.astype(np.float32), labels)
    P = state.shared[0][0][0]
    D = state.panels[0].shape[1]
    rows = [P[shared_size(i) : shared_size(i + 1)] for i in range(D)]
    for i in range(D):
        for j in range(i - i % LANES, i):
            assert rows[i][j].tobytes() == rows[j][i].tobytes()
