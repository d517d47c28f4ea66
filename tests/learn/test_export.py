"""A learned model as an artifact: the same bits, a longer history, and it learns on. The format's delta is here too."""

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


def classes(made: Artifact, added: int = 0) -> list[str]:
    """The names of an artifact's classes and of added ones."""
    return [*made.manifest.classes, *(f"new {k}" for k in range(added))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_an_export_answers_the_same_and_learns_on(tmp_path: Path, head: str, kind: str, dtype: str) -> None:
    """Through the disk and back an export has the bits of the state, twice in a row, and its rows are added up."""
    made = artifact(kind, head, dtype=dtype)
    X, Y = rows(made)
    added = 0 if head == "sigmoid" else 1
    state = LearnerState(made)
    for turn in (1, 2):
        state.fold_rows(X, Y=Y if turn == 1 or not added else np.hstack([Y, np.zeros((60, 1))]))
        if turn == 1 and added:
            state.add_classes(1)
        write_artifact(tmp_path / str(turn), state.export_artifact(classes(made, added), {"from": "test"}))
        exported = read_artifact(tmp_path / str(turn), BYTES_MAX)
        expected = state.served_parameters().build_model().predict(X)
        assert build_model(exported).predict(X).tobytes() == expected.tobytes()
        assert exported.weights_sha256 == hash_tensors(state.served_parameters().tensors())
        assert exported.manifest.provenance == {"from": "test"}
        if exported.manifest.training is not None:
            known = 0 if made.manifest.training is None else made.manifest.training.rows
            assert exported.manifest.training.rows == known + 60 * turn
        state = LearnerState(exported)
        assert state.served_parameters().build_model().predict(X).tobytes() == expected.tobytes()


def test_an_export_of_a_delta_goes_on_where_it_stopped() -> None:
    """The statistics are the same, so the delta continues; with full weights and no new sums sgd shows no seam."""
    made = artifact(learning={"rule": "sgd", "constants": {"rate": 0.1, "clip": 2.0}})
    X, Y = rows(made)
    whole, first = LearnerState(made), LearnerState(made)
    whole.fold_rows(X, Y=Y)
    first.fold_rows(X[:30].copy(), Y=Y[:30])
    second = LearnerState(first.export_artifact(classes(made), {}))
    assert second.rule_settings["form"] == "delta"
    second.fold_rows(X[30:].copy(), Y=Y[30:])
    np.testing.assert_allclose(
        second.served_parameters().build_model().predict(X),
        whole.served_parameters().build_model().predict(X),
        rtol=1e-4,
        atol=1e-6,
    )


def test_nothing_learned_is_exported_as_it_was() -> None:
    """Without rows an export of zero weights is of zero weights, and has no statistics."""
    made = artifact("zero")
    exported = LearnerState(made).export_artifact(classes(made), {})
    assert exported.manifest.training is None
    assert LearnerState(exported).rule_settings["form"] == "running"


def test_statistics_beyond_the_dtype_are_exported_as_none() -> None:
    """Training statistics that float32 cannot hold, and that were not learned from, do not spoil the export."""
    training = {"rows": 10, "mean": [0.0, 1e300, 0.0, 0.0], "scale": [1.0, 1.0, 1e-300, 1.0]}
    made = artifact(training=training)
    X, Y = rows(made)
    state = LearnerState(made)
    state.fold_rows(X, Y=Y)
    exported = state.export_artifact(classes(made), {})
    assert build_model(exported).predict(X).tobytes() == state.served_parameters().build_model().predict(X).tobytes()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["class 0", "class 1", "class 1"], []])
def test_classes_of_an_export(names: list[str]) -> None:
    """The names must be those of the artifact, then those of the added classes."""
    with pytest.raises(ArtifactError):
        LearnerState(artifact()).export_artifact(names, {})


def with_delta(**changes: Any) -> Artifact:
    """An artifact with a delta, sealed from changed fields."""
    state = LearnerState(artifact())
    X, Y = rows(state.artifact)
    state.fold_rows(X, Y=Y)
    made = state.export_artifact(classes(state.artifact), {})
    fields = made.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    return Artifact.from_fields(fields, dict(made.tensors))


def test_a_delta_of_the_format() -> None:
    """A delta is a third tensor, hashed last, that acts behind the training statistics."""
    made = with_delta()
    assert list(made.tensors) == ["weight", "bias", "delta.weight"]
    assert made.weights_sha256 == hash_tensors([made.weights, made.bias, made.tensors["delta.weight"]])
    delta = build_delta(made)
    assert delta is not None
    assert made.manifest.training is not None
    assert delta.stage.mean.tolist() == list(made.manifest.training.mean)
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
def test_deltas_that_the_format_refuses(changes: dict[str, Any], reason: str) -> None:
    """A delta needs statistics, a tensor of its own and a clip."""
    with pytest.raises(ArtifactError, match=reason):
        with_delta(**changes)


def test_a_delta_keeps_its_clip() -> None:
    """Another clip than the delta's would change answers before the first event."""
    learning = {"rule": "newton", "constants": {"clip": 2.0}}
    with pytest.raises(ArtifactError, match="that of the delta"):
        LearnerState(with_delta(learning=learning))
    assert LearnerState(with_delta(learning={"rule": "sgd"})).rule_settings["form"] == "delta"
