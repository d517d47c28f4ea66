"""Explanations of sparse rows: those of their dense rows in the present columns, and differences in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.softmax.calibration import KINDS, CalibratedModel, Calibration
from service.softmax.classifier import Classifier
from service.softmax.explainer_factory import create_explainer
from service.softmax.sparse_explainer import SparseExplainer
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from tests.support.budgets import examples
from tests.support.reference import DTYPES, HEADS, targets
from tests.support.sparse_models import dense_model, random_rows, random_weights

CALIBRATIONS = {"temperature": Calibration("temperature", (1.7,)), "platt": Calibration("platt", (0.6, 0.4))}
N, B = 20, 7


def build(head: str, dtype: type[np.floating], seed: int, *, calibrated: bool) -> tuple[SparseModel, Classifier]:
    """Return a sparse model, and the dense model of the same numbers."""
    rng, K = np.random.default_rng(seed), 1 if head == "sigmoid" else int(seed % 20) + 1
    calibration = CALIBRATIONS[KINDS[head]] if calibrated else None  # type: ignore[index]  # a head's name
    model = SparseModel(head, random_weights(rng, N, K, changes=6), calibration, np.dtype(dtype))  # type: ignore[arg-type]
    dense = dense_model(model)
    return model, dense if calibration is None else CalibratedModel(dense, calibration)


@settings(deadline=None, max_examples=examples(200))
@given(st.data(), st.sampled_from(HEADS), st.sampled_from(DTYPES), st.integers(0, 99))
def test_explanations_are_those_of_dense_rows(
    data: st.DataObject, head: str, dtype: type[np.floating], seed: int
) -> None:
    """Each number of a present column has the bits of the dense explanation, with and without a calibration."""
    model, dense = build(head, dtype, seed, calibrated=head in KINDS and data.draw(st.booleans()))
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, B, N, data.draw(st.sampled_from([0.0, 0.2, 1.0])), dtype)
    Y = targets(head, "soft", B, model.n_logits, rng) if data.draw(st.booleans()) else None
    found, expected = SparseExplainer(model).explain(rows, Y), create_explainer(dense).explain(rows.to_matrix(N), Y)
    at, columns = np.repeat(np.arange(B), np.diff(rows.ends, prepend=0)), rows.columns
    assert expected.contributions is not None
    assert np.array_equal(found.logits, expected.logits)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.labels.tolist() == expected.labels.tolist()
    assert np.array_equal(found.contributions, expected.contributions[at, :, columns])
    assert np.array_equal(found.sensitivities, expected.sensitivities[at, :, columns])
    assert (found.losses is None, found.loss_gradients is None) == (Y is None, Y is None)
    if found.losses is not None and expected.losses is not None and expected.loss_gradients is not None:
        assert found.losses.tobytes() == expected.losses.tobytes()
        assert np.array_equal(found.loss_gradients, expected.loss_gradients[at, columns])
    whole = found.contributions.dtype.type(0) + SparseExplainer(model).bias.astype(dtype)
    sums = np.array([whole + found.contributions[found.entries_of(i)].sum(axis=0) for i in range(B)])
    np.testing.assert_allclose(sums, found.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_slopes_are_differences_of_answers(head: str, calibrated: bool) -> None:  # noqa: FBT001
    """Sensitivities and loss gradients are central differences of the float64 model."""
    model, _ = build(head, np.float64, 3, calibrated=calibrated and head in KINDS)
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 1, N, 0.4, np.float64)
    Y = targets(head, "soft", 1, model.n_logits, rng)
    found, step = SparseExplainer(model).explain(rows, Y), 1e-6
    assert found.loss_gradients is not None
    for entry in range(len(rows.columns)):
        moved = np.zeros(len(rows.columns))
        moved[entry] = step
        up, down = (rows._replace(values=rows.values + sign * moved) for sign in (1, -1))
        slope = (model.predict(up) - model.predict(down))[0] / (2 * step)
        np.testing.assert_allclose(found.sensitivities[entry], slope, rtol=1e-5, atol=1e-8)
        losses = [SparseExplainer(model).explain(each, Y).losses for each in (up, down)]
        assert losses[0] is not None
        assert losses[1] is not None
        difference = (losses[0] - losses[1])[0] / (2 * step)
        assert found.loss_gradients[entry] == pytest.approx(difference, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_rows_that_overflow_are_explained_in_float64(head: str) -> None:
    """A row with numbers beyond float32 has the explanation of the same row in float64."""
    model, _ = build(head, np.float32, 4, calibrated=False)
    rng = np.random.default_rng(0)
    rows = random_rows(rng, B, N, 0.5)
    rows.values[: rows.ends[0]] = 3e38
    Y = targets(head, "soft", B, model.n_logits, rng)
    found = SparseExplainer(model).explain(rows, Y)
    assert found.over.tolist() == [0]
    assert found.exact is not None
    alone = SparseExplainer(model.float64_model).explain(rows.slice_rows(0, 1).astype(np.float64), Y[:1])
    for name in ("contributions", "sensitivities", "losses", "loss_gradients", "logits"):
        assert getattr(found.exact, name).tobytes() == getattr(alone, name).tobytes()
    P, labels = model.classify(rows)
    assert found.probabilities.tobytes() == P.tobytes()
    assert found.labels.tolist() == labels
    others = SparseExplainer(model).explain(rows.slice_rows(1, B), Y[1:])
    assert found.contributions[found.entries_of(0).stop :].tobytes() == others.contributions.tobytes()


def test_rows_that_cannot_be_explained_are_refused() -> None:
    """Values that are not finite, numbers beyond float64, columns out of range, and targets of another shape."""
    model = SparseModel(
        "softmax", SparseWeights.from_matrix(np.full((3, 2), 2.0**100, np.float32), np.ones(2, np.float32))
    )
    row = SparseRows(np.ones(1, np.int64), np.zeros(1, np.int32), np.full(1, np.nan, np.float32))
    with pytest.raises(UnacceptableError, match="finite"):
        SparseExplainer(model).explain(row)
    wide = row._replace(values=np.full(1, 1e300))
    with pytest.raises(UnacceptableError, match="logits overflow"):
        SparseExplainer(model.float64_model).explain(wide)
    with pytest.raises(ValueError, match="range"):
        SparseExplainer(model).explain(row._replace(columns=np.full(1, 3, np.int32)))
    with pytest.raises(ValueError, match="Y must be"):
        SparseExplainer(model).explain(row._replace(values=np.ones(1, np.float32)), np.zeros((1, 3)))
