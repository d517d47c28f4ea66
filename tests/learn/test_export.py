"""An exported model answers with the same bits, counts its rows, and continues to learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ArtifactError
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.model_factory import build_delta, build_model
from tests.support.artifacts import KINDS, artifact, rows
from tests.support.reference import HEADS

BYTES_MAX = 1 << 20


def class_names(source: Artifact, added: int = 0) -> list[str]:
    """Return the names of an artifact's classes and of added ones."""
    return [*source.manifest.classes, *(f"new {k}" for k in range(added))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_an_export_answers_the_same_and_continues_to_learn(tmp_path: Path, head: str, kind: str, dtype: str) -> None:
    """Written and read, an export has the bits of the state, twice in a row, and its rows are added up."""
    source = artifact(kind, head, dtype=dtype)
    X, Y = rows(source)
    added = 0 if head == "sigmoid" else 1
    state = LearnerState(source)
    for number in (1, 2):
        state.fold_rows(X, Y=Y if number == 1 or not added else np.hstack([Y, np.zeros((60, 1))]))
        if number == 1 and added:
            state.add_classes(1)
        write_artifact(tmp_path / str(number), state.export_artifact(class_names(source, added), {"from": "test"}))
        exported = read_artifact(tmp_path / str(number), BYTES_MAX)
        expected = state.served_parameters().build_model().predict(X)
        assert build_model(exported).predict(X).tobytes() == expected.tobytes()
        assert exported.weights_sha256 == hash_tensors(state.served_parameters().tensors())
        assert exported.manifest.provenance == {"from": "test"}
        if exported.manifest.training is not None:
            known = 0 if source.manifest.training is None else source.manifest.training.rows
            assert exported.manifest.training.rows == known + 60 * number
        state = LearnerState(exported)
        assert state.served_parameters().build_model().predict(X).tobytes() == expected.tobytes()


def test_an_exported_delta_continues_where_it_stopped() -> None:
    """The statistics are the same, so the delta continues; sgd, which has no sums, learns the same."""
    source = artifact(learning={"rule": "sgd", "constants": {"rate": 0.1, "clip": 2.0}})
    X, Y = rows(source)
    whole, first = LearnerState(source), LearnerState(source)
    whole.fold_rows(X, Y=Y)
    first.fold_rows(X[:30].copy(), Y=Y[:30])
    second = LearnerState(first.export_artifact(class_names(source), {}))
    assert second.rule_settings["form"] == "delta"
    second.fold_rows(X[30:].copy(), Y=Y[30:])
    np.testing.assert_allclose(
        second.served_parameters().build_model().predict(X),
        whole.served_parameters().build_model().predict(X),
        rtol=1e-4,
        atol=1e-6,
    )


def test_an_export_without_rows_is_unchanged() -> None:
    """An export of zero weights has zero weights and no statistics, and learns by the same rule."""
    source = artifact("zero")
    exported = LearnerState(source).export_artifact(class_names(source), {})
    assert exported.manifest.training is None
    assert exported.manifest.mixture is None
    assert LearnerState(exported).rule_settings == LearnerState(source).rule_settings


def test_statistics_beyond_the_dtype_are_left_out() -> None:
    """Training statistics that float32 cannot hold were not learned from and do not spoil the export."""
    training = {"rows": 10, "mean": [0.0, 1e300, 0.0, 0.0], "scale": [1.0, 1.0, 1e-300, 1.0]}
    source = artifact(training=training)
    X, Y = rows(source)
    state = LearnerState(source)
    state.fold_rows(X, Y=Y)
    exported = state.export_artifact(class_names(source), {})
    assert build_model(exported).predict(X).tobytes() == state.served_parameters().build_model().predict(X).tobytes()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["class 0", "class 1", "class 1"], []])
def test_an_export_checks_class_names(names: list[str]) -> None:
    """The names must be those of the artifact, then those of the added class_names."""
    with pytest.raises(ArtifactError):
        LearnerState(artifact()).export_artifact(names, {})


def artifact_with_delta(**changes: Any) -> Artifact:
    """Return an artifact with a delta, made from changed fields."""
    state = LearnerState(artifact())
    X, Y = rows(state.artifact)
    state.fold_rows(X, Y=Y)
    source = state.export_artifact(class_names(state.artifact), {})
    fields = source.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    return Artifact.from_fields(fields, dict(source.tensors))


def test_a_delta_is_a_third_tensor() -> None:
    """It is hashed last and acts after the training statistics."""
    source = artifact_with_delta()
    assert list(source.tensors) == ["weight", "bias", "delta.weight"]
    assert source.weights_sha256 == hash_tensors([source.weights, source.bias, source.tensors["delta.weight"]])
    delta = build_delta(source)
    assert delta is not None
    assert source.manifest.training is not None
    assert delta.stage.mean.tolist() == list(source.manifest.training.mean)
    assert delta.stage.clip == 1.25
    assert build_delta(artifact()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training": None}, "training statistics"),
        ({"delta": {"weight": "weight", "clip": 1.0}}, "tensor of its own"),
        ({"delta": {"weight": "__metadata__", "clip": 1.0}}, "__metadata__"),
        ({"delta": {"weight": "other", "clip": 1.0}}, "exactly those"),
        ({"delta": {"weight": "delta.weight"}}, "clip"),
        ({"delta": {"weight": "delta.weight", "clip": 0.0}}, "clip"),
        ({"delta": None}, "exactly those"),
    ],
)
def test_invalid_deltas_are_rejected(changes: dict[str, Any], reason: str) -> None:
    """A delta needs statistics, a tensor of its own and a clip."""
    with pytest.raises(ArtifactError, match=reason):
        artifact_with_delta(**changes)


def test_a_delta_keeps_its_clip() -> None:
    """Another clip would change answers before the first event."""
    learning = {"rule": "newton", "constants": {"clip": 2.0}}
    with pytest.raises(ArtifactError, match="the clip of the delta"):
        LearnerState(artifact_with_delta(learning=learning))
    assert LearnerState(artifact_with_delta(learning={"rule": "sgd"})).rule_settings["form"] == "delta"
