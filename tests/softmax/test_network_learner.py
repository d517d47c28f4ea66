"""Network learners: their rules against references, the scores of rows, their bits, and invalid rows."""

import resource
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import NetworkParameters
from service.softmax.rule import Rule, RuleName
from tests.support.folds import RULES as LINEAR_RULES
from tests.support.folds import Case, fold_in_blocks, same_state
from tests.support.networks import RULES, WIDTHS, Net, ReferenceNetworkFold, forward, summed_loss
from tests.support.reference import DTYPES, HEADS, Array

heads, names, dtypes = st.sampled_from(HEADS), st.sampled_from(list(RULES)), st.sampled_from(DTYPES)
widths = st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=3).map(tuple)
quick = settings(deadline=None, max_examples=50)


def masters(learner: NetworkLearner) -> list[Array]:
    """Return the masters of every layer, bias first."""
    return [tensor for name, tensor in sorted(learner.tensors().items()) if name.startswith("masters")]


@quick
@given(st.data(), heads, names, widths)
def test_rules_against_the_reference(data: st.DataObject, head: str, name: RuleName, hidden: tuple[int, ...]) -> None:
    """Every layer follows the rule on the backpropagated gradient, for each head, target and importance."""
    net = Net(
        head, hidden, K=data.draw(st.integers(2, 20)), staged=data.draw(st.booleans()),
        kind=data.draw(st.sampled_from(["hard", "soft", "any"])), seed=data.draw(st.integers(0, 99)),
        shift=data.draw(st.integers(0, 2)),
    )  # fmt: skip
    learner, reference = net.learner(RULES[name]), ReferenceNetworkFold(net, RULES[name])
    h = net.h if data.draw(st.booleans()) else None
    got = learner.fold(net.X, Y=net.Y, weights=h)
    expected = [
        reference.row(x, y, 1.0 if h is None else h[i]) for i, (x, y) in enumerate(zip(net.X, net.Y, strict=True))
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)
    for mine, theirs in zip(masters(learner), reference.layers, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)
    if name != "sgd":
        for number, sums in enumerate(reference.G):
            np.testing.assert_allclose(learner.tensors()[f"squares.{number}"], sums, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_float32_against_the_reference(name: RuleName) -> None:
    """A float32 network learns like the float64 reference, up to the rounding of its served weights."""
    net = Net("softmax", (33, 16), N=20, K=10, B=200, dtype=np.float32, shift=1)
    learner, reference = net.learner(RULES[name]), ReferenceNetworkFold(net, RULES[name])
    expected = [reference.row(x, y, 1.0) for x, y in zip(net.X, net.Y, strict=True)]
    np.testing.assert_allclose(learner.fold(net.X, Y=net.Y), expected, rtol=2e-3, atol=2e-4)
    for mine, theirs in zip(masters(learner), reference.layers, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("head", HEADS)
def test_sgd_against_autograd(head: str) -> None:
    """A hundred steps of sgd through three hidden layers agree with automatic differentiation."""
    net = Net(head, (6, 5, 4), B=100, kind="soft", shift=1)
    affine = [array for pair in net.affine for array in pair]
    for i in range(100):
        row = Net(head, (6, 5, 4), B=100, kind="soft", shift=1)
        row.Y = net.Y[i : i + 1]

        def loss(flat: list[Array], i: int = i, row: Net = row) -> Array:
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            return summed_loss(row, forward(row, net.X[i : i + 1], pairs, anp))

        affine = [array - 0.1 * slope for array, slope in zip(affine, grad(loss)(affine), strict=True)]
    learner = net.learner(Rule("sgd", rate=0.1))
    learner.fold(net.X, Y=net.Y)
    for number, rows in enumerate(masters(learner)):
        assert np.abs(rows[0] - affine[2 * number + 1]).max() <= 1e-9
        assert np.abs(rows[1:] - affine[2 * number]).max() <= 1e-9


@quick
@given(st.data(), heads, names, widths, dtypes)
def test_rows_are_scored_like_predictions(
    data: st.DataObject, head: str, name: RuleName, hidden: tuple[int, ...], dtype: type[np.floating]
) -> None:
    """The loss of a row has the bits of the loss of the prediction before its step."""
    net = Net(
        head, hidden, B=4, K=data.draw(st.integers(2, 20)), dtype=dtype, staged=data.draw(st.booleans()), kind="soft"
    )
    learner = net.learner(RULES[name])
    learner.fold(net.X[:3].copy(), Y=net.Y[:3])
    model, x, y = learner.parameters().build_model(), net.X[3:], net.Y[3:]
    expected = model.losses(x, y)[0]
    if head == "ovr":
        logs = model.log_probabilities(x)[0]
        expected = sum(-y[0, k] * logs[k] for k in range(net.K) if y[0, k])
    assert learner.fold(x, Y=y)[0] == expected


@quick
@given(heads, widths, st.integers(0, 99))
def test_a_step_of_sgd_is_the_gradient_of_the_network(head: str, hidden: tuple[int, ...], seed: int) -> None:
    """A step of sgd is the rate times `NetworkModel.gradients` of the row."""
    net = Net(head, hidden, B=1, kind="soft", seed=seed)
    learner, found = net.learner(Rule("sgd", rate=0.25)), net.parameters().build_model().gradients(net.X, net.Y)
    before = masters(learner)
    learner.fold(net.X, Y=net.Y)
    for old, new, (dW, db) in zip(before, masters(learner), found.layers, strict=True):
        np.testing.assert_allclose(old - new, 0.25 * np.vstack([db, dW]), rtol=1e-9, atol=1e-14)


@quick
@given(st.data(), heads, names, widths, dtypes)
def test_blocks_of_any_size(
    data: st.DataObject, head: str, name: RuleName, hidden: tuple[int, ...], dtype: type[np.floating]
) -> None:
    """A fold in blocks, row by row, or across a copy or a checkpoint has the bits of the whole fold."""
    net = Net(head, hidden, N=data.draw(st.integers(1, 18)), K=data.draw(st.integers(2, 18)), dtype=dtype)
    whole = net.learner(RULES[name])
    expected = whole.fold(net.X, Y=net.Y, weights=net.h)
    losses, parts = fold_in_blocks(data, net.learner(RULES[name]), lambda: net.learner(RULES[name]), net)
    assert losses.tobytes() == expected.tobytes()
    assert same_state(parts, whole)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_linear_layer_learns_as_a_linear_model(head: str, dtype: type[np.floating]) -> None:
    """After a relu that changes nothing, the head's layer has the bits of a linear learner."""
    case = Case(head, LINEAR_RULES["adagrad"], "plain", dtype=dtype, B=1)
    net = Net(head, (5,), dtype=dtype, B=1)
    net.affine = [(np.eye(5, dtype=dtype), np.zeros(5, dtype)), (case.weights, case.bias)]
    net.X[:], net.Y[:] = np.abs(case.X), case.Y
    linear, network = case.learner(), net.learner(case.rule)
    assert linear.fold(net.X, Y=net.Y).tobytes() == network.fold(net.X, Y=net.Y).tobytes()
    assert linear.tensors()["masters"].tobytes() == network.tensors()["masters.1"].tobytes()
    assert linear.tensors()["squares"].tobytes() == network.tensors()["squares.1"].tobytes()


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "ovr"])
def test_labels_are_targets_and_progress_counts(head: str) -> None:
    """Class indices and one-hot targets give the same bits, and progress counts the predictions before each step."""
    net = Net(head, (8,), B=60)
    labels = net.Y[:, 0].round().astype(np.int64) if head == "sigmoid" else np.random.default_rng(1).integers(0, 3, 60)
    Y = labels[:, None].astype(float) if head == "sigmoid" else np.eye(3)[labels]
    one, other = net.learner(RULES["adagrad"]), net.learner(RULES["adagrad"])
    hits, losses = [], one.fold(net.X, labels)
    for i in range(60):
        hits.append(other.parameters().build_model().classify(net.X[i : i + 1].copy())[1][0] == labels[i])
        assert other.fold(net.X[i : i + 1].copy(), Y=Y[i : i + 1])[0] == losses[i]
    assert same_state(one, other)
    assert one.progress["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert one.progress["accuracy"] == pytest.approx(np.mean(hits), rel=1e-12)
    assert (one.progress["rows"], one.progress["steps"]) == (60, 60)


def test_norms_of_steps() -> None:
    """The last norm is that of the changes of the masters of all layers."""
    for name, rule in RULES.items():
        net = Net("softmax", (9, 4), K=9)
        learner = net.learner(rule)
        for i in range(5):
            before = masters(learner)
            learner.fold(net.X[i : i + 1].copy(), Y=net.Y[i : i + 1])
            moved = sum(np.sum((new - old) ** 2) for old, new in zip(before, masters(learner), strict=True))
            assert learner.progress["step_norm"] == pytest.approx(np.sqrt(moved), rel=1e-9), name


def test_a_network_learns_exclusive_or() -> None:
    """A network learns exclusive or; a linear model does not."""
    rng = np.random.default_rng(0)
    X = rng.choice([-1.0, 1.0], (3000, 2)) + rng.normal(0, 0.1, (3000, 2))
    labels = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
    net = Net("softmax", (8,), N=2, K=2, shift=2)
    learner, case = net.learner(RULES["adagrad"]), Case("softmax", LINEAR_RULES["adagrad"], "plain", N=2, K=2)
    learner.fold(X, labels)
    linear = case.learner()
    linear.fold(X, labels)
    assert learner.progress["recent_accuracy"] > 0.99
    assert linear.progress["recent_accuracy"] < 0.7


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_skipped_rows_change_nothing(name: RuleName, dtype: type[np.floating]) -> None:
    """Rows that are not finite or too large in a layer, or without a class or importance, are only counted."""
    net = Net("softmax", (6, 5), B=14, dtype=dtype)
    labels, h, X = net.Y.argmax(axis=1), np.ones(14), net.X.copy()
    X[1, 0], X[3, 2], X[4, 4] = np.nan, np.inf, -np.inf
    X[10], X[11] = np.finfo(dtype).max, 2.0**61
    labels[[5, 6]] = -1, 3
    h[[7, 8, 9]] = 0, np.nan, np.inf
    bad = {1, 3, 4, 5, 6, 7, 8, 9, 10, 11}
    learner, clean = net.learner(RULES[name]), net.learner(RULES[name])
    found, good = learner.fold(X, labels, weights=h), np.array(sorted(set(range(14)) - bad))
    assert set(np.flatnonzero(np.isnan(found)).tolist()) == bad
    assert found[good].tobytes() == clean.fold(X[good].copy(), labels[good], weights=h[good]).tobytes()
    assert learner.progress["skipped_rows"] == len(bad)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(masters(learner), masters(clean), strict=True))
    assert all(
        a.tobytes() == b.tobytes()
        for a, b in zip(learner.parameters().tensors(), clean.parameters().tensors(), strict=True)
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_rows_too_large_in_a_hidden_layer_are_skipped(layer: int) -> None:
    """A row with a hidden activation or derivative beyond the bounds is skipped."""
    net = Net("softmax", (4, 4), B=1, shift=2 if layer == 2 else 0)
    if layer < 2:
        net.affine[layer] = (net.affine[layer][0] * 2.0**62, net.affine[layer][1])
        net.activations = ("relu", "relu")
    else:
        net.affine[2] = (net.affine[2][0] * 2.0**33, net.affine[2][1])
        net.activations = ("tanh", "relu")
    net.X[:] = 1
    for n in range(2):
        net.affine[n] = (np.abs(net.affine[n][0]), np.abs(net.affine[n][1]))
    net.Y[:] = [0.25, 0.25, 0.5]
    learner = net.learner(RULES["adagrad"])
    before = masters(learner)
    assert np.isnan(learner.fold(net.X, Y=net.Y)[0])
    assert all(np.array_equal(a, b) for a, b in zip(before, masters(learner), strict=True))


@settings(deadline=None, max_examples=100)
@given(st.data(), heads, names, dtypes, st.integers(0, 2))
def test_any_rows_leave_a_finite_network(
    data: st.DataObject, head: str, name: RuleName, dtype: type[np.floating], shift: int
) -> None:
    """For any rows, importances and targets, masters and served weights stay finite."""
    net = Net(head, (4, 3), N=3, dtype=dtype, shift=shift)
    info = np.finfo(dtype)
    ends = st.sampled_from([float(v) for v in (info.max, -info.max, info.smallest_subnormal, 2.0**59, -(2.0**59), 0.0)])
    X = data.draw(arrays(dtype, (8, 3), elements=st.one_of(ends, st.floats(width=32 if dtype is np.float32 else 64))))
    Y = data.draw(arrays(np.float64, (8, net.K), elements=st.floats(0, 1)))
    h = data.draw(arrays(np.float64, 8, elements=st.floats(-1, 1e6)))
    learner = net.learner(RULES[name])
    losses = learner.fold(X, Y=Y, weights=h)
    assert all(np.isfinite(tensor).all() for tensor in learner.tensors().values())
    assert learner.progress["rows"] == np.isfinite(losses).sum()
    learner.parameters().build_model().predict(net.X)


@pytest.mark.parametrize("name", ["adagrad", "ftrl"])
def test_a_step_of_each_layer_is_limited_by_the_clip(name: RuleName) -> None:
    """The largest change of each layer's pre-activations is the clip, in the direction of the step."""
    net = Net("softmax", (6, 5), B=1)
    layer_inputs = [net.X]
    model = net.parameters().build_model()
    layer_inputs += model.trace(net.X)[1][1:]
    moved = []
    for clip in (np.inf, 1e-3):
        learner = net.learner(replace(RULES[name], step_clip=clip))
        before = masters(learner)
        learner.fold(net.X, Y=net.Y)
        moved.append([new - old for old, new in zip(before, masters(learner), strict=True)])
    for A, free, cut in zip(layer_inputs, *moved, strict=True):
        change = np.abs(np.concatenate([[1.0], A[0]]) @ cut).max()
        assert change == pytest.approx(1e-3, rel=1e-6)
        ratio = cut[free != 0] / free[free != 0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


@pytest.mark.parametrize("head", ["softmax", "multilabel", "ovr"])
@pytest.mark.parametrize("name", RULES)
def test_new_classes(name: RuleName, head: str) -> None:
    """A new class changes no other logit, starts at the mean minus ln 100, and the fold continues."""
    net = Net(head, (9, 7), K=15, dtype=np.float32)
    learner = net.learner(RULES[name])
    learner.fold(net.X, Y=net.Y)
    before, sums, others = learner.parameters().build_model().logits(net.X), learner.tensors(), masters(learner)[:2]
    learner.add_classes(3)
    after = learner.parameters().build_model().logits(net.X)
    assert np.array_equal(after[:, :15], before)
    np.testing.assert_allclose(after[:, 15:], before.mean(axis=1, keepdims=True) - np.log(100) + np.zeros(3), rtol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(masters(learner), others, strict=False))
    if name != "sgd":
        assert np.array_equal(learner.tensors()["squares.0"], sums["squares.0"])
        assert np.array_equal(learner.tensors()["squares.2"][:, :15], sums["squares.2"])
        assert (learner.tensors()["squares.2"][:, 15:] == 0.5).all()
    expected = net.parameters().with_classes(3)
    assert (expected.bias.shape, expected.weights.shape) == ((18,), (7, 18))
    copied = learner.copy()
    labels = np.eye(18)[np.random.default_rng(0).integers(0, 18, 30)]
    assert np.isfinite(learner.fold(net.X, Y=labels)).all()
    copied.fold(net.X, Y=labels)
    assert same_state(learner, copied)
    assert learner.added_classes == [3]


def test_another_rule_continues_from_the_same_weights() -> None:
    """Changed constants keep the sums and a changed rule resets them; neither changes a weight."""
    net = Net("softmax", (6,))
    learner = net.learner(RULES["adagrad"])
    learner.fold(net.X, Y=net.Y)
    before = learner.tensors()
    learner.set_rule(replace(RULES["adagrad"], rate=1e-30))
    assert np.array_equal(learner.tensors()["squares.0"], before["squares.0"])
    learner.fold(net.X, Y=net.Y)
    np.testing.assert_allclose(learner.tensors()["masters.0"], before["masters.0"], atol=1e-20)
    learner.set_rule(RULES["ftrl"])
    assert (learner.tensors()["squares.1"] == 0.5).all()
    learner.set_rule(RULES["sgd"])
    assert "squares.0" not in learner.tensors()


def test_paused_rows_are_counted_and_not_learned() -> None:
    """Without learning, rows are scored and counted, and no weight changes."""
    net = Net("softmax", (6,))
    learner = net.learner(RULES["adagrad"])
    before = masters(learner)
    learner.fold(net.X, Y=net.Y, learning=False)
    assert all(np.array_equal(a, b) for a, b in zip(masters(learner), before, strict=True))
    assert (learner.progress["rows"], learner.progress["steps"]) == (30, 0)


@pytest.mark.parametrize("staged", [False, True])
def test_parameters_are_copies_with_a_round_trip(*, staged: bool) -> None:
    """A new learner predicts with the bits of its start, and its parameters have a round trip through arrays."""
    net = Net("softmax", (6, 5), staged=staged, dtype=np.float32)
    learner, start = net.learner(RULES["adagrad"]), net.parameters()
    served = learner.parameters()
    assert served.build_model().predict(net.X).tobytes() == start.build_model().predict(net.X).tobytes()
    before = served.build_model().predict(net.X)
    learner.fold(net.X, Y=net.Y)
    assert np.array_equal(served.build_model().predict(net.X), before)
    now = learner.parameters()
    again = NetworkParameters.from_arrays(now.head, net.activations, now.arrays(), now.clips())
    assert again.build_model().predict(net.X).tobytes() == now.build_model().predict(net.X).tobytes()
    assert [tensor.shape for tensor in now.tensors()] == [(5, 6), (6,), (6, 5), (5,), (5, 3), (3,)]


@pytest.mark.parametrize("name", RULES)
def test_memory_of_a_wide_layer(name: RuleName) -> None:
    """A row of a network with 16,384 hidden units needs less than 64 MiB; lanes times inputs would be 1 GiB."""
    net = Net("softmax", (16_384,), N=4, B=1, dtype=np.float32)
    learner, before = net.learner(RULES[name]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    learner.fold(net.X, Y=net.Y)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_invalid_arguments_are_rejected() -> None:
    """Inconsistent shapes, dtypes, layouts and rules are rejected before a kernel runs."""
    net = Net("softmax", (4,))
    learner, y = net.learner(RULES["adagrad"]), np.zeros(30, np.int64)
    for arguments in ((), (y, net.Y)):
        with pytest.raises(ValueError, match="either"):
            learner.fold(net.X, *arguments)
    with pytest.raises(ValueError, match="must be int64"):
        learner.fold(net.X, y[:-1])
    with pytest.raises(ValueError, match="must be float64"):
        learner.fold(net.X, Y=net.Y[:, :2].copy())
    with pytest.raises(ValueError, match="X must be"):
        learner.fold(net.X[:, :3].copy(), y)
    for odd in (net.X.astype(np.float32), np.asfortranarray(net.X)):
        with pytest.raises(TypeError, match="X must be"):
            learner.fold(odd, y)
    with pytest.raises(ValueError, match="not those"):
        learner.restore({"masters.0": np.zeros((6, 4))})
    with pytest.raises(ValueError, match="sgd, adagrad or ftrl"):
        net.learner(LINEAR_RULES["newton"])
    with pytest.raises(ValueError, match="sgd, adagrad or ftrl"):
        learner.set_rule(LINEAR_RULES["newton"])
    with pytest.raises(ValueError, match="threshold"):
        NetworkLearner(net.parameters(), RULES["sgd"], np.ones(2))
