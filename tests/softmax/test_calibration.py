"""Calibrated models: the identity changes no bit, and predictions are those of scaled logits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.calibration import CalibratedModel, Calibration
from service.softmax.classifier import Classifier, Head
from service.softmax.derivatives import softmax
from service.softmax.input_stage import Stage
from service.softmax.linear_model import LinearModel
from tests.support.calibrations import fixed_calibration, identity_calibration
from tests.support.networks import Net
from tests.support.reference import DTYPES, Array

quick = settings(deadline=None, max_examples=60)
CALIBRATED: tuple[Head, ...] = ("softmax", "sigmoid")
heads, dtypes = st.sampled_from(CALIBRATED), st.sampled_from(DTYPES)


def build_linear_model(head: Head, dtype: Any, N: int = 6, K: int = 3, *, staged: bool = False) -> LinearModel:
    """Return a model of random weights."""
    rng, K = np.random.default_rng(N + K), 1 if head == "sigmoid" else K
    stage = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 2.0) if staged else None
    return LinearModel(head, rng.standard_normal((N, K)).astype(dtype), rng.standard_normal(K).astype(dtype), stage)


def rows(B: int, N: int, dtype: Any) -> Array:
    """Return random rows."""
    return (np.random.default_rng(B).standard_normal((B, N)) * 2).astype(dtype)


def all_results(model: Classifier, X: Array) -> list[bytes]:
    """Return the bytes of every result of a model."""
    P, labels = model.classify(X)
    Y = np.full((len(X), model.n_logits), 1 / model.n_logits)
    parts = [P, np.array(labels), model.predict(X), model.logits(X), model.log_probabilities(X), model.losses(X, Y)]
    return [part.tobytes() for part in parts]


@pytest.mark.parametrize("B", [1, 7, 130])
@pytest.mark.parametrize("K", [2, 3, 16, 17, 33])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", CALIBRATED)
def test_the_identity_changes_no_bit(head: Head, dtype: type[np.floating], K: int, B: int) -> None:
    """With temperature 1, or a = 1 and b = 0, every result has the bits of the model without calibration."""
    model, X = build_linear_model(head, dtype, K=K, staged=K == 3), rows(B, 6, dtype)
    assert all_results(CalibratedModel(model, identity_calibration(head)), X) == all_results(model, X)
    assert all_results(CalibratedModel(model, fixed_calibration(head)), X) != all_results(model, X)


@pytest.mark.parametrize("head", CALIBRATED)
def test_the_identity_of_a_network(head: Head) -> None:
    """A calibrated network has the same results and layers as the network."""
    net = Net(head, (7, 5), dtype=np.float32)
    model = net.parameters().build_model()
    calibrated = CalibratedModel(model, identity_calibration(head))
    assert all_results(calibrated, net.X) == all_results(model, net.X)
    assert calibrated.layers == model.layers
    assert calibrated.single_row_plan() is None


@quick
@given(st.integers(1, 40), st.integers(1, 140), dtypes, st.sampled_from([0.01, 0.5, 1.3, 4.0, 100.0]))
def test_a_temperature_divides_the_logits(K: int, B: int, dtype: type[np.floating], T: float) -> None:
    """Probabilities have the bits of softmax(Z / T), and the order of the classes."""
    model, X = build_linear_model("softmax", dtype, K=K), rows(B, 6, dtype)
    calibrated = CalibratedModel(model, Calibration("temperature", (T,)))
    assert calibrated.predict(X).tobytes() == softmax(model.logits(X), T).tobytes()
    assert calibrated.slope == 1 / T
    if T >= 1:  # below, probabilities of different logits may both round to 1
        order = np.argsort(model.logits(X), axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(calibrated.predict(X), order, axis=1)) >= 0).all()


@quick
@given(st.integers(1, 140), dtypes, st.floats(0.0625, 9, width=32), st.floats(-9, 9, width=32))
def test_platt_is_a_line(B: int, dtype: type[np.floating], a: float, b: float) -> None:
    """Probabilities have the bits of a sigmoid head with the logit a z + b."""
    model, X = build_linear_model("sigmoid", dtype), rows(B, 6, dtype)
    calibrated = CalibratedModel(model, Calibration("platt", (a, b)))
    head = LinearModel("sigmoid", np.eye(1, dtype=dtype), np.zeros(1, dtype))
    assert calibrated.predict(X).tobytes() == head.predict(model.logits(X) * dtype(a) + dtype(b)).tobytes()
    assert calibrated.slope == a


@quick
@given(st.data(), heads, dtypes, st.sampled_from([3, 20]))
def test_bits_in_any_batch(data: st.DataObject, head: Head, dtype: type[np.floating], K: int) -> None:
    """Any split of a batch has the bits of the whole batch."""
    model = CalibratedModel(build_linear_model(head, dtype, K=K), fixed_calibration(head))
    X = rows(90, 6, dtype)
    cut = data.draw(st.integers(1, 89))
    parts = model.predict(X[:cut].copy()), model.predict(X[cut:].copy())
    assert model.predict(X).tobytes() == b"".join(P.tobytes() for P in parts)
    one = data.draw(st.integers(0, 89))
    assert model.classify(X[one : one + 1].copy())[1] == model.classify(X)[1][one : one + 1]


@pytest.mark.parametrize("head", CALIBRATED)
def test_calibrated_logits_that_overflow(head: Head) -> None:
    """Rows whose scaled logits overflow float32 are computed in float64; those that overflow float64 are rejected."""
    K = 1 if head == "sigmoid" else 3
    model = LinearModel(head, np.full((1, K), 1e30, np.float32), np.zeros(K, np.float32))
    steep = Calibration("temperature", (0.01,)) if head == "softmax" else Calibration("platt", (100.0, 0.0))
    X = np.array([[1e7], [1.0], [-1e7]], np.float32)
    P = CalibratedModel(model, steep).predict(X)
    assert np.isfinite(model.logits(X)).all()
    wide = LinearModel(head, model.weights.astype(float), model.bias.astype(float))
    assert P.tobytes() == CalibratedModel(wide, steep).predict(X.astype(float)).astype(np.float32).tobytes()
    assert CalibratedModel(model, steep).predict(X[:0]).shape == (0, P.shape[1])


@pytest.mark.parametrize(
    ("head", "calibration"),
    [
        ("ovr", fixed_calibration("softmax")),
        ("sigmoid", fixed_calibration("softmax")),
        ("softmax", fixed_calibration("sigmoid")),
    ],
)
def test_a_calibration_fits_its_head(head: Head, calibration: Calibration) -> None:
    """A calibration of another head is rejected."""
    with pytest.raises(ValueError, match="is calibrated by"):
        CalibratedModel(build_linear_model(head, np.float32), calibration)
