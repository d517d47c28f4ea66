"""Explanations of mixtures, checked by autograd, by differences in float64, and by the identities of their sums."""

import itertools
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import jacobian
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.softmax import mixture_slopes
from service.softmax.calibration import CalibratedModel, Calibration
from service.softmax.classifier import Classifier
from service.softmax.explainer_factory import create_explainer
from service.softmax.explanation import Explanation
from service.softmax.input_stage import Stage
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_explainer import MixtureExplainer
from service.softmax.mixture_model import MixtureModel
from tests.support.mixture_models import MixtureForm, member_answers, mixture_answer, random_mixture
from tests.support.reference import DTYPES, Array

B = 5
KINDS = [MixtureForm(*each) for each in itertools.product(("softmax", "sigmoid"), (False, True), (False, True), (6,))]
FORMS = [*KINDS, KINDS[0]._replace(n_features=1), KINDS[6]._replace(n_features=1)]
CASES = pytest.mark.parametrize("form", FORMS, ids=str)
ARRAYS = ("logits", "probabilities", "sensitivities", "losses", "loss_gradients", "labels", "experts")
CALIBRATIONS = {
    "softmax": Calibration("temperature", (1.7,)),
    "sigmoid": Calibration("platt", (0.6, 0.4)),
}


def random_rows(form: MixtureForm, dtype: Any = np.float64, *, K: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Return rows, some of which are cut, and targets."""
    rng = np.random.default_rng(seed + 100)
    X = (1.5 * rng.standard_normal((B, form.n_features))).astype(dtype)
    Y = rng.dirichlet(np.ones(max(K, 2)), B) if form.head == "softmax" else rng.uniform(0, 1, (B, 1))
    return X, Y


def calibrated_answer(head: str, p: Array) -> Array:
    """Return the answer of a model with the calibration of a head, from its probabilities before that."""
    if head == "softmax":
        e = p ** (1 / 1.7)
        return e / anp.sum(e)
    z = 0.6 * (anp.log(p[1]) - anp.log(p[0])) + 0.4
    return anp.array([1 / (1 + anp.exp(z)), 1 / (1 + anp.exp(-z))])


def loss(p: Array, y: Array) -> Array:
    """Return the cross-entropy of probabilities; y of a sigmoid head is that of the second class."""
    return -anp.sum((y if len(y) > 1 else np.array([1 - y[0], y[0]])) * anp.log(p))


def explained(model: Classifier, X: Array, Y: Array | None = None) -> Explanation:
    return create_explainer(model).explain(X, Y)


@CASES
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_by_autograd(form: MixtureForm, *, is_calibrated: bool) -> None:
    """Sensitivities, losses and loss gradients equal those of autograd, also after a calibration."""
    mixture, (X, Y) = random_mixture(form), random_rows(form)
    model = CalibratedModel(mixture, CALIBRATIONS[form.head]) if is_calibrated else mixture

    def answer(x: Array) -> Array:
        p = mixture_answer(mixture, x)
        return calibrated_answer(form.head, p) if is_calibrated else p

    found = explained(model, X, Y)
    assert found.losses is not None
    assert found.loss_gradients is not None
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        np.testing.assert_allclose(found.probabilities[i], answer(x), rtol=1e-12)
        np.testing.assert_allclose(found.sensitivities[i], jacobian(answer)(x), rtol=1e-9, atol=1e-12)
        assert found.losses[i] == pytest.approx(loss(answer(x), y), rel=1e-9)
        gradient = jacobian(lambda x, y=y: loss(answer(x), y))(x)
        np.testing.assert_allclose(found.loss_gradients[i], gradient, rtol=1e-9, atol=1e-12)


@CASES
def test_sensitivities_by_differences(form: MixtureForm) -> None:
    """Sensitivities equal central differences of `predict` in float64."""
    model, (X, _) = random_mixture(form, seed=1), random_rows(form, seed=1)
    found = explained(model, X)
    for j in range(form.n_features):
        step = np.zeros(form.n_features)
        step[j] = 1e-6
        slopes = (model.predict(X + step) - model.predict(X - step)) / 2e-6
        np.testing.assert_allclose(found.sensitivities[:, :, j], slopes, rtol=1e-5, atol=1e-8)


@CASES
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_explained_predictions(form: MixtureForm, dtype: Any, *, is_calibrated: bool) -> None:
    """Labels and probabilities are bit-identical to a prediction, logits to those before a calibration."""
    mixture, (X, Y) = random_mixture(form, dtype, K=11), random_rows(form, dtype, K=11)
    model = CalibratedModel(mixture, CALIBRATIONS[form.head]) if is_calibrated else mixture
    found = explained(model, X, Y)
    P, labels = model.classify(X)
    assert found.probabilities.tobytes() == P.tobytes()
    assert found.labels.tolist() == labels
    assert found.logits.tobytes() == mixture.logits(X).tobytes()
    assert found.contributions is None
    assert create_explainer(model).bias is None
    assert found.experts is not None
    assert {getattr(found, name).dtype for name in ("sensitivities", "loss_gradients", "experts")} == {np.dtype(dtype)}


@CASES
@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_make_up_the_answer(form: MixtureForm, dtype: Any) -> None:
    """The weighted sum of the experts' probabilities is the answer before a calibration, except for rounding."""
    mixture, (X, _) = random_mixture(form, dtype), random_rows(form, dtype)
    explainer = create_explainer(CalibratedModel(mixture, CALIBRATIONS[form.head]))
    experts = explainer.explain(X).experts
    assert experts is not None
    assert [expert.name for expert in explainer.experts] == form.names
    weights = np.array([expert.weight for expert in explainer.experts])
    exponents = [expert.exponent for expert in explainer.experts]
    assert np.concatenate([exponents[2:], weights]).tolist() == mixture.experts.weights.tolist()
    assert exponents[:2] == [None, None]
    # A probability is the exponential of a logarithm that is rounded to the dtype.
    P, eps = mixture.predict(X), np.finfo(dtype).eps
    np.testing.assert_allclose(np.einsum("e,bec->bc", weights, experts), P, rtol=4 * eps * (1 - np.log(P.min())))


@CASES
def test_answers_of_experts(form: MixtureForm) -> None:
    """The probabilities of each expert are those of its own formula."""
    model, (X, _) = random_mixture(form), random_rows(form)
    found = explained(model, X).experts
    assert found is not None
    for x, P in zip(X, found, strict=True):
        np.testing.assert_allclose(P, member_answers(model, x), rtol=1e-12)


@CASES
def test_float32_is_near_float64(form: MixtureForm) -> None:
    """Explanations of one model in float32 and float64 agree."""
    model, (X, Y) = random_mixture(form, np.float32), random_rows(form, np.float32)
    found, exact = explained(model, X, Y), explained(model.float64_model, X.astype(np.float64), Y)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(data=st.data(), form=st.sampled_from(FORMS), dtype=st.sampled_from(DTYPES))
def test_a_row_has_the_same_bits_alone_and_among_others(data: st.DataObject, form: MixtureForm, dtype: Any) -> None:
    """Every array of an explanation has the same bits in any batch."""
    seed, K = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([2, 3, 17]))
    model, (X, Y) = random_mixture(form, dtype, K=K, seed=seed), random_rows(form, dtype, K=K, seed=seed)
    whole = explained(model, X, Y)
    rows = data.draw(st.lists(st.integers(0, B - 1), min_size=1, max_size=4))
    found = explained(model, X[rows], Y[rows])
    for name in ARRAYS:
        assert getattr(found, name).tobytes() == getattr(whole, name)[rows].tobytes(), name


def test_many_rows_are_explained_in_blocks() -> None:
    """Rows are explained in blocks, with the bits of single rows."""
    form = MixtureForm("softmax", has_offset=True, is_wide=False, n_features=6)
    model = random_mixture(form, np.float32, K=40)
    explainer = create_explainer(model)
    assert isinstance(explainer, MixtureExplainer)
    # The block size is an internal of the explainer; the test compares rows at its borders.
    size = explainer._block_rows
    X = np.random.default_rng(0).standard_normal((size + 2, 6)).astype(np.float32)
    whole = explainer.explain(X).sensitivities
    for i in (0, size - 1, size, size + 1):
        assert explainer.explain(X[i : i + 1]).sensitivities.tobytes() == whole[i : i + 1].tobytes()


@CASES
def test_features_are_differentiated_in_blocks(form: MixtureForm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derivatives by some features at a time, and random features in parts, have the bits of all at once."""
    model, (X, Y) = random_mixture(form), random_rows(form)
    whole = explained(model, X, Y)
    monkeypatch.setattr(mixture_slopes, "BLOCK_CELLS", 2 * B * model.n_classes)
    found = explained(model, X, Y)
    for name in ARRAYS:
        assert getattr(found, name).tobytes() == getattr(whole, name).tobytes(), name


@CASES
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mixture_that_has_learned_nothing(form: MixtureForm, dtype: Any) -> None:
    """Its answer is that of the offset, or uniform; so are the derivatives, and every weight is 0."""
    model, (X, Y) = random_mixture(form, dtype), random_rows(form, dtype)
    weights = model.experts.weights.copy()
    weights[-len(form.names) :] = 0
    empty = MixtureModel(form.head, model.experts._replace(weights=weights), model.offset)
    found = explained(empty, X, Y)
    assert [expert.weight for expert in create_explainer(empty).experts] == [0.0] * len(form.names)
    assert found.experts is not None
    assert np.isfinite(found.experts).all()
    if model.offset is None:
        assert np.allclose(found.probabilities, 1 / model.n_classes)
        assert not found.sensitivities.any()
        return
    offset = explained(model.offset, X, Y)
    for name in ARRAYS[:-1]:
        assert getattr(found, name).tobytes() == getattr(offset, name).tobytes()


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_feature_without_effect_has_no_sensitivity(head: Any) -> None:
    """A feature of unknown scale has no effect; beyond every cut no feature has any."""
    form = MixtureForm(head, has_offset=False, is_wide=False, n_features=6)
    model = random_mixture(form)
    X = np.array([[0.1] * 6, [1e9] * 6, [-1e300] * 6])
    found = explained(model, X)
    assert not found.sensitivities[:, :, 5].any()
    assert found.sensitivities[0, :, :5].all()
    assert not found.sensitivities[1:].any()


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_row_that_overflows_is_explained_in_float64(*, is_wide: bool) -> None:
    """A row whose offset overflows float32 is explained in float64; other rows keep their bits."""
    form = MixtureForm("softmax", has_offset=True, is_wide=is_wide, n_features=2)
    model = random_mixture(form, np.float32)
    offset = LinearModel("softmax", np.full((2, 3), 1e30, np.float32), np.zeros(3, np.float32))
    model = MixtureModel("softmax", model.experts, offset)
    X, Y = np.array([[1e-31, 0], [1e20, 1e20]], np.float32), np.eye(3)[:2]
    found = explained(model, X, Y)
    assert found.over.tolist() == [1]
    assert found.exact is not None
    assert found.exact.experts is not None
    assert found.experts is not None
    P, labels = model.classify(X)
    assert (found.probabilities.tobytes(), found.labels.tolist()) == (P.tobytes(), labels)
    assert found.experts[1].tobytes() == found.exact.experts[0].astype(np.float32).tobytes()
    assert found.sensitivities[:1].tobytes() == explained(model, X[:1]).sensitivities.tobytes()


@pytest.mark.parametrize("form", KINDS[:4], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_rejected(form: MixtureForm, value: float) -> None:
    """A row with a value that is not finite has no explanation."""
    X = np.zeros((2, form.n_features), np.float32)
    X[1, 0] = value
    with pytest.raises(UnacceptableError, match="finite"):
        explained(random_mixture(form, np.float32), X)


def test_the_center_of_features_is_their_mean() -> None:
    """Features count from the mean of the rows that were learned; a feature of unknown scale from 0."""
    form = MixtureForm("softmax", has_offset=False, is_wide=False, n_features=6)
    explainer = create_explainer(random_mixture(form))
    assert isinstance(explainer.stage, Stage)
    assert explainer.center[:5].all()
    assert explainer.center[5] == 0
