"""Sparse learners: their rules against references, derivatives and the dense learner, their bits, and invalid rows."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn._loss import HalfMultinomialLoss
from sklearn.linear_model._linear_loss import LinearModelLoss

from service.softmax.calibration import Calibration
from service.softmax.linear_learner import LinearLearner
from service.softmax.parameters import LinearParameters
from service.softmax.progress import OUTCOMES
from service.softmax.rule import Rule, RuleName
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from tests.support.budgets import examples
from tests.support.reference import HEADS, Array
from tests.support.sparse_models import SPARSE_RULES, SparseCase, dense_model

heads, names = st.sampled_from(HEADS), st.sampled_from(list(SPARSE_RULES))
quick = settings(deadline=None, max_examples=60)


def answer(learner: SparseLearner) -> SparseModel:
    """Return the current model of a learner."""
    return learner.parameters().build_model()


def whole_weights(learner: SparseLearner) -> Array:
    """Return the current weights (N + 1, K), the bias first."""
    weights, bias = learner.parameters().weights.to_matrix()
    return np.vstack([bias, weights])


def whole_squares(learner: SparseLearner, case: SparseCase) -> Array:
    """Return the current sums G (N + 1, K) as a checkpoint has them, and the first ones of untouched columns."""
    tensors = learner.tensors()
    G = case.reference().first.copy()
    G[np.concatenate([[0], tensors["columns"] + 1])] = tensors["squares"]
    return G


def same_state(one: SparseLearner, other: SparseLearner) -> bool:
    """Return whether two learners have the same bits."""
    tensors, others = one.tensors(), other.tensors()
    return (
        tensors.keys() == others.keys()
        and all(tensor.tobytes() == others[name].tobytes() for name, tensor in tensors.items())
        and whole_weights(one).tobytes() == whole_weights(other).tobytes()
    )


def restored(case: SparseCase, learner: SparseLearner) -> SparseLearner:
    """Return a new learner of a case with the state of another one."""
    other = case.learner()
    for count in learner.added_classes:
        other.add_classes(count)
    other.restore(learner.tensors())
    return other


@quick
@given(st.data(), heads, names)
def test_rules_against_references(data: st.DataObject, head: str, name: RuleName) -> None:
    """Each rule follows its formula in float32, for every head, kind of target, importance, width and first sums."""
    rule = replace(SPARSE_RULES[name], regret=data.draw(st.sampled_from([0.0, 0.5, 5.0])))
    sizes = {
        "N": data.draw(st.integers(1, 30)),
        "K": data.draw(st.integers(2, 20)),
        "seed": data.draw(st.integers(0, 99)),
    }
    kind, firm = data.draw(st.sampled_from(["hard", "soft"])), data.draw(st.booleans())
    case = SparseCase(head, rule, kind=kind, firm=firm, **sizes)
    learner, reference = case.learner(), case.reference()
    losses = learner.fold(case.rows, Y=case.Y, weights=case.h)
    for i in range(case.B):
        row = case.rows.slice_rows(i, i + 1)
        reference.row(row.columns, row.values, case.Y[i], case.h[i], losses[i])
    np.testing.assert_allclose(whole_weights(learner), reference.W, rtol=1e-4, atol=2e-5)
    if name != "sgd":
        np.testing.assert_allclose(whole_squares(learner, case), reference.G, rtol=1e-4, atol=1e-6)
    if rule.regret:
        np.testing.assert_allclose(learner.tensors()["regret"], reference.regret, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SPARSE_RULES)
@pytest.mark.parametrize("head", HEADS)
def test_a_step_to_the_last_bits(head: str, name: RuleName) -> None:
    """With the probabilities that were served, a step differs from the formula by the rounding of fused operations."""
    case = SparseCase(head, SPARSE_RULES[name], K=5, firm=True)
    learner, reference = case.learner(), case.reference()
    for i in range(case.B):
        row, reference.W = case.rows.slice_rows(i, i + 1), whole_weights(learner)
        model = answer(learner)
        p = (SparseModel("multilabel", model.weights) if head in {"multilabel", "ovr"} else model).predict(row)[0]
        e = case.h[i] * ((p[1:] if head == "sigmoid" else p).astype(np.float64) * 1.0 - case.Y[i])
        learner.fold(row, Y=case.Y[i : i + 1], weights=case.h[i : i + 1])
        reference.step(row.columns, row.values, e)
        np.testing.assert_allclose(whole_weights(learner), reference.W, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("name", SPARSE_RULES)
@pytest.mark.parametrize("head", HEADS)
def test_the_dense_learner_learns_the_same(head: str, name: RuleName) -> None:
    """Without `forget`, which dense learners apply to absent columns too, the dense learner takes the same steps.

    Its masters are float64. Those of a sparse model are rounded to float32 at each of the 300 steps, by at most 2**-25
    of a weight, and errors of early steps change later ones; a tolerance of 2e-4 is some 20 times the sum.
    """
    case = SparseCase(head, replace(SPARSE_RULES[name], forget=0.0), N=30, K=11, B=300, kind="soft")
    start = LinearParameters(case.head, case.weights, case.bias)  # type: ignore[arg-type]
    dense = LinearLearner(start, "plain", case.rule, np.full(case.K, 0.5))
    learner = case.learner()
    scores, dense_scores = np.empty((2, case.B, case.K), np.float32)
    losses = learner.fold(case.rows, Y=case.Y, weights=case.h, scores=scores)
    expected = dense.fold(case.rows.to_matrix(case.N), Y=case.Y, weights=case.h, scores=dense_scores)
    np.testing.assert_allclose(losses, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(scores, dense_scores, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(whole_weights(learner), dense.tensors()["masters"], rtol=2e-4, atol=2e-4)
    found, wanted = learner.progress, dense.progress
    assert found.keys() == wanted.keys()
    for count in ("rows", "skipped_rows", "steps", "recent_rows", "accuracy"):
        assert found[count] == wanted[count]
    np.testing.assert_allclose(learner.window, dense.window, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_steps_against_finite_differences(head: str) -> None:
    """One step of sgd is the slope of the training loss, by central differences of the float64 model."""
    case = SparseCase(head, Rule("sgd", rate=1.0), B=1, kind="soft", N=6)
    row, W = case.rows, np.vstack([case.bias, case.weights]).astype(np.float64)

    def loss(moved: Array) -> float:
        # Float32 weights would round a small difference away, so the dense model of float64 weights computes it.
        model = dense_model(answer(case.learner()))
        wide = type(model)(model.head, moved[1:].copy(), moved[0].copy())
        return float(wide.losses(row.to_matrix(case.N).astype(np.float64), case.Y)[0])

    slope = np.empty_like(W)
    for at in np.ndindex(*W.shape):
        step = np.zeros_like(W)
        step[at] = 1e-5
        slope[at] = (loss(W + step) - loss(W - step)) / 2e-5
    learner = case.learner()
    learner.fold(row, Y=case.Y)
    np.testing.assert_allclose(W - whole_weights(learner), slope, rtol=1e-5, atol=1e-6)
    absent = np.setdiff1d(np.arange(case.N), row.columns)
    assert not slope[absent + 1].any()


def test_steps_against_scikit_learn() -> None:
    """A step of sgd is the gradient of scikit-learn's log loss of the row's dense matrix."""
    case = SparseCase("softmax", Rule("sgd", rate=1.0), B=20, N=15, K=4)
    labels, loss = case.Y.argmax(axis=1), LinearModelLoss(HalfMultinomialLoss(n_classes=4), fit_intercept=True)
    for i in range(case.B):
        row = case.rows.slice_rows(i, i + 1)
        coefficients = np.vstack([case.weights, case.bias]).T.astype(np.float64)
        X, y = row.to_matrix(case.N).astype(np.float64), labels[i : i + 1].astype(np.float64)
        _, gradient = loss.loss_gradient(np.asfortranarray(coefficients), X, y)
        learner = case.learner()
        learner.fold(row, labels[i : i + 1])
        moved = np.vstack([case.bias, case.weights]) - whole_weights(learner)
        expected = gradient.reshape(coefficients.shape, order="F").T
        np.testing.assert_allclose(moved, np.vstack([expected[-1], expected[:-1]]), rtol=1e-5, atol=1e-6)


@quick
@given(st.data(), heads, names)
def test_rows_are_scored_like_predictions(data: st.DataObject, head: str, name: RuleName) -> None:
    """The loss of a row has the bits of the loss of the prediction before its step, and so have its scores."""
    case = SparseCase(
        head, SPARSE_RULES[name], K=data.draw(st.integers(2, 40)), seed=data.draw(st.integers(0, 99)), B=6
    )
    learner = case.learner()
    learner.fold(case.rows.slice_rows(0, 3), Y=case.Y[:3])
    for i in range(3, 6):
        model, row, y = answer(learner), case.rows.slice_rows(i, i + 1), case.Y[i : i + 1]
        expected = model.losses(row, y)[0]
        if head == "ovr":
            logs = model.log_probabilities(row)[0]
            expected = sum(-y[0, k] * logs[k] for k in range(case.K) if y[0, k])
        found, scores = learner.classify(row, None), np.empty((1, case.K), np.float32)
        assert found is not None
        assert found[0].tobytes() == model.predict(row).tobytes()
        assert learner.fold(row, Y=y, scores=scores)[0] == expected
        assert scores.tobytes() == model.logits(row).tobytes()


def test_answers_are_calibrated() -> None:
    """A calibration changes the answer to a row, not the row's scores."""
    case = SparseCase("softmax", SPARSE_RULES["ftrl"])
    learner, row, calibration = case.learner(), case.rows.slice_rows(0, 1), Calibration("temperature", (2.5,))
    found = learner.classify(row, calibration)
    expected = replace(learner.parameters(), calibration=calibration).build_model().classify(row)
    assert found is not None
    assert (found[0].tobytes(), [found[1]]) == (expected[0].tobytes(), expected[1])
    assert learner.progress["rows"] == 0
    assert learner.classify(SparseRows(row.ends, row.columns, row.values * np.float32(np.inf)), None) is None


@quick
@given(st.data(), heads, names)
def test_blocks_of_any_size(data: st.DataObject, head: str, name: RuleName) -> None:
    """A fold in blocks, row by row, or across a copy or a checkpoint has the bits of the whole fold."""
    rule = replace(SPARSE_RULES[name], regret=data.draw(st.sampled_from([0.0, 0.5])))
    case = SparseCase(head, rule, N=data.draw(st.integers(1, 40)), K=data.draw(st.integers(2, 18)), firm=True)
    whole, learner = case.learner(), case.learner()
    expected, losses = whole.fold(case.rows, Y=case.Y, weights=case.h), []
    cuts = sorted({0, case.B, *data.draw(st.lists(st.integers(1, case.B - 1), max_size=5))})
    for start, stop in pairwise(cuts):
        rows = case.rows.slice_rows(start, stop)
        losses.append(learner.fold(rows, Y=case.Y[start:stop], weights=case.h[start:stop]))
        learner = restored(case, learner) if data.draw(st.booleans()) else learner.copy()
    assert np.concatenate(losses).tobytes() == expected.tobytes()
    assert same_state(learner, whole)


@pytest.mark.parametrize("name", SPARSE_RULES)
def test_every_cut_of_a_stream(name: RuleName) -> None:
    """A checkpoint after any of 120 rows, classes added on the way, leads to the same bits as one fold."""
    case = SparseCase("ovr", SPARSE_RULES[name], N=60, K=15, B=120, firm=True)
    labels = case.Y.argmax(axis=1)

    def continue_from(learner: SparseLearner, start: int, stop: int) -> SparseLearner:
        for first, end in pairwise(sorted({start, stop, *([50] if start < 50 < stop else [])})):
            learner.fold(case.rows.slice_rows(first, end), labels[first:end], weights=case.h[first:end])
            if end == 50:
                learner.add_classes(2)
        return learner

    whole = continue_from(case.learner(), 0, 120)
    for cut in range(1, 120):
        part = continue_from(case.learner(), 0, cut)
        other = restored(case, part)
        for again in (part.copy(), other):
            assert same_state(continue_from(again, cut, 120), whole), cut


@pytest.mark.parametrize("name", SPARSE_RULES)
def test_only_present_columns_change(name: RuleName) -> None:
    """A row changes its columns and the bias alone, and only these are in a checkpoint."""
    case = SparseCase("softmax", replace(SPARSE_RULES[name], regret=0.1), N=200, B=5)
    learner, before = case.learner(), np.vstack([case.bias, case.weights])
    assert learner.touched.changed().tolist() == []
    assert learner.tensors()["weights"].shape == (1, case.K)
    learner.fold(case.rows, Y=case.Y)
    touched = np.unique(case.rows.columns)
    absent = np.setdiff1d(np.arange(200), touched)
    after = whole_weights(learner)
    assert after[absent + 1].tobytes() == before[absent + 1].tobytes()
    assert (after[touched + 1] != before[touched + 1]).any(axis=1).all()
    tensors = learner.tensors()
    assert tensors["columns"].tolist() == learner.touched.changed().tolist() == touched.tolist()
    assert tensors["weights"].tobytes() == after[np.concatenate([[0], touched + 1])].tobytes()


@quick
@given(st.data(), names)
def test_changes_beside_a_saved_whole_are_the_current_weights(data: st.DataObject, name: RuleName) -> None:
    """The parameters of `clear_changes` with the table of the columns changed since are those of the learner."""
    case = SparseCase("softmax", SPARSE_RULES[name], N=data.draw(st.integers(1, 90)), K=data.draw(st.integers(2, 18)))
    cut = data.draw(st.integers(0, case.B))
    learner = case.learner()
    learner.fold(case.rows.slice_rows(0, cut), Y=case.Y[:cut])
    saved = learner.parameters()
    learner.touched.clear_changes("whole")
    assert learner.touched.changed().size == 0
    learner.fold(case.rows.slice_rows(cut, case.B), Y=case.Y[cut:])
    served = SparseParameters("softmax", SparseWeights(saved.weights.base, case.K, *learner.build_changes()))
    for found, expected in zip(served.tensors(), learner.parameters().tensors(), strict=True):
        assert found.tobytes() == expected.tobytes()
    assert served.build_model().predict(case.rows).tobytes() == answer(learner).predict(case.rows).tobytes()
    assert learner.tensors()["columns"].tolist() == np.unique(case.rows.columns).tolist()
    restored_columns = restored(case, learner).touched.changed()
    assert restored_columns.tolist() == np.unique(case.rows.columns).tolist()


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
@pytest.mark.parametrize("name", SPARSE_RULES)
def test_labels_are_targets(head: str, name: RuleName) -> None:
    """Class indices and one-hot targets give the same bits."""
    case = SparseCase(head, SPARSE_RULES[name], K=5)
    labels = case.Y[:, 0].astype(np.int64) if head == "sigmoid" else case.Y.argmax(axis=1)
    Y = labels[:, None].astype(np.float64) if head == "sigmoid" else np.eye(5)[labels]
    one, other = case.learner(), case.learner()
    assert one.fold(case.rows, labels).tobytes() == other.fold(case.rows, Y=Y).tobytes()
    assert same_state(one, other)


@pytest.mark.parametrize("name", SPARSE_RULES)
def test_a_step_is_limited_by_the_clip(name: RuleName) -> None:
    """The largest change of a logit of the own row is the clip."""
    case = SparseCase("softmax", replace(SPARSE_RULES[name], step_clip=1e-3), B=1)
    learner = case.learner()
    before = answer(learner).logits(case.rows)
    learner.fold(case.rows, Y=case.Y)
    assert np.abs(answer(learner).logits(case.rows) - before).max() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", SPARSE_RULES)
def test_first_squares_make_columns_firm(name: RuleName) -> None:
    """A column that begins with a large G hardly moves; one without learns at once."""
    case = SparseCase("softmax", SPARSE_RULES[name], N=2, B=1)
    case.first = np.array([1.0, 1e6, 0.0])
    rows = SparseRows(np.array([2], np.int64), np.array([0, 1], np.int32), np.ones(2, np.float32))
    learner, before = case.learner(), np.vstack([case.bias, case.weights])
    learner.fold(rows, Y=case.Y)
    moved = np.abs(whole_weights(learner) - before).max(axis=1)
    if name == "sgd":
        assert moved[1] == pytest.approx(moved[2], rel=1e-5)
    else:
        assert moved[1] < 1e-2 * moved[2]


def test_squares_return_to_their_first_values() -> None:
    """With a high `forget`, G of a present column returns to its own first value; an absent one keeps its G."""
    rule = replace(SPARSE_RULES["adagrad"], forget=0.1)
    case = SparseCase("softmax", rule, N=3)
    case.first = np.array([1.0, 2.0, 3.0, 4.0])
    learner = case.learner()
    both = SparseRows(np.array([2], np.int64), np.array([0, 1], np.int32), np.ones(2, np.float32))
    learner.fold(both, np.zeros(1, np.int64))
    before = learner.tensors()["squares"]
    zeros = SparseRows(np.array([1], np.int64), np.array([0], np.int32), np.zeros(1, np.float32))
    for _ in range(200):
        learner.fold(zeros, np.zeros(1, np.int64), weights=np.full(1, 1e-9))
    after = learner.tensors()["squares"]
    np.testing.assert_allclose(after[:2], np.repeat([[1.0], [2.0]], 3, axis=1), rtol=1e-6)
    assert np.array_equal(after[2], before[2])


@pytest.mark.parametrize("name", SPARSE_RULES)
def test_skipped_rows_change_nothing(name: RuleName) -> None:
    """Rows that are not finite, too large, of other columns, or without a class or importance are only counted."""
    case = SparseCase("softmax", SPARSE_RULES[name], B=14)
    X = np.abs(case.rows.to_matrix(case.N)) + np.float32(0.5)
    labels, h, ends = case.Y.argmax(axis=1), np.ones(14), np.arange(1, 15) * case.N
    columns, values = np.tile(np.arange(case.N, dtype=np.int32), (14, 1)), X.copy()
    values[1, 0], values[3, 2], values[4, 4], values[10, 0] = np.nan, np.inf, -np.inf, 2.0**60
    columns[2, -1], columns[11, 0], columns[12, 1] = case.N, -1, 0
    labels[[5, 6]] = -1, 3
    h[[7, 8, 9]] = 0, np.nan, np.inf
    good = np.array([0, 13])
    learner, clean = case.learner(), case.learner()
    rows = SparseRows(ends.astype(np.int64), columns.ravel(), values.ravel())
    found = learner.fold(rows, labels, weights=h)
    expected = clean.fold(rows.take(good), labels[good], weights=h[good])
    assert np.flatnonzero(np.isfinite(found)).tolist() == good.tolist()
    assert found[good].tobytes() == expected.tobytes()
    assert learner.progress["skipped_rows"] == 12
    one, other = learner.tensors(), clean.tensors()
    for tensor in one.keys() - {"progress"}:
        assert one[tensor].tobytes() == other[tensor].tobytes(), tensor


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
@pytest.mark.parametrize("head", HEADS)
def test_invalid_targets_are_skipped(head: str, bad: float) -> None:
    """A row with a target outside [0, 1] is skipped."""
    case = SparseCase(head, SPARSE_RULES["ftrl"], B=1)
    case.Y[0, -1] = bad
    learner = case.learner()
    assert np.isnan(learner.fold(case.rows, Y=case.Y)[0])
    assert learner.progress["skipped_rows"] == 1


def test_rows_that_contradict_themselves_are_refused() -> None:
    """Ends that do not divide the entries are a fault of the caller; nothing is counted."""
    case = SparseCase("softmax", SPARSE_RULES["ftrl"], B=2)
    learner, rows = case.learner(), case.rows
    for ends in ([3, 2], [1, len(rows.columns) + 1], [1, 2]):
        with pytest.raises(ValueError, match="ends must not descend"):
            learner.fold(rows._replace(ends=np.array(ends, np.int64)), Y=case.Y)
    with pytest.raises(TypeError, match="must be"):
        learner.fold(rows.astype(np.float64), Y=case.Y)
    with pytest.raises(ValueError, match="either labels or Y"):
        learner.fold(rows)
    with pytest.raises(ValueError, match="shape"):
        learner.fold(rows, Y=case.Y[:1])
    assert learner.progress["skipped_rows"] == learner.progress["rows"] == 0


def test_a_step_whose_squares_overflow_has_a_finite_norm() -> None:
    """The sum of squares of its changes is more than float32 can hold, though each weight is within it."""
    case = SparseCase("multilabel", replace(SPARSE_RULES["sgd"], forget=0.0), N=3, B=1)
    X, columns = np.full(3, 2.0**59, np.float32), np.arange(3, dtype=np.int32)
    learner = case.learner()
    learner.fold(SparseRows(np.array([3]), columns, X), Y=np.zeros((1, case.K)), weights=np.array([262.0]))
    assert all(np.isfinite(tensor).all() for tensor in learner.tensors().values())


@settings(deadline=None, max_examples=examples(150))
@given(st.data(), heads, names)
def test_any_rows_leave_a_finite_model(data: st.DataObject, head: str, name: RuleName) -> None:
    """For any rows, importances and targets, weights and sums stay finite."""
    case = SparseCase(head, replace(SPARSE_RULES[name], forget=data.draw(st.sampled_from([0.0, 0.1]))), N=3, B=8)
    info = np.finfo(np.float32)
    ends = [float(v) for v in (info.max, info.smallest_subnormal, 2.0**59, -(2.0**59), 0.0)]
    X = data.draw(arrays(np.float32, (8, 3), elements=st.one_of(st.sampled_from(ends), st.floats(width=32))))
    Y = data.draw(arrays(np.float64, (8, case.K), elements=st.floats(0, 1)))
    h = data.draw(arrays(np.float64, 8, elements=st.floats(-1, 1e6)))
    columns = np.tile(np.arange(3, dtype=np.int32), 8)
    learner = case.learner()
    losses = learner.fold(SparseRows(np.arange(3, 25, 3), columns, X.ravel()), Y=Y, weights=h)
    assert all(np.isfinite(tensor).all() for tensor in learner.tensors().values())
    assert np.isfinite(whole_weights(learner)).all()
    assert learner.progress["rows"] == np.isfinite(losses).sum()
    answer(learner).predict(case.rows)


@pytest.mark.parametrize("head", ["softmax", "multilabel", "ovr"])
@pytest.mark.parametrize("name", SPARSE_RULES)
@pytest.mark.parametrize("K", [3, 15])
def test_new_classes(K: int, name: RuleName, head: str) -> None:
    """A new class changes no other logit, starts at the mean minus ln 100, and the fold continues."""
    case = SparseCase(head, SPARSE_RULES[name], K=K, firm=True)
    learner = case.learner()
    learner.fold(case.rows, Y=case.Y)
    before, sums = answer(learner).logits(case.rows), learner.tensors()
    learner.add_classes(3)
    after = answer(learner).logits(case.rows)
    assert np.array_equal(after[:, :K], before)
    np.testing.assert_allclose(after[:, K:], before.mean(axis=1, keepdims=True) - np.log(100) + np.zeros(3), rtol=1e-4)
    assert learner.touched.changed().tolist() == list(range(case.N))
    if name != "sgd":
        assert np.array_equal(learner.tensors()["squares"][:, :K], sums["squares"])
        first = case.reference().first[np.concatenate([[0], sums["columns"] + 1])]
        assert np.array_equal(learner.tensors()["squares"][:, K:], first[:, :3])
    Y = np.eye(K + 3)[np.random.default_rng(0).integers(0, K + 3, case.B)]
    assert np.isfinite(learner.fold(case.rows, Y=Y)).all()
    assert learner.added_classes == [3]
    assert same_state(restored(case, learner), learner)


def test_another_rule_continues_from_the_same_weights() -> None:
    """Changed constants keep the sums and a changed rule resets them; neither changes a weight."""
    case = SparseCase("softmax", replace(SPARSE_RULES["ftrl"], regret=5.0))
    learner = case.learner()
    learner.fold(case.rows, Y=case.Y)
    before, weights = learner.tensors(), whole_weights(learner)
    learner.set_rule(replace(case.rule, rate=0.1))
    assert np.array_equal(learner.tensors()["squares"], before["squares"])
    learner.set_rule(SPARSE_RULES["adagrad"], np.arange(case.N + 1.0))
    tensors = learner.tensors()
    rows = np.concatenate([[0], tensors["columns"] + 1])
    assert np.array_equal(tensors["squares"], np.repeat(rows[:, None], 3, axis=1))
    assert "regret" not in tensors
    learner.set_rule(SPARSE_RULES["sgd"])
    assert "squares" not in learner.tensors()
    assert whole_weights(learner).tobytes() == weights.tobytes()
    for name in ("newton", "mixture"):
        with pytest.raises(ValueError, match="learns by sgd, adagrad, ftrl"):
            learner.set_rule(Rule(name, rate=1.0))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="learns by sgd, adagrad, ftrl"):
            SparseLearner(learner.parameters(), Rule(name, rate=1.0), np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="first_squares"):
        learner.set_rule(SPARSE_RULES["ftrl"], np.full(case.N + 1, -1.0))
    assert learner.rule.name == "sgd"


def test_paused_rows_are_counted_and_not_learned() -> None:
    """Without learning, rows are scored and counted, and no column is touched."""
    case = SparseCase("softmax", SPARSE_RULES["adagrad"])
    learner = case.learner()
    first = learner.fold(case.rows, Y=case.Y, learning=False)
    assert learner.tensors()["columns"].size == learner.touched.changed().size == 0
    np.testing.assert_array_equal(first, answer(learner).losses(case.rows, case.Y))
    learner.fold(case.rows, Y=case.Y)
    assert (learner.progress["rows"], learner.progress["steps"]) == (80, 40)


def test_outcomes_are_those_of_each_row() -> None:
    """What is counted for a row can be read, and the window is the same with and without."""
    case = SparseCase("softmax", SPARSE_RULES["adagrad"])
    one, other, outcomes = case.learner(), case.learner(), np.empty((OUTCOMES, case.B))
    losses = one.fold(case.rows, Y=case.Y, outcomes=outcomes)
    other.fold(case.rows, Y=case.Y)
    assert outcomes[0].tobytes() == losses.tobytes()
    assert one.window.tobytes() == other.window.tobytes()
    assert same_state(one, other)


def test_thresholds_decide_the_hits_of_several_labels() -> None:
    """A multilabel row is a hit if each class is on the side of its threshold."""
    case = SparseCase("multilabel", SPARSE_RULES["sgd"], B=1)
    p = answer(case.learner()).predict(case.rows)[0]
    for thresholds, hit in ((p - 1e-3, 1.0), (p + 1e-3, 0.0)):
        start = case.learner().parameters()
        learner = SparseLearner(start, case.rule, thresholds.astype(np.float64))
        learner.fold(case.rows, Y=np.ones((1, 3)))
        assert learner.progress["accuracy"] == hit


def damaged(tensors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return states that belong to no learner, by what is wrong with them."""
    columns = tensors["columns"]
    return {
        "no columns": {name: tensor for name, tensor in tensors.items() if name != "columns"},
        "wide columns": tensors | {"columns": columns.astype(np.int64)},
        "descending": tensors | {"columns": columns[::-1]},
        "a column beyond the last": tensors | {"columns": np.append(columns[:-1], np.int32(12))},
        "a negative column": tensors | {"columns": np.insert(columns[1:], 0, np.int32(-1))},
        "a matrix": tensors | {"columns": columns[None]},
        "one row less": tensors | {"weights": tensors["weights"][:-1]},
        "float64": tensors | {"squares": tensors["squares"].astype(np.float64)},
        "no squares": {name: tensor for name, tensor in tensors.items() if name != "squares"},
        "a limit of the regret": tensors | {"regret": np.zeros(1)},
    }


def test_damaged_states_are_refused() -> None:
    """A state of another learner changes nothing."""
    case = SparseCase("softmax", SPARSE_RULES["adagrad"])
    learner, fresh = case.learner(), case.learner()
    learner.fold(case.rows, Y=case.Y)
    for name, tensors in damaged(learner.tensors()).items():
        with pytest.raises(ValueError, match=r"columns of a state|names, shapes or dtypes"):
            fresh.restore(tensors)
        assert same_state(fresh, case.learner()), name
    with pytest.raises(ValueError, match="only a new learner"):
        learner.restore(learner.tensors())


def test_a_learner_shares_no_array() -> None:
    """Neither the first parameters, nor those returned, nor a copy change with the learner."""
    case = SparseCase("softmax", SPARSE_RULES["ftrl"])
    weights = SparseWeights.from_matrix(case.weights, case.bias)
    learner = SparseLearner(SparseParameters("softmax", weights), case.rule, np.ones(3))
    returned, copied, before = learner.parameters(), learner.copy(), weights.base.copy()
    state = copied.tensors()
    learner.fold(case.rows, Y=case.Y)
    assert np.array_equal(weights.base, before)
    assert np.array_equal(returned.weights.base, before)
    assert all(np.array_equal(tensor, copied.tensors()[name]) for name, tensor in state.items())
    assert (learner.form, learner.dtype, learner.n_features, learner.n_logits) == ("plain", np.float32, 12, 3)
    with pytest.raises(ValueError, match="one threshold"):
        SparseLearner(returned, case.rule, np.ones(2))
    with pytest.raises(ValueError, match="first_squares"):
        SparseLearner(returned, case.rule, np.ones(3), np.ones(3))


def test_the_memory_of_a_weight_is_eight_bytes() -> None:
    """Weights and sums are float32, and there is no other array of their size."""
    case = SparseCase("softmax", SPARSE_RULES["adagrad"], N=1000, K=16, B=1)
    learner = case.learner()
    arrays = [value for value in vars(learner).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 4.1 * 1000 * 16 + 10_000
    assert learner.parameters().weights.base.nbytes == 4 * 1001 * 16
