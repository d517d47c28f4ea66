"""Conversions of scores, against each other and NumPy's longdouble, and invalid scores."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import UnacceptableError
from service.softmax import derivatives
from service.softmax.scores import FORMS, Scores, compute_score_forms
from tests.support.reference import Array, log_probabilities, probabilities

quick = settings(deadline=None, max_examples=100)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 20))


def logits(limit: float = 30.0) -> st.SearchStrategy[Array]:
    return arrays(np.float64, shapes, elements=st.floats(-limit, limit))


def converted(values: Any, form: Any = "logits", head: str = "softmax", T: float = 1.0) -> Scores:
    return compute_score_forms(form, np.array(values, np.float64), sigmoid=head == "sigmoid", temperature=T)


@quick
@given(Z=logits(), T=st.floats(0.1, 10))
def test_softmax_of_logits(Z: Array, T: float) -> None:
    """Probabilities, logarithms and odds of softmax agree with longdouble, with all digits near 0 and 1."""
    found, exact = converted(Z, T=T), probabilities("softmax", Z / T)
    np.testing.assert_allclose(found["probabilities"], exact.astype(float), rtol=5e-13, atol=0)
    np.testing.assert_allclose(
        found["log_probabilities"], log_probabilities("softmax", Z / T).astype(float), rtol=5e-13, atol=1e-18
    )
    e = np.exp((Z / T).astype(np.longdouble) - (Z / T).max(axis=1, keepdims=True))
    others = np.stack([np.delete(e, k, axis=1).sum(axis=1) for k in range(Z.shape[1])], axis=1)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found["odds"], (e / others).astype(float), rtol=5e-13)
    np.testing.assert_allclose(found["probabilities"], derivatives.softmax(Z, T), rtol=1e-13)
    assert found["logits"].tobytes() == Z.tobytes()


@quick
@given(Z=logits(700), T=st.floats(0.5, 10))
def test_sigmoid_of_logits(Z: Array, T: float) -> None:
    found, U = converted(Z, head="sigmoid", T=T), (Z / T).astype(np.longdouble)
    np.testing.assert_allclose(
        found["probabilities"], probabilities("multilabel", U).astype(float), rtol=1e-14, atol=1e-305
    )
    np.testing.assert_allclose(
        found["log_probabilities"], log_probabilities("multilabel", U).astype(float), rtol=1e-13, atol=1e-305
    )
    finite = np.abs(U) < 709
    np.testing.assert_allclose(found["odds"][finite], np.exp(U[finite]).astype(float), rtol=1e-14, atol=1e-305)


@quick
@given(Z=logits(), T=st.floats(0.1, 10), head=st.sampled_from(["softmax", "sigmoid"]), form=st.sampled_from(FORMS))
def test_every_form_leads_to_every_other(Z: Array, T: float, head: str, form: Any) -> None:
    """Converting logits to a form, and from that to all forms, gives the same scores."""
    first = converted(Z, head=head, T=T)
    again = converted(first[form], form, head, T)
    assert again[form].tobytes() == first[form].tobytes()
    # The odds of a softmax are computed from the other classes, so they keep their digits.
    if head == "softmax":
        np.testing.assert_allclose(again["odds"], first["odds"], rtol=1e-8)
    # A single probability near 1 has no digits of its odds.
    clear = first["probabilities"] < 1 - 1e-6
    for name in ("probabilities", "log_probabilities", "odds"):
        np.testing.assert_allclose(again[name][clear], first[name][clear], rtol=1e-8, atol=1e-300)
    u = again["logits"] / T
    expected = first["log_probabilities"] if head == "softmax" else Z / T
    if form != "logits":
        np.testing.assert_allclose(u[clear], expected[clear], rtol=1e-8, atol=1e-8)


def test_temperature_flattens_and_sharpens() -> None:
    """A temperature keeps the order of classes, and 1 is the identity."""
    Z = [[3.0, 1.0, 0.5]]
    sharp, same, flat = (converted(Z, T=T)["probabilities"][0] for T in (0.5, 1.0, 4.0))
    assert sharp[0] > same[0] > flat[0]
    assert all((np.diff(p) < 0).all() for p in (sharp, same, flat))


def test_impossible_classes() -> None:
    """A logit of -inf has the probability 0 and does not change the others."""
    found, without = converted([[2.0, -np.inf, 1.0]]), converted([[2.0, 1.0]])
    assert found["probabilities"][0, 1] == found["odds"][0, 1] == 0
    assert found["log_probabilities"][0, 1] == -np.inf
    for name in ("probabilities", "log_probabilities", "odds"):
        assert found[name][0, [0, 2]].tolist() == without[name][0].tolist()


@pytest.mark.parametrize("scale", [1.0, 1e5, 1e30, 1e300])
def test_extremes_stay_exact(scale: float) -> None:
    """Extreme logits give no overflow and no NaN, and a constant on all changes nothing."""
    found = converted([[scale, -scale, 0.0]])
    assert not np.isnan(np.concatenate(list(found.values()))).any()
    assert found["probabilities"].sum() == pytest.approx(1)
    assert converted([[1e30, 1e30]])["probabilities"].tolist() == [[0.5, 0.5]]
    alone = converted([[scale], [-scale]], head="sigmoid")
    assert not np.isnan(np.concatenate(list(alone.values()))).any()


def test_a_certain_class_has_infinite_odds() -> None:
    for head in ("softmax", "sigmoid"):
        found = converted([[1.0, 0.0]], "probabilities", head)
        assert found["odds"].tolist() == [[np.inf, 0]]
        assert found["log_probabilities"].tolist() == [[0, -np.inf]]
        assert converted([[np.inf, 0]], "odds", head)["probabilities"].tolist() == [[1, 0]]
        assert converted([[0, -np.inf]], "log_probabilities", head)["probabilities"].tolist() == [[1, 0]]
    assert converted([[1.0, 0.0]], "probabilities", "sigmoid")["logits"].tolist() == [[np.inf, -np.inf]]
    assert converted([[1.0, 0.0]], "probabilities")["logits"].tolist() == [[0, -np.inf]]


def test_small_probabilities_keep_their_digits() -> None:
    """Small probabilities keep their digits, also below the normal numbers."""
    P = np.array([[1e-300, 5e-324, 0.5, 1 - 2**-53]])
    found = converted(P, "probabilities", "sigmoid")
    exact = np.log(P.astype(np.longdouble))
    np.testing.assert_allclose(found["log_probabilities"], exact.astype(float), rtol=1e-15)
    np.testing.assert_allclose(
        found["logits"], (exact - np.log1p(-P.astype(np.longdouble))).astype(float), rtol=1e-14, atol=1e-16
    )
    L = np.array([[-1e-20, -1e-9, -0.7, -800.0]])
    odds = converted(L, "log_probabilities", "sigmoid")["odds"]
    np.testing.assert_allclose(odds, (np.exp(L) / -np.expm1(L)), rtol=1e-14)
    assert converted([[3.0, 1.0]], "odds", "sigmoid")["probabilities"].tolist() == [[0.75, 0.5]]


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("logits", [[0.0, -46.0, -np.inf]]),
        ("probabilities", [[1.0, np.exp(-46), 0.0]]),
        ("log_probabilities", [[0.0, -46.0, -np.inf]]),
        ("odds", [[np.exp(46), np.exp(-46), 0.0]]),
    ],
)
def test_odds_of_nearly_certain_classes(form: Any, values: Any) -> None:
    """Odds are computed from the other classes where 1 - p rounds to 0."""
    np.testing.assert_allclose(converted(values, form)["odds"], [[np.exp(46), np.exp(-46), 0]], rtol=1e-14)
    assert converted([[1.0, 1e-20]], "probabilities")["odds"].tolist() == [[1e20, 1e-20]]


@pytest.mark.parametrize(
    ("form", "values", "head", "T", "word"),
    [
        ("probabilities", [[0.5, 0.5], [0.7, 0.31]], "softmax", 1, "Row 1 has probabilities that do not sum to 1"),
        ("probabilities", [[0.5, 0.4999]], "softmax", 1, "sum to 1"),
        ("log_probabilities", [[-1.0, -1.0]], "softmax", 1, "sum to 1"),
        ("odds", [[1.0, 2.0]], "softmax", 1, "sum to 1"),
        ("odds", [[np.inf, np.inf]], "softmax", 1, "sum to 1"),
        ("probabilities", [[1.5]], "sigmoid", 1, "outside 0 to 1"),
        ("probabilities", [[0.5], [-1e-9]], "sigmoid", 1, "Row 1"),
        ("log_probabilities", [[1e-9]], "sigmoid", 1, "above 1"),
        ("odds", [[-1.0]], "sigmoid", 1, "below 0"),
        ("logits", [[1.0, 2.0], [-np.inf, -np.inf]], "softmax", 1, "Row 1 has no possible class"),
        ("logits", [[1e300]], "softmax", 1e-10, "overflows"),
        ("logits", [[-1e300, 0]], "sigmoid", 1e-10, "overflows"),
        ("probabilities", [[1, 0], [1e-300, 1]], "softmax", 1e307, "Row 1 has a logit that overflows"),
        ("odds", [[1e-300]], "sigmoid", 1e307, "overflows"),
    ],
)
def test_invalid_scores_are_rejected(form: Any, values: Any, head: str, T: float, word: str) -> None:
    """Invalid scores are rejected with the first wrong row, without its numbers."""
    with pytest.raises(UnacceptableError, match=word):
        converted(values, form, head, T)


def test_sums_within_the_tolerance_are_accepted() -> None:
    """Probabilities rounded to float32 are accepted and returned unchanged."""
    P = np.array([[0.3333333, 0.3333333, 0.3333333]])
    assert converted(P, "probabilities")["probabilities"].tolist() == P.tolist()
