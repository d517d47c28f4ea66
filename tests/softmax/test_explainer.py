"""Explanations, checked by differences in float64, autograd, and the identities of their sums."""

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import jacobian
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.softmax.calibration import IDENTITY, KINDS, CalibratedModel, Calibration, uncalibrated_logits
from service.softmax.classifier import Classifier
from service.softmax.explainer_factory import create_explainer
from service.softmax.explanation import Explanation
from service.softmax.input_stage import Delta, Stage
from service.softmax.linear_model import LinearModel
from service.softmax.network_explainer import BLOCK_CELLS, NetworkExplainer
from service.softmax.network_model import NetworkModel
from tests.support.networks import Net, activate
from tests.support.reference import DTYPES, HEADS, Array

N, B, STEP = 5, 6, 1e-6
FORMS = ("plain", "stage", "delta", "stage and delta", "network", "staged network")
CALIBRATED = ("calibrated", "calibrated stage and delta", "calibrated staged network")
ALL = [
    *itertools.product(HEADS, FORMS),
    *itertools.product(KINDS, CALIBRATED),
]
quick = settings(deadline=None, max_examples=40)
ARRAYS = ("logits", "probabilities", "contributions", "sensitivities", "losses", "loss_gradients")


class Case(NamedTuple):
    """A model, rows, targets, and its logits as a function of a raw row for autograd."""

    model: Classifier
    X: Array
    Y: Array
    logits: Callable[[Array], Array]


def staged(x: Array, stage: Stage | None) -> Array:
    """Return a raw row as the weights take it, for autograd."""
    if stage is None:
        return x
    limit = np.inf if stage.clip is None else stage.clip
    return anp.clip((x - stage.mean) / stage.scale, -limit, limit)


def build_case(head: Any, form: str, dtype: Any = np.float64, *, K: int = 4, seed: int = 0, hard: bool = True) -> Case:
    """Return a case of one head and form with random numbers."""
    case = raw_case(head, form, dtype, K=K, seed=seed, hard=hard)
    if "calibrated" not in form:
        return case
    if head == "softmax":
        return case._replace(
            model=CalibratedModel(case.model, Calibration("temperature", (1.7,))), logits=lambda x: case.logits(x) / 1.7
        )
    return case._replace(
        model=CalibratedModel(case.model, Calibration("platt", (0.6, 0.4))), logits=lambda x: case.logits(x) * 0.6 + 0.4
    )


def raw(model: Classifier) -> Classifier:
    """Return the model that computes a model's logits before a calibration."""
    return model.inner if isinstance(model, CalibratedModel) else model


def raw_case(head: Any, form: str, dtype: Any, *, K: int, seed: int, hard: bool) -> Case:
    """Return the case before a calibration."""
    rng, K = np.random.default_rng(seed), 1 if head == "sigmoid" else K
    X = rng.standard_normal((B, N)).astype(dtype)
    if head in {"sigmoid", "multilabel"}:
        Y = rng.integers(0, 2, (B, K)).astype(float) if hard else rng.uniform(0, 1, (B, K))
    else:
        Y = np.eye(K)[rng.integers(0, K, B)] if hard else rng.dirichlet(np.ones(K), B)
    if "network" in form:
        net = Net(head, (7, 3), N=N, K=K, dtype=dtype, staged="staged" in form, seed=seed, shift=seed % 3)
        model: Classifier = net.parameters().build_model()

        def deep(x: Array) -> Array:
            a = staged(x, net.stage)
            for (W, b), name in zip(net.affine[:-1], net.activations, strict=True):
                a = activate(name, anp.dot(a, W) + b, anp)
            return anp.dot(a, net.affine[-1][0]) + net.affine[-1][1]

        return Case(model, X, Y, deep)
    W, D = rng.standard_normal((2, N, K)).astype(dtype)
    b = rng.standard_normal(K).astype(dtype)
    stages = [Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), clip) for clip in (1.1, 0.7)]
    stage = stages[0] if "stage" in form else None
    delta = Delta(D, stages[1]) if "delta" in form else None

    def logits(x: Array) -> Array:
        z = anp.dot(staged(x, stage), W) + b
        return z if delta is None else z + anp.dot(staged(x, delta.stage), delta.weights)

    return Case(LinearModel(head, W, b, stage, delta), X, Y, logits)


def answer(head: str, z: Array) -> Array:
    """Return the probabilities of a row's logits by the textbook formula, for autograd."""
    if head == "sigmoid":
        z = anp.concatenate([anp.zeros(1), z])
    if head in {"ovr", "multilabel"}:
        z = anp.minimum(z, 0) - anp.log(1 + anp.exp(-anp.abs(z)))
    e = anp.exp(z if head == "multilabel" else z - anp.max(z))
    return e if head == "multilabel" else e / anp.sum(e)


def loss(head: str, z: Array, y: Array) -> Array:
    """Return the loss of the returned probabilities by the textbook formula, for autograd."""
    p = answer(head, z)
    if head == "sigmoid":
        return -(y[0] * anp.log(p[1]) + (1 - y[0]) * anp.log(p[0]))
    if head == "multilabel":
        return -anp.sum(y * anp.log(p) + (1 - y) * anp.log(1 - p))
    return -anp.sum(y * anp.log(p))


def explained(case: Case, *, with_targets: bool = True) -> Explanation:
    return create_explainer(case.model).explain(case.X, case.Y if with_targets else None)


CASES = pytest.mark.parametrize(("head", "form"), ALL)


@CASES
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 20])
def test_explained_predictions(head: str, form: str, dtype: Any, K: int) -> None:
    """Labels, probabilities and logits of an explanation are bit-identical to a prediction."""
    case = build_case(head, form, dtype, K=K)
    found = explained(case)
    P, labels = case.model.classify(case.X)
    assert found.probabilities.tobytes() == P.tobytes()
    assert found.labels.tolist() == labels
    assert found.logits.tobytes() == raw(case.model).logits(case.X).tobytes()
    assert {getattr(found, name).dtype for name in ("logits", "sensitivities", "loss_gradients")} == {np.dtype(dtype)}


@CASES
@pytest.mark.parametrize("dtype", DTYPES)
def test_contributions_and_the_bias_are_the_logits(head: str, form: str, dtype: Any) -> None:
    """Contributions and bias sum to the logits, except for rounding; a network has none."""
    case = build_case(head, form, dtype)
    found, bias = explained(case), create_explainer(case.model).bias
    if isinstance(raw(case.model), NetworkModel):
        assert found.contributions is None
        assert bias is None
        return
    assert found.contributions is not None
    assert bias is not None
    parts = found.contributions.astype(np.longdouble)
    bound = 2 * N * np.finfo(dtype).eps * (np.abs(bias) + np.abs(parts).sum(axis=2))
    assert (np.abs(bias + parts.sum(axis=2) - found.logits) <= bound).all()


@CASES
@pytest.mark.parametrize("seed", range(3))
def test_sensitivities_by_differences(head: str, form: str, seed: int) -> None:
    """Sensitivities equal central differences of `predict` in float64."""
    case = build_case(head, form, seed=seed)
    slopes = np.empty_like(explained(case).sensitivities)
    for j in range(N):
        step = np.zeros(N)
        step[j] = STEP
        slopes[:, :, j] = (case.model.predict(case.X + step) - case.model.predict(case.X - step)) / (2 * STEP)
    np.testing.assert_allclose(explained(case).sensitivities, slopes, rtol=1e-6, atol=1e-8)


@CASES
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
def test_by_autograd(head: str, form: str, seed: int, hard: bool) -> None:  # noqa: FBT001
    """Sensitivities, losses and loss gradients equal those of autograd."""
    case = build_case(head, form, seed=seed, hard=hard)
    found = explained(case)
    for i, (x, y) in enumerate(zip(case.X, case.Y, strict=True)):
        slopes = jacobian(lambda x: answer(head, case.logits(x)))(x)
        np.testing.assert_allclose(found.sensitivities[i], slopes, rtol=1e-9, atol=1e-13)
        assert found.losses is not None
        assert found.losses[i] == pytest.approx(loss(head, case.logits(x), y), rel=1e-9)
        gradient = jacobian(lambda x, y=y: loss(head, case.logits(x), y))(x)
        assert found.loss_gradients is not None
        np.testing.assert_allclose(found.loss_gradients[i], gradient, rtol=1e-9, atol=1e-13)


@CASES
def test_float32_is_near_float64(head: str, form: str) -> None:
    """Explanations of one model in float32 and float64 agree."""
    narrow = build_case(head, form, np.float32)
    found = explained(narrow)
    exact = create_explainer(narrow.model.float64_model).explain(narrow.X.astype(np.float64), narrow.Y)
    for name in ARRAYS:
        own, other = getattr(found, name), getattr(exact, name)
        if own is not None:
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=2e-6)


@quick
@given(data=st.data(), chosen=st.sampled_from(ALL), dtype=st.sampled_from(DTYPES))
def test_a_row_has_the_same_bits_alone_and_among_others(data: st.DataObject, chosen: Any, dtype: Any) -> None:
    """Every array of an explanation has the same bits in any batch."""
    head, form = chosen
    case = build_case(head, form, dtype, K=data.draw(st.sampled_from([2, 3, 17])), seed=data.draw(st.integers(0, 9)))
    explainer, whole = create_explainer(case.model), explained(case)
    rows = data.draw(st.lists(st.integers(0, B - 1), min_size=1, max_size=4))
    found = explainer.explain(case.X[rows], case.Y[rows])
    for name in (*ARRAYS, "labels"):
        own, other = getattr(found, name), getattr(whole, name)
        assert own is other is None or own.tobytes() == other[rows].tobytes(), name


def test_the_slopes_of_a_network_are_the_jacobian_of_its_logits() -> None:
    """The slopes of all logits equal central differences in float64."""
    net = Net("softmax", (6, 5, 4), N=4, B=6, staged=True)
    model = net.parameters().build_model()
    slopes = create_explainer(model).forward(net.X).slopes
    for j in range(4):
        step = np.zeros((6, 4))
        step[:, j] = 1e-5
        by_differences = (model.logits(net.X + step) - model.logits(net.X - step)) / 2e-5
        np.testing.assert_allclose(slopes[:, :, j], by_differences, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@CASES
def test_uncalibrated_logits(head: str, form: str, dtype: Any) -> None:
    """`uncalibrated_logits` returns the bits of the logits of an explanation."""
    case = build_case(head, form, dtype)
    assert uncalibrated_logits(case.model, case.X).tobytes() == explained(case).logits.tobytes()


def test_uncalibrated_logits_that_overflow() -> None:
    """Logits that overflow only in between are rounded; others, and rows that are not finite, are rejected."""
    model = LinearModel("softmax", np.array([[3e38, 0], [3e38, 0], [-3e38, 0]], np.float32), np.zeros(2, np.float32))
    X = np.array([[1] * 3, [1e-30] * 3], np.float32)
    whole = create_explainer(model).explain(X).round_to_dtype().logits
    assert uncalibrated_logits(model, X).tobytes() == whole.tobytes()
    for row, word in (([9, 9, 1], "too large|overflow"), ([np.nan, 0, 0], "finite")):
        with pytest.raises(UnacceptableError, match=word):
            uncalibrated_logits(model, np.array([row], np.float32))


def test_a_network_of_many_rows_is_explained_in_blocks() -> None:
    """A network is explained in blocks of rows, with the bits of single rows."""
    net = Net("softmax", (64,), N=9, K=10, B=900, dtype=np.float32)
    explainer = create_explainer(net.parameters().build_model())
    assert isinstance(explainer, NetworkExplainer)
    # The block size is an internal of the explainer; the test compares rows at its borders.
    assert explainer._block_rows == BLOCK_CELLS // 640 < 900
    whole = explainer.explain(net.X).sensitivities
    # As above.
    for i in (0, explainer._block_rows - 1, explainer._block_rows, 899):
        assert explainer.explain(net.X[i : i + 1]).sensitivities.tobytes() == whole[i : i + 1].tobytes()


def test_a_wide_network_is_explained_in_blocks_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backpropagation runs in blocks of logits, which limits memory and changes no bit."""
    net = Net("softmax", (4096,), N=3, K=200, B=1, dtype=np.float32)
    explainer = create_explainer(net.parameters().build_model())
    assert isinstance(explainer, NetworkExplainer)
    # The block size is an internal of the explainer; without blocks the test would show nothing.
    assert explainer._block_logits == BLOCK_CELLS // 4096 < 200
    tracemalloc.start()
    found = explainer.explain(net.X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 4 * BLOCK_CELLS < 2 * 4 * 200 * 4096
    monkeypatch.setattr(explainer, "_block_logits", 200)
    assert explainer.explain(net.X).sensitivities.tobytes() == found.sensitivities.tobytes()


@CASES
def test_without_targets_there_is_no_loss(head: str, form: str) -> None:
    case = build_case(head, form)
    found, with_targets = explained(case, with_targets=False), explained(case)
    assert found.losses is found.loss_gradients is None
    assert found.sensitivities.tobytes() == with_targets.sensitivities.tobytes()


@CASES
def test_sensitivities_sum_to_zero(head: str, form: str) -> None:
    """For heads whose probabilities sum to 1, sensitivities of a feature sum to 0."""
    found = explained(build_case(head, form))
    if head != "multilabel":
        assert np.abs(found.sensitivities.sum(axis=1)).max() <= 1e-15


@pytest.mark.parametrize("head", HEADS)
def test_a_clipped_feature_has_no_sensitivity(head: Any) -> None:
    """Beyond the clip of one stage only the other counts; beyond both clips the sensitivity is 0."""
    K, stage = 1 if head == "sigmoid" else 3, Stage(np.zeros(N), np.ones(N), 1.0)
    W, D = np.random.default_rng(0).standard_normal((2, N, K))
    delta = Delta(D, Stage(np.zeros(N), np.ones(N), 2.0))
    X = np.array([[1.5, 0.5, -3.0, -0.5, 1.0]])
    found = create_explainer(LinearModel(head, W, np.zeros(K), stage, delta)).explain(X)
    assert not found.sensitivities[0, :, 2].any()
    assert found.sensitivities[0, :, [0, 1, 3]].all()
    assert found.contributions is not None
    np.testing.assert_allclose(found.contributions[0, :, 2], -W[2] - 2 * D[2])


@pytest.mark.parametrize("head", ["softmax", "ovr"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nearly_certain_row_keeps_its_digits(head: Any, dtype: Any) -> None:
    """If a probability rounds to 1, its sensitivity and loss gradient keep the digits of the other classes."""
    W = np.array([[30, -40, -42]], dtype)
    found = create_explainer(LinearModel(head, W, np.zeros(3, dtype))).explain(
        np.ones((1, 1), dtype), np.array([[1.0, 0, 0]])
    )
    assert found.probabilities[0, 0] == 1
    z = W[0].astype(np.longdouble)
    logs = -np.log1p(np.exp(-z)) if head == "ovr" else z
    p = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
    g = z / (1 + np.exp(z)) if head == "ovr" else z
    slope = p[0] * (p[1] * (g[0] - g[1]) + p[2] * (g[0] - g[2]))
    assert float(found.sensitivities[0, 0, 0]) == pytest.approx(float(slope), rel=1e-5)
    assert found.loss_gradients is not None
    assert float(found.loss_gradients[0, 0]) == pytest.approx(-float(slope), rel=1e-5)


def steep(head: Any = "softmax", dtype: Any = np.float32) -> LinearModel:
    K = 1 if head == "sigmoid" else 2
    return LinearModel(head, np.array([[1e30] * K, [-1e30] * K], dtype), np.zeros(K, dtype))


@pytest.mark.parametrize("head", HEADS)
def test_a_row_that_overflows_is_explained_in_float64(head: Any) -> None:
    """A row that overflows is explained in float64; other rows keep their bits, and predictions stay the same."""
    model = steep(head)
    X = np.array([[1, 0.5], [1e20, 1e20], [0, 1]], np.float32)
    Y = np.zeros((3, model.n_logits))
    Y[:, 0] = 1
    found = create_explainer(model).explain(X, Y)
    assert found.over.tolist() == [1]
    P, labels = model.classify(X)
    assert (found.probabilities.tobytes(), found.labels.tolist()) == (P.tobytes(), labels)
    exact = found.exact
    assert exact is not None
    assert exact.contributions is not None
    np.testing.assert_allclose(exact.contributions[0, 0], [1e50, -1e50], rtol=1e-6)
    alone = create_explainer(model).explain(X[:1], Y[:1])
    assert alone.sensitivities.tobytes() == found.sensitivities[:1].tobytes()
    with pytest.raises(UnacceptableError, match="too large"):
        found.round_to_dtype()


@pytest.mark.parametrize("head", KINDS)
def test_the_identity_calibration_changes_no_explanation(head: Any) -> None:
    """Temperature 1, or a = 1 and b = 0, changes no bit of an explanation."""
    case = build_case(head, "stage and delta", np.float32)
    identity = Calibration(KINDS[head], tuple(IDENTITY[KINDS[head]].values()))
    own, other = (
        create_explainer(model).explain(case.X, case.Y) for model in (case.model, CalibratedModel(case.model, identity))
    )
    for name in ARRAYS:
        assert getattr(own, name).tobytes() == getattr(other, name).tobytes(), name


@pytest.mark.parametrize("head", KINDS)
def test_a_calibrated_row_that_overflows_is_explained_in_float64(head: Any) -> None:
    """A row is also explained in float64 if only the calibrated logit overflows."""
    identity = tuple(IDENTITY[KINDS[head]].values())
    for numbers, x in ((identity, 1e20), ((0.01,) if head == "softmax" else (100.0, 0.0), 1e8)):
        model = CalibratedModel(steep(head), Calibration(KINDS[head], numbers))
        X = np.array([[1e-33, 0.5e-33], [x, 0], [0, 1e-33]], np.float32)
        Y = np.zeros((3, model.n_logits))
        Y[:, 0] = 1
        found = create_explainer(model).explain(X, Y)
        assert found.over.tolist() == [1]
        assert found.exact is not None
        P, labels = model.classify(X)
        assert (found.probabilities.tobytes(), found.labels.tolist()) == (P.tobytes(), labels)
        np.testing.assert_allclose(found.exact.logits[0], x * 1e30, rtol=1e-6)
        alone = create_explainer(model).explain(X[:1], Y[:1])
        assert alone.sensitivities.tobytes() == found.sensitivities[:1].tobytes()


def test_overflowing_sums_are_rounded() -> None:
    """Sums that overflow only in between are rounded to the dtype."""
    model = LinearModel("softmax", np.array([[3e38, 0], [3e38, 0], [-3e38, 0]], np.float32), np.zeros(2, np.float32))
    found = create_explainer(model).explain(np.array([[1] * 3, [1e-30] * 3], np.float32), np.eye(2))
    assert found.over.tolist() == [0]
    whole = found.round_to_dtype()
    assert (whole.over.size, whole.exact) == (0, None)
    assert np.isfinite(whole.logits).all()
    assert whole.losses is not None
    assert np.isfinite(whole.losses).all()


def test_a_network_that_overflows_is_explained_in_float64() -> None:
    net = Net("softmax", (4,), N=2, dtype=np.float32, shift=2)
    net.affine[0] = (np.array([[3e38] * 4, [-3e38] * 4], np.float32), np.zeros(4, np.float32))
    net.affine[1] = (np.array([[2, 0, 0]] * 4, np.float32), np.zeros(3, np.float32))
    found = create_explainer(net.parameters().build_model()).explain(np.array([[2, 2], [0, 0]], np.float32))
    assert found.over.tolist() == [0, 1]  # the slopes of the second overflow
    assert found.exact is not None
    assert np.isfinite(found.exact.sensitivities).all()


@pytest.mark.parametrize(
    ("model", "row", "word"),
    [
        (steep(), [np.nan, 1], "finite"),
        (steep(), [np.inf, 1], "finite"),
        (steep(dtype=np.float64), [1e300, 1], "logits overflow"),
        (LinearModel("softmax", np.eye(2), np.zeros(2), Stage(np.zeros(2), np.ones(2), 1.0)), [np.nan, 1], "finite"),
        (
            LinearModel(
                "multilabel", np.full((2, 2), 1e300), np.zeros(2), Stage(np.zeros(2), np.full(2, 1e-300), 1e-200)
            ),
            [0, 0],
            "gradient overflows",
        ),
    ],
)
def test_rows_without_an_explanation_are_rejected(model: LinearModel, row: list[float], word: str) -> None:
    """Rows without an explanation are rejected, without their values in the message."""
    with pytest.raises(UnacceptableError, match=word):
        create_explainer(model).explain(np.array([row], model.dtype))


def test_wrong_shapes_are_refused() -> None:
    case = build_case("softmax", "plain")
    explainer = create_explainer(case.model)
    with pytest.raises(ValueError, match="X must be"):
        explainer.explain(case.X[:, :3].copy())
    with pytest.raises(TypeError):
        explainer.explain(case.X.astype(np.float32))
    with pytest.raises(ValueError, match="Y must be"):
        explainer.explain(case.X, case.Y[:, :2].copy())
