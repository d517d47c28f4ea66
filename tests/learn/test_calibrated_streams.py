"""A calibrated model learns, is restored, exported and published to the bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ArtifactError
from service.learn.event_fold import EventFold
from service.learn.publish import snapshot_contents
from service.learn.state import LearnerState
from service.softmax.calibration import CalibratedModel
from service.softmax.parameters import LinearParameters
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.model_factory import build_model
from tests.support.artifacts import KINDS, artifact, rows
from tests.support.learner_states import has_same_bits, state_events
from tests.support.reference import HEADS

FIELDS: dict[str, dict[str, Any]] = {
    "softmax": {"kind": "temperature", "learn": True, "temperature": 1.5},
    "sigmoid": {"kind": "platt", "learn": True, "a": 0.75, "b": 0.25},
}
# Numbers so wrong that every data set speaks against them.
TOO_SURE: dict[str, dict[str, float]] = {"softmax": {"temperature": 0.1}, "sigmoid": {"a": 12.0}}


def calibrated(kind: str = "trained", head: str = "softmax", dtype: str = "float32", **more: Any) -> Artifact:
    """Return a small artifact whose calibration learns."""
    return artifact(kind, head, dtype=dtype, calibration=FIELDS[head] | more)


def test_genesis_binds_the_calibration() -> None:
    """Another kind, number or switch gives another genesis."""
    source = [artifact(), calibrated(), calibrated(learn=False), calibrated(temperature=1.25)]
    assert len({compute_genesis(one) for one in source}) == 4
    assert len({one.weights_sha256 for one in source}) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", FIELDS)
def test_state_0_answers_as_the_artifact(head: str, kind: str) -> None:
    """Before the first event the answers have the bits of the artifact's own."""
    source = calibrated(kind, head)
    X, _ = rows(source)
    model = build_model(source)
    assert isinstance(model, CalibratedModel)
    assert LearnerState(source).served_parameters().build_model().predict(X).tobytes() == model.predict(X).tobytes()
    assert model.predict(X).tobytes() != build_model(artifact(kind, head)).predict(X).tobytes()
    assert (
        hash_tensors(LearnerState(calibrated("raw", head)).served_parameters().tensors())
        == calibrated("raw", head).weights_sha256
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", FIELDS)
def test_a_row_is_scored_as_it_is_answered(head: str, kind: str, dtype: str) -> None:
    """Loss, hit, confidence and truth are those of the answer before the row's step, to the bit."""
    source = calibrated(kind, head, dtype, **TOO_SURE[head])
    X, Y = rows(source)
    state, hits = LearnerState(source), 0
    for at, (x, y) in enumerate(zip(X, Y, strict=True)):
        model = state.served_parameters().build_model()
        P, (label,) = model.classify(x[None].copy())
        assert state.fold_rows(x[None].copy(), Y=y[None])[0] == model.losses(x[None].copy(), y[None])[0]
        right = y[label] if head == "softmax" else y[0] if label == 1 else 1 - y[0]
        hits += int(right)
        assert state.tensors()["calibration.window"][:, at].tolist() == [P[0, label], right]
    assert state.progress["rows"] == 60
    assert state.progress["accuracy"] == hits / 60
    assert state.candidate_parameters().calibration != LearnerState(source).candidate_parameters().calibration


@pytest.mark.parametrize("head", HEADS)
def test_every_model_reports_its_reliability(head: str) -> None:
    """Uncalibrated models record confidence and truth too; multilabel answers by their mean."""
    source = artifact(head=head)
    X, Y = rows(source)
    state = LearnerState(source)
    for at, (x, y) in enumerate(zip(X, Y, strict=True)):
        P, (label,) = state.served_parameters().build_model().classify(x[None].copy())
        state.fold_rows(x[None].copy(), Y=y[None])
        if head == "multilabel":
            sure = np.maximum(P[0].astype(float), 1 - P[0].astype(float)).mean()
            right = np.where(P[0] >= 0.5, y, 1 - y).mean()
        else:
            sure, right = P[0, label], y[label] if y.size > 1 else y[0] if label == 1 else 1 - y[0]
        np.testing.assert_allclose(state.tensors()["window"][:, at], [sure, right], rtol=1e-12)
    assert state.reliability["rows"] == 60
    assert 0 <= state.reliability["expected_error"] <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", FIELDS)
def test_a_calibration_changes_no_weight(head: str, kind: str) -> None:
    """The weights learn the same with and without a calibration."""
    X, Y = rows(artifact(kind, head))
    with_, without = LearnerState(calibrated(kind, head)), LearnerState(artifact(kind, head))
    with_.fold_rows(X, Y=Y)
    without.fold_rows(X, Y=Y)
    tensors = with_.tensors()
    assert all(tensors[name].tobytes() == tensor.tobytes() for name, tensor in without.tensors().items())


@settings(deadline=None, max_examples=80)
@given(st.data(), st.sampled_from(KINDS), st.sampled_from(list(FIELDS)))
def test_a_restored_state_continues_to_the_same_bits(data: st.DataObject, kind: str, head: str) -> None:
    """So does a copy."""
    source = calibrated(kind, head)
    stream = data.draw(st.lists(state_events(source, kind), min_size=1, max_size=10))
    cut = data.draw(st.integers(0, len(stream)))
    whole, first = LearnerState(source), LearnerState(source)
    for event in stream:
        event(whole)
    for event in stream[:cut]:
        event(first)
    tensors = {name: np.frombuffer(t.tobytes(), t.dtype).reshape(t.shape) for name, t in first.tensors().items()}
    restored, copied = LearnerState.from_tensors(source, tensors, json.loads(json.dumps(first.scalars()))), first.copy()
    assert has_same_bits(restored, first)
    for event in stream[cut:]:
        event(restored)
        event(copied)
    assert has_same_bits(restored, whole)
    assert has_same_bits(copied, whole)


def test_an_incomplete_checkpoint_is_rejected() -> None:
    """A checkpoint without a window, or of an uncalibrated model, is not restored."""
    source = calibrated()
    state = LearnerState(source)
    for missing, reason in (("window", "lacks the window"), ("calibration.numbers", "not those")):
        with pytest.raises(ArtifactError, match=reason):
            LearnerState.from_tensors(
                source, {n: t for n, t in state.tensors().items() if n != missing}, state.scalars()
            )
    with pytest.raises(ArtifactError, match="not those"):
        LearnerState.from_tensors(source, LearnerState(artifact()).tensors(), state.scalars())


def test_shadow_mode_serves_the_old_calibration() -> None:
    """The calibration learns without being served."""
    source = calibrated()
    X, Y = rows(source)
    state = LearnerState(source)
    state.configure({"shadow": True})
    state.fold_rows(X, Y=Y)
    assert state.served_parameters().calibration == source.manifest.scaling != state.candidate_parameters().calibration
    assert np.array_equal(state.served_parameters().build_model().predict(X), build_model(source).predict(X))


def test_a_pause_pauses_the_calibration() -> None:
    """While paused, losses are those of the calibrated answers and the calibration does not change."""
    source = calibrated()
    X, Y = rows(source)
    state = LearnerState(source)
    state.configure({"paused": True})
    assert np.array_equal(state.fold_rows(X, Y=Y), build_model(source).losses(X, Y))
    assert state.candidate_parameters().calibration == source.manifest.scaling
    assert state.reliability["rows"] == 60


@pytest.mark.parametrize("head", FIELDS)
def test_an_export_answers_the_same_and_continues_to_learn(tmp_path: Path, head: str) -> None:
    """Written and read, an export has the bits of the state and its calibration in the manifest."""
    source = calibrated(head=head)
    X, Y = rows(source)
    state = LearnerState(source)
    state.fold_rows(X, Y=Y)
    write_artifact(tmp_path / "1", state.export_artifact(source.manifest.classes, {}))
    exported = read_artifact(tmp_path / "1", 1 << 20)
    assert exported.manifest.scaling == state.candidate_parameters().calibration != source.manifest.scaling
    assert exported.weights_sha256 == hash_tensors(state.served_parameters().tensors())
    again = LearnerState(exported)
    assert (
        again.served_parameters().build_model().predict(X).tobytes()
        == state.served_parameters().build_model().predict(X).tobytes()
    )
    for _ in range(5):  # it is right each time, and less sure of it than it ought to be
        again.fold_rows(X, np.array(again.served_parameters().build_model().classify(X)[1]))
    assert again.candidate_parameters().calibration != exported.manifest.scaling


def test_a_snapshot_restores_the_model() -> None:
    """Its arrays contain the calibration, its fields describe it, and the hash covers both."""
    source = calibrated()
    X, Y = rows(source)
    fold = EventFold(source)
    fold.state.fold_rows(X, Y=Y)
    fields, arrays = snapshot_contents(fold, {})
    again = LinearParameters.from_arrays("softmax", arrays, fields["clips"])
    assert again.build_model().predict(X).tobytes() == fold.state.served_parameters().build_model().predict(X).tobytes()
    (T,) = again.calibration.numbers if again.calibration is not None else (None,)
    assert fields["calibration"] == {"kind": "temperature", "learn": True, "temperature": T}
    assert fields["weights_sha256"] == hash_tensors(again.tensors())
    assert fields["progressive"]["calibration"]["rows"] == 60
    assert snapshot_contents(EventFold(artifact()), {})[0]["calibration"] is None


def test_defaults_are_the_identity() -> None:
    """Omitted numbers change no answer."""
    for head, kind in (("softmax", "temperature"), ("sigmoid", "platt")):
        source = artifact(head=head, calibration={"kind": kind})
        X, _ = rows(source)
        assert source.manifest.calibration is not None
        assert not source.manifest.calibration.learn
        assert build_model(source).predict(X).tobytes() == build_model(artifact(head=head)).predict(X).tobytes()


@pytest.mark.parametrize(
    ("head", "fields", "reason"),
    [
        ("softmax", {"kind": "platt"}, "temperature for a softmax head"),
        ("sigmoid", {"kind": "temperature"}, "platt for a sigmoid head"),
        ("ovr", {"kind": "temperature"}, "temperature for a softmax head"),
        ("multilabel", {"kind": "platt"}, "platt for a sigmoid head"),
        ("softmax", {"kind": "isotonic"}, "kind"),
        ("softmax", {"learn": True}, "kind"),
        ("softmax", {"kind": "temperature", "a": 1.0}, "platt has a and b"),
        ("sigmoid", {"kind": "platt", "temperature": 1.0}, "the number temperature"),
        ("softmax", {"kind": "temperature", "temperature": 0.0}, "temperature"),
        ("softmax", {"kind": "temperature", "temperature": 101.0}, "temperature"),
        ("softmax", {"kind": "temperature", "temperature": "1"}, "temperature"),
        ("sigmoid", {"kind": "platt", "a": -1.0}, "calibration.a"),
        ("sigmoid", {"kind": "platt", "b": 1e9}, "calibration.b"),
        ("softmax", {"kind": "temperature", "learn": 1}, "learn"),
        ("softmax", {"kind": "temperature", "rate": 1.0}, "rate"),
        ("softmax", "temperature", "calibration"),
    ],
)
def test_invalid_calibrations_are_rejected(head: str, fields: Any, reason: str) -> None:
    """The kind must fit the head, and the numbers must be in range."""
    with pytest.raises(ArtifactError, match=reason):
        artifact(head=head, calibration=fields)
