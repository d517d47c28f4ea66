"""Linear learners: their rules against references, the scores of rows, their bits, and invalid rows."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax.input_stage import Stage
from service.softmax.linear_learner import LinearLearner
from service.softmax.linear_model import LinearModel
from service.softmax.parameters import LinearParameters
from service.softmax.rule import Form, Rule, RuleName
from tests.support.budgets import examples
from tests.support.folds import FORMS, RULES, Case, answer, fold_in_blocks, same_state, whole_matrices
from tests.support.reference import DTYPES, HEADS, Array

heads, names, forms = st.sampled_from(HEADS), st.sampled_from(list(RULES)), st.sampled_from(FORMS)
regrets = st.sampled_from([0.0, 0.5, 5.0])
quick = settings(deadline=None, max_examples=60)


@quick
@given(st.data(), heads, names, forms)
def test_rules_against_references(data: st.DataObject, head: str, name: RuleName, form: Form) -> None:
    """Each rule follows its textbook formula for every form, head, kind of target and importance."""
    kind = data.draw(st.sampled_from(["hard", "soft", "any"]))
    sizes = {
        "N": data.draw(st.integers(1, 20)),
        "K": data.draw(st.integers(2, 20)),
        "seed": data.draw(st.integers(0, 99)),
    }
    rule = replace(RULES[name], regret=data.draw(regrets))
    case = Case(head, rule, form, kind=kind, staged=data.draw(st.booleans()), **sizes)
    learner, reference = case.learner(), case.reference()
    case.Y = np.minimum(case.Y, 1)
    h = case.h if data.draw(st.booleans()) else None
    got = learner.fold(case.X, Y=case.Y, weights=h)
    expected = [
        reference.row(x, y, 1.0 if h is None else h[i]) for i, (x, y) in enumerate(zip(case.X, case.Y, strict=True))
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)
    tensors = learner.tensors()
    np.testing.assert_allclose(tensors["masters"], reference.W, rtol=1e-6, atol=1e-8)
    if "squares" in tensors:
        np.testing.assert_allclose(tensors["squares"], reference.G, rtol=1e-6)
    if "curvature" in tensors:
        np.testing.assert_allclose(whole_matrices(tensors["curvature"], case.N + 1), reference.P, rtol=1e-6, atol=1e-9)
    if "regret" in tensors:
        np.testing.assert_allclose(tensors["regret"], reference.regret, rtol=1e-6, atol=1e-6)
    if form == "running":
        np.testing.assert_allclose(tensors["statistics"], [reference.mean, reference.squares], rtol=1e-9)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_float32_rules_against_references(name: RuleName, form: Form) -> None:
    """A float32 model learns like the float64 reference, up to the rounding of its served weights."""
    case = Case("softmax", RULES[name], form, N=30, K=11, B=300, dtype=np.float32)
    learner, reference = case.learner(), case.reference()
    got = learner.fold(case.X, Y=case.Y)
    expected = [reference.row(x, y, 1.0) for x, y in zip(case.X, case.Y, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(learner.tensors()["masters"], reference.W, rtol=2e-3, atol=2e-3)


@quick
@given(st.data(), heads, names, forms, st.sampled_from(DTYPES))
def test_rows_are_scored_like_predictions(
    data: st.DataObject, head: str, name: RuleName, form: Form, dtype: type[np.floating]
) -> None:
    """The loss of a row has the bits of the loss of the prediction before its step."""
    sizes = {
        "N": data.draw(st.integers(1, 40)),
        "K": data.draw(st.integers(2, 50)),
        "seed": data.draw(st.integers(0, 99)),
    }
    case = Case(head, RULES[name], form, B=6, dtype=dtype, staged=data.draw(st.booleans()), **sizes)
    learner = case.learner()
    learner.fold(case.X[:3].copy(), Y=case.Y[:3])
    for i in range(3, 6):
        model, x, y = answer(learner), case.X[i : i + 1].copy(), case.Y[i : i + 1]
        expected = model.losses(x, y)[0]
        if head == "ovr":
            logs = model.log_probabilities(x)[0]
            expected = sum(-y[0, k] * logs[k] for k in range(case.K) if y[0, k])
        assert learner.fold(x, Y=y)[0] == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_sgd_steps_with_the_gradient_of_the_prediction(head: str, dtype: type[np.floating]) -> None:
    """A step of sgd is W <- W - rate x^T (p - y), with the p of the prediction bit by bit."""
    case = Case(head, Rule("sgd", rate=0.25), "plain", dtype=dtype, B=1, K=4)
    learner = case.learner()
    p = answer(learner).predict(case.X)[0]
    if head in {"multilabel", "ovr"}:
        p = LinearModel("multilabel", case.weights, case.bias).predict(case.X)[0]
    e = (p[1:] if head == "sigmoid" else p) - case.Y[0]
    before = learner.tensors()["masters"]
    learner.fold(case.X, Y=case.Y)
    moved = learner.tensors()["masters"] - before
    np.testing.assert_allclose(moved, -0.25 * np.outer([1, *case.X[0]], e), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("head", HEADS)
def test_sgd_against_autograd(head: str) -> None:
    """A hundred steps of sgd agree with automatic differentiation to 1e-6."""
    case = Case(head, Rule("sgd", rate=0.1), "plain", N=7, K=4, B=100, kind="soft")

    def loss(W: Array, x: Array, y: Array) -> Array:
        z = anp.dot(x, W[1:]) + W[0]
        if head == "softmax":
            return anp.sum(y * (anp.log(anp.sum(anp.exp(z))) - z))
        return anp.sum(anp.log(1 + anp.exp(z)) - y * z)

    W = np.vstack([case.bias, case.weights])
    for x, y in zip(case.X, case.Y, strict=True):
        W = W - 0.1 * grad(loss)(W, x, y)
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    assert np.abs(learner.tensors()["masters"] - W).max() <= 1e-6


@pytest.mark.parametrize("head", HEADS)
def test_sgd_against_finite_differences(head: str) -> None:
    """One step of sgd is the rate times the slope of the training loss, by central differences."""
    case = Case(head, Rule("sgd", rate=1.0), "plain", B=1, kind="soft")

    def loss(W: Array) -> float:
        return float(LinearModel(head, W[1:].copy(), W[0].copy()).losses(case.X, case.Y)[0])  # type: ignore[arg-type]

    W = np.vstack([case.bias, case.weights])
    slope = np.empty_like(W)
    for at in np.ndindex(*W.shape):
        step = np.zeros_like(W)
        step[at] = 1e-5
        slope[at] = (loss(W + step) - loss(W - step)) / 2e-5
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    np.testing.assert_allclose(W - learner.tensors()["masters"], slope, rtol=1e-5, atol=1e-8)


@quick
@given(st.data(), heads, names, forms, st.sampled_from(DTYPES))
def test_blocks_of_any_size(
    data: st.DataObject, head: str, name: RuleName, form: Form, dtype: type[np.floating]
) -> None:
    """A fold in blocks, row by row, or across a copy or a checkpoint has the bits of the whole fold."""
    case = Case(head, RULES[name], form, N=data.draw(st.integers(1, 18)), K=data.draw(st.integers(2, 18)), dtype=dtype)
    whole = case.learner()
    expected = whole.fold(case.X, Y=case.Y, weights=case.h)
    losses, parts = fold_in_blocks(data, case.learner(), case.learner, case)
    assert losses.tobytes() == expected.tobytes()
    assert same_state(parts, whole)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
@pytest.mark.parametrize("name", RULES)
def test_labels_are_targets(head: str, name: RuleName) -> None:
    """Class indices and one-hot targets give the same bits."""
    case = Case(head, RULES[name], "running", K=5)
    labels = case.Y[:, 0].astype(np.int64) if head == "sigmoid" else np.random.default_rng(1).integers(0, 5, 40)
    Y = case.Y if head == "sigmoid" else np.eye(5)[labels]
    one, other = case.learner(), case.learner()
    assert one.fold(case.X, labels).tobytes() == other.fold(case.X, Y=Y).tobytes()
    assert same_state(one, other)


@pytest.mark.parametrize("name", RULES)
def test_a_step_is_limited_by_the_clip(name: RuleName) -> None:
    """The largest change of a logit of the own row is the clip, in the direction of the step."""
    free, cut = replace(RULES[name], step_clip=np.inf), replace(RULES[name], step_clip=1e-3)
    moved = []
    for rule in (free, cut):
        case = Case("softmax", rule, "plain", B=1)
        learner = case.learner()
        before = answer(learner).logits(case.X)
        first = learner.tensors()["masters"]
        learner.fold(case.X, Y=case.Y)
        moved.append(learner.tensors()["masters"] - first)
        change = np.abs(answer(learner).logits(case.X) - before).max()
    assert change == pytest.approx(1e-3, rel=1e-9)
    ratio = moved[1] / moved[0]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_skipped_rows_change_nothing(form: Form, name: RuleName, dtype: type[np.floating]) -> None:
    """Rows that are not finite, too large, or without a class or importance are only counted."""
    case = Case("softmax", RULES[name], form, dtype=dtype, B=12)
    learner, clean = case.learner(), case.learner()
    labels, h = case.Y.argmax(axis=1), np.ones(12)
    X = case.X.copy()
    X[1, 0], X[3, 2], X[4, 4] = np.nan, np.inf, -np.inf
    labels[[5, 6]] = -1, 3
    h[[7, 8, 9]] = 0, np.nan, np.inf
    bad = {1, 3, 4, 5, 6, 7, 8, 9}
    if form == "plain":
        X[10] = np.finfo(dtype).max
        bad.add(10)
    found, good = learner.fold(X, labels, weights=h), np.array(sorted(set(range(12)) - bad))
    assert set(np.flatnonzero(np.isnan(found)).tolist()) == bad
    expected = clean.fold(X[good].copy(), labels[good], weights=h[good])
    assert found[good].tobytes() == expected.tobytes()
    assert learner.progress["skipped_rows"] == len(bad)
    one, other = learner.tensors(), clean.tensors()
    for tensor in one.keys() - {"progress"}:
        assert one[tensor].tobytes() == other[tensor].tobytes(), tensor


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
@pytest.mark.parametrize("head", HEADS)
def test_invalid_targets_are_skipped(head: str, bad: float) -> None:
    """A row with a target outside [0, 1] is skipped."""
    case = Case(head, RULES["newton"], "running", B=1)
    case.Y[0, -1] = bad
    learner = case.learner()
    assert np.isnan(learner.fold(case.X, Y=case.Y)[0])
    assert learner.progress["skipped_rows"] == 1


@settings(deadline=None, max_examples=examples(150))
@given(st.data(), heads, names, forms, st.sampled_from(DTYPES))
def test_any_rows_leave_a_finite_model(
    data: st.DataObject, head: str, name: RuleName, form: Form, dtype: type[np.floating]
) -> None:
    """For any rows, importances and targets, masters and served weights stay finite."""
    case = Case(head, RULES[name], form, N=3, K=3, dtype=dtype)
    info = np.finfo(dtype)
    ends = st.sampled_from([float(v) for v in (info.max, -info.max, info.smallest_subnormal, 2.0**59, -(2.0**59), 0.0)])
    cell = st.one_of(ends, st.floats(width=32 if dtype is np.float32 else 64))
    X = data.draw(arrays(dtype, (8, 3), elements=cell))
    Y = data.draw(arrays(np.float64, (8, case.K), elements=st.floats(0, 1)))
    h = data.draw(arrays(np.float64, 8, elements=st.floats(-1, 1e6)))
    learner = case.learner()
    losses = learner.fold(X, Y=Y, weights=h)
    assert all(np.isfinite(tensor).all() for tensor in learner.tensors().values())
    assert learner.progress["rows"] == np.isfinite(losses).sum()
    answer(learner).predict(case.X)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_the_smallest_importance(name: RuleName, dtype: type[np.floating]) -> None:
    """The smallest importance, whose product with a curvature is 0, causes no division by 0."""
    case = Case("softmax", RULES[name], "running", dtype=dtype)
    learner = case.learner()
    learner.fold(case.X, Y=case.Y, weights=np.full(len(case.X), np.finfo(np.float64).smallest_subnormal))
    assert all(np.isfinite(tensor).all() for tensor in learner.tensors().values())
    assert learner.progress["skipped_rows"] == 0
    np.testing.assert_allclose(learner.parameters().weights, case.weights, atol=1e-6)


def test_a_float32_row_that_overflows_is_skipped() -> None:
    """A row whose logits overflow float32 is predicted in float64, but not learned from."""
    learner = LinearLearner(
        LinearParameters("softmax", np.array([[7, -7]], np.float32), np.zeros(2, np.float32)),
        "plain",
        Rule("sgd", 0.1),
        np.ones(2),
    )
    X = np.array([[2.0**59], [3e38]], np.float32)
    assert np.isfinite(answer(learner).predict(X)).all()
    assert np.isnan(learner.fold(X, np.array([0, 0]))).tolist() == [False, True]


@pytest.mark.parametrize("name", ["adagrad", "ftrl"])
def test_sums_of_squares_stay_finite(name: RuleName) -> None:
    """A gradient whose square overflows float32 sets the sums to their bound, and the step stays finite."""
    start = LinearParameters("softmax", np.zeros((1, 3), np.float32), np.zeros(3, np.float32))
    learner = LinearLearner(start, "plain", replace(RULES[name], forget=0.0), np.ones(3))
    learner.fold(np.full((1, 1), 2.0**59, np.float32), np.zeros(1, np.int64), weights=np.full(1, 900.0))
    assert learner.progress["steps"] == 1
    assert learner.tensors()["squares"].max() == 2.0**126
    assert np.isfinite(learner.tensors()["masters"]).all()


def test_features_without_variance_are_not_learned_from() -> None:
    """A constant feature, or one whose variance is rounding, is staged to 0."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(50), np.full(50, 0.1), 1e8 + rng.choice([0, 2.0**-26], 50)])
    learner = LinearLearner(
        LinearParameters("softmax", np.zeros((3, 2)), np.zeros(2)), "running", RULES["newton"], np.ones(2)
    )
    learner.fold(X, rng.integers(0, 2, 50))
    masters, served = learner.tensors()["masters"], learner.parameters()
    assert masters[1].any()
    assert not masters[2:].any()
    assert served.stage is not None
    assert served.stage.scale[1:].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_units_change_no_bit(name: RuleName, dtype: type[np.floating]) -> None:
    """With the running stage, a unit that is a power of two changes no bit of a loss."""
    case = Case("softmax", RULES[name], "running", dtype=dtype, B=200)
    losses = case.learner().fold(case.X, Y=case.Y)
    for unit in (2.0**-27, 2.0**20):
        assert np.array_equal(case.learner().fold(case.X * dtype(unit), Y=case.Y), losses)


def test_a_feature_that_becomes_constant() -> None:
    """A scale that is lost after an outlier and many equal values is lost in fold and prediction alike."""
    X = np.full((3000, 2), 3e18)
    X[:, 1] = np.random.default_rng(0).standard_normal(3000)
    X[0, 0] = 3e18 * (1 + 2.0**-15)
    learner = LinearLearner(
        LinearParameters("softmax", np.zeros((2, 2)), np.zeros(2)), "running", RULES["ftrl"], np.ones(2)
    )
    y = np.random.default_rng(1).integers(0, 2, 3000)
    known = set()
    for i in range(3000):
        served = learner.parameters()
        assert served.stage is not None
        known.add(bool(served.stage.scale[0] != 1))
        x = X[i : i + 1].copy()
        expected = served.build_model().losses(x, np.eye(2)[y[i : i + 1]])[0]
        assert learner.fold(x, y[i : i + 1])[0] == expected
    assert known == {True, False}


@pytest.mark.parametrize("head", ["softmax", "multilabel", "ovr"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RULES)
def test_new_classes(name: RuleName, form: Form, head: str) -> None:
    """A new class changes no other logit, starts at the mean minus ln 100, and the fold continues."""
    case = Case(head, RULES[name], form, K=15, dtype=np.float32)
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    before, sums = answer(learner).logits(case.X), learner.tensors()
    learner.add_classes(3)
    after = answer(learner).logits(case.X)
    assert np.array_equal(after[:, :15], before)
    np.testing.assert_allclose(after[:, 15:], before.mean(axis=1, keepdims=True) - np.log(100) + np.zeros(3), rtol=1e-4)
    if head == "softmax":
        assert answer(learner).predict(case.X)[:, 15:].max() <= 1 / (100 * 15) * (1 + 1e-5)
    for tensor, axis in (("squares", 1), ("curvature", 0)):
        if tensor in sums:
            assert np.array_equal(np.take(learner.tensors()[tensor], range(15), axis=axis), sums[tensor])
    labels = np.random.default_rng(0).integers(0, 18, 40)
    losses = learner.fold(case.X, Y=np.eye(18)[labels])
    assert np.isfinite(losses).all()
    assert np.isfinite(learner.tensors()["masters"]).all()
    assert learner.added_classes == [3]


def test_another_rule_continues_from_the_same_weights() -> None:
    """Changed constants keep the sums and a changed rule resets them; neither changes a weight."""
    case = Case("softmax", RULES["ftrl"], "running")
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    before = learner.tensors()
    learner.set_rule(replace(RULES["ftrl"], rate=0.1))
    assert np.array_equal(learner.tensors()["squares"], before["squares"])
    learner.set_rule(RULES["newton"])
    assert np.array_equal(learner.tensors()["masters"], before["masters"])
    assert np.array_equal(whole_matrices(learner.tensors()["curvature"], 6), np.stack([np.eye(6) * 0.1] * 3))


def test_a_rule_without_a_limit_forgets_the_regret() -> None:
    """A checkpoint holds the regret while the rule limits it; so it starts at 0 when the rule limits it again."""
    rule = replace(RULES["ftrl"], regret=5.0)
    case = Case("softmax", rule, "running", kind="soft")
    learner = case.learner()
    learner.fold(case.X, Y=np.roll(case.Y, 1, axis=1))
    assert learner.tensors()["regret"] != 0
    learner.set_rule(RULES["ftrl"])
    assert "regret" not in learner.tensors()
    learner.set_rule(rule)
    assert learner.tensors()["regret"] == 0


def test_paused_rows_are_counted_and_not_learned() -> None:
    """Without learning, rows are scored and counted, and neither weights nor statistics change."""
    case = Case("softmax", RULES["newton"], "running")
    learner = case.learner()
    learner.fold(case.X, Y=case.Y)
    before = learner.tensors()
    learner.fold(case.X, Y=case.Y, learning=False)
    after = learner.tensors()
    for name in ("masters", "statistics", "curvature"):
        assert np.array_equal(after[name], before[name])
    assert (learner.progress["rows"], learner.progress["steps"]) == (80, 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_a_delta_of_zeros_changes_no_bit(head: str, dtype: type[np.floating]) -> None:
    """A new learner predicts with the bits of the trained model, also with a stage of its own."""
    for staged in (False, True):
        case = Case(head, RULES["newton"], "delta", dtype=dtype, staged=staged, K=20, N=30)
        trained = LinearModel(head, case.weights, case.bias, case.own)  # type: ignore[arg-type]
        learning = answer(case.learner())
        assert learning.delta is not None
        assert learning.predict(case.X).tobytes() == trained.predict(case.X).tobytes()
        assert learning.log_probabilities(case.X).tobytes() == trained.log_probabilities(case.X).tobytes()


def test_statistics_that_overflow_are_ignored() -> None:
    """A feature whose training statistics overflow float32 is not learned from, and affects no other."""
    learned = Stage(np.array([0.0, 1e300, 0.0]), np.array([1.0, 1.0, 1e-300]))
    start = LinearParameters("softmax", np.ones((3, 2), np.float32), np.zeros(2, np.float32))
    learner = LinearLearner(start, "delta", RULES["newton"], np.ones(2), learned)
    X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    assert np.isfinite(learner.fold(X, np.arange(20) % 2)).all()
    delta = learner.parameters().delta
    assert delta is not None
    assert delta.weights[0].all()
    assert not delta.weights[1:].any()
    assert answer(learner).predict(X).shape == (20, 2)


def test_invalid_arguments_are_rejected() -> None:
    """Inconsistent shapes, dtypes and layouts are rejected before a kernel runs."""
    case = Case("softmax", RULES["ftrl"], "running")
    learner, y = case.learner(), np.zeros(40, np.int64)
    with pytest.raises(ValueError, match="either"):
        learner.fold(case.X)
    with pytest.raises(ValueError, match="either"):
        learner.fold(case.X, y, case.Y)
    for bad in (y[:-1], y.astype(np.int32), y[:, None]):
        with pytest.raises(ValueError, match="must be int64"):
            learner.fold(case.X, bad)
    with pytest.raises(ValueError, match="must be float64"):
        learner.fold(case.X, y, weights=np.ones(40, np.float32))
    with pytest.raises(ValueError, match="must be float64"):
        learner.fold(case.X, Y=case.Y[:, :2].copy())
    with pytest.raises(ValueError, match="X must be"):
        learner.fold(case.X[:, :3].copy(), y)
    for odd in (case.X.astype(np.float32), np.asfortranarray(case.X)):
        with pytest.raises(TypeError, match="X must be"):
            learner.fold(odd, y)
    with pytest.raises(ValueError, match="not those"):
        learner.restore({"masters": np.zeros((6, 3))})


@pytest.mark.parametrize(
    ("form", "weights", "learned", "thresholds"),
    [
        ("running", np.ones((2, 2)), None, np.ones(2)),
        ("delta", np.ones((2, 2)), None, np.ones(2)),
        ("plain", np.ones((2, 2)), Stage(np.zeros(2), np.ones(2)), np.ones(2)),
        ("plain", np.ones((2, 2)), None, np.ones(3)),
        ("plain", np.full((2, 2), np.nan), None, np.ones(2)),
    ],
)
def test_invalid_start_parameters_are_rejected(
    form: Form, weights: Array, learned: Stage | None, thresholds: Array
) -> None:
    """Start parameters that are no model, or do not fit the form, are rejected."""
    with pytest.raises(ValueError, match=r"form|threshold|finite"):
        LinearLearner(LinearParameters("softmax", weights, np.zeros(2)), form, RULES["ftrl"], thresholds, learned)


@pytest.mark.parametrize("form", ["plain", "delta"])
@pytest.mark.parametrize("name", RULES)
@quick
@given(data=st.data())
def test_first_squares_are_where_sums_begin(data: st.DataObject, name: RuleName, form: Form) -> None:
    """Each feature begins at its own G, to which nothing returns; rules without G are as before, and all is stored."""
    case = Case("softmax", replace(RULES[name], start=7.0 if name != "newton" else 0.1), form)
    plain, reference = case.learner(), case.reference()
    case.first = np.linspace(0, 50, case.N + 1)
    learner = case.learner()
    if name in {"adagrad", "ftrl"}:
        case.rule = replace(case.rule, start=0.0)
        reference = case.reference()
        reference.G[:] = case.first[:, None]
        reference.Z = -reference.W * (case.rule.offset + np.sqrt(reference.G)) / case.rule.rate
        case.rule = learner.rule
    else:
        plain.fold(case.X, Y=case.Y, weights=case.h)
    for x, y, h in zip(case.X, case.Y, case.h, strict=True):
        reference.row(x, y, h)
    losses, learner = fold_in_blocks(data, learner, case.learner, case)
    assert np.isfinite(losses).all()
    tensors = learner.tensors()
    np.testing.assert_allclose(tensors["masters"], reference.W, rtol=1e-6, atol=1e-8)
    if "squares" in tensors:
        np.testing.assert_allclose(tensors["squares"], reference.G, rtol=1e-6)
    else:
        assert same_state(learner, plain)


def test_a_rule_may_change_the_first_squares() -> None:
    """They count when sums begin again, also those of a class that is new."""
    case = Case("softmax", RULES["sgd"], "plain")
    case.first = np.arange(case.N + 1.0)
    learner = case.learner()
    learner.set_rule(RULES["adagrad"])
    assert learner.tensors()["squares"][:, 0].tolist() == case.first.tolist()
    learner.set_rule(RULES["ftrl"], 2 * case.first)
    learner.add_classes(1)
    assert learner.tensors()["squares"][:, -1].tolist() == (2 * case.first).tolist()
    for wrong in (np.ones(case.N), np.full(case.N + 1, -1.0), np.full(case.N + 1, np.nan)):
        with pytest.raises(ValueError, match="first_squares"):
            learner.set_rule(RULES["ftrl"], wrong)
