"""Sparse models answer as linear ones: calibrated, for rows that overflow, and in logarithms and losses."""

import numpy as np
import pytest

from service.errors import UnacceptableError
from service.softmax.calibration import CalibratedModel, Calibration
from service.softmax.classifier import Classifier
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from tests.support.reference import HEADS, targets
from tests.support.sparse_models import dense_model, random_rows, random_weights

CALIBRATIONS = {"softmax": Calibration("temperature", (1.7,)), "sigmoid": Calibration("platt", (0.6, 0.4))}
KINDS = [*((head, False) for head in HEADS), *((head, True) for head in CALIBRATIONS)]
N, B = 20, 30


def build(head: str, *, calibrated: bool, large: bool = False) -> tuple[SparseModel, Classifier, SparseRows]:
    """Return a sparse model, the dense model of the same numbers, and rows; some overflow float32 if `large`."""
    rng, K = np.random.default_rng(3), 1 if head == "sigmoid" else 5
    calibration = CALIBRATIONS[head] if calibrated else None
    model = SparseModel(head, random_weights(rng, N, K, changes=6), calibration)  # type: ignore[arg-type]
    dense: Classifier = dense_model(model)
    rows = random_rows(rng, B, N, 0.5)
    if large:
        rows.values[::40] = 3e38
        dense = dense_model(SparseModel(head, model.weights))  # type: ignore[arg-type]
    return model, dense if calibration is None else CalibratedModel(dense, calibration), rows


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("head", "calibrated"), KINDS)
def test_answers_are_those_of_the_dense_model(head: str, calibrated: bool, large: bool) -> None:  # noqa: FBT001
    """Every method gives the bits of the dense model, also where rows overflow float32."""
    model, dense, rows = build(head, calibrated=calibrated, large=large)
    X, Y = rows.to_matrix(N), targets(head, "soft", B, model.n_logits, np.random.default_rng(0))
    labels = np.arange(B) % model.n_classes
    P, found = model.classify(rows)
    expected, expected_labels = dense.classify(X)
    assert P.tobytes() == expected.tobytes()
    assert found == expected_labels
    assert model.log_probabilities(rows).tobytes() == dense.log_probabilities(X).tobytes()
    assert model.losses(rows, Y).tobytes() == dense.losses(X, Y).tobytes()
    for one, other in zip(model.label_losses(rows, labels), dense.label_losses(X, labels), strict=True):
        assert one.tobytes() == other.tobytes()
    if large:
        assert not np.isfinite(model.logits(rows)).all()
        assert np.isfinite(P).all()


def test_numbers_of_a_model() -> None:
    """A model has the shape of its weights."""
    model = build("softmax", calibrated=True)[0]
    assert (model.n_features, model.n_logits, model.n_classes, model.is_linear) == (N, 5, 5, True)
    assert model.layers[0].inputs == N
    assert model.slope == 1 / 1.7
    assert model.uncalibrated.slope == 1
    assert build("sigmoid", calibrated=True)[0].slope == 0.6
    assert build("sigmoid", calibrated=False)[0].n_classes == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    """Such a value makes its row's logits infinite or NaN, and is then found."""
    model, _, rows = build("softmax", calibrated=False)
    rows.values[7] = bad
    for compute in (model.predict, model.classify, model.log_probabilities):
        with pytest.raises(UnacceptableError, match="finite"):
            compute(rows)


def test_logits_that_overflow_float64_are_refused() -> None:
    """There is no wider type to compute such a row in."""
    weights = SparseWeights.from_matrix(np.full((1, 2), 2.0**120, np.float32), np.zeros(2, np.float32))
    rows = SparseRows(np.ones(1, np.int64), np.zeros(1, np.int32), np.full(1, 1e300))
    model = SparseModel("softmax", weights, None, np.dtype(np.float64))
    for compute in (model.predict, model.log_probabilities):
        with pytest.raises(UnacceptableError, match="logits overflow"):
            compute(rows)


def test_rows_without_entries_have_the_logits_of_the_bias() -> None:
    """An empty row is a row of zeros, and no rows have no answers."""
    model = build("softmax", calibrated=False)[0]
    rows = SparseRows(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert np.array_equal(model.logits(rows), np.repeat(model.weights.bias()[None], 2, axis=0))
    none = rows._replace(ends=np.zeros(0, np.int64))
    assert model.predict(none).shape == (0, 5)
    assert model.classify(none)[1] == []


def test_arguments_that_form_no_model_are_refused() -> None:
    """A head has its own number of logits and its own calibration."""
    weights = random_weights(np.random.default_rng(0), 4, 3)
    with pytest.raises(ValueError, match="one logit"):
        SparseModel("sigmoid", weights)
    with pytest.raises(ValueError, match="head must be"):
        SparseModel("linear", weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature"):
        SparseModel("ovr", weights, CALIBRATIONS["softmax"])
    with pytest.raises(ValueError, match="Y must be"):
        SparseModel("softmax", weights).losses(random_rows(np.random.default_rng(0), 2, 4), np.zeros((2, 2)))
