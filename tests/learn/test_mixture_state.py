"""States that learn by the rule mixture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ArtifactError
from service.learn.state import LearnerState
from service.softmax.arrays import Floats
from service.softmax.explainer_factory import create_explainer
from service.softmax.mixture_model import MixtureModel
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.hashing import hash_weights
from service.store.artifact.model_factory import restore_parameters
from service.store.states.snapshots import read_snapshot, write_snapshot
from tests.support.artifacts import artifact, rows
from tests.support.mixture_states import CLASSES, ROWS, N, learned_mixture, make_artifact, make_rows

SIZE_MAX = 1 << 24


def probabilities(state: LearnerState, X: Floats) -> Floats:
    """Return what a state serves."""
    return state.served_parameters().build_model().predict(X)


def equal(one: LearnerState, other: LearnerState) -> bool:
    """Whether two states have the same arrays, to the bit."""
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("n_features", [N, 200])
def test_any_split_of_the_rows_gives_the_same_state(head: str, n_features: int) -> None:
    """Rows may come one by one, in blocks, or all at once; also from the middle of a checkpoint on."""
    X, labels = make_rows(head, n_features=n_features)
    artifact = make_artifact(head, n_features=n_features)
    whole, parts = LearnerState(artifact), LearnerState(artifact)
    whole.fold_rows(X, labels)
    for start in range(0, ROWS, 13):
        parts.fold_rows(X[start : start + 13], labels[start : start + 13])
        parts = LearnerState.from_tensors(artifact, parts.tensors(), parts.scalars())
    assert equal(whole, parts)
    assert equal(whole.copy(), whole)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_is_scored_as_it_is_served(head: str, dtype: str) -> None:
    """The loss of a row before its step is that of the served answer; a row alone is answered as in a batch."""
    X, labels = make_rows(head, dtype)
    state = LearnerState(make_artifact(head, dtype=dtype))
    state.fold_rows(X[:200], labels[:200])
    model = state.served_parameters().build_model()
    assert isinstance(model, MixtureModel)
    P = model.predict(X[200:])
    assert all(model.predict(X[i : i + 1]).tobytes() == P[i - 200].tobytes() for i in range(200, ROWS))
    losses = np.array([state.copy().fold_rows(X[i : i + 1], labels[i : i + 1])[0] for i in range(200, ROWS)])
    assert np.allclose(losses, -np.log(P[np.arange(len(P)), labels[200:]]), rtol=1e-5 if dtype == "float32" else 1e-12)


def test_it_learns_what_no_linear_rule_learns() -> None:
    """If the classes are rings around a center, mixture loses less than newton."""
    X, labels = make_rows()
    losses = {}
    for rule in ("newton", "mixture"):
        losses[rule] = LearnerState(make_artifact(rule=rule)).fold_rows(X, labels)[ROWS // 2 :].mean()
    assert losses["mixture"] < 0.85 * losses["newton"]


def test_an_exported_mixture_answers_with_the_same_bits_and_goes_on(tmp_path: Any) -> None:
    """Also with added classes, through the files."""
    X, labels = make_rows()
    state = LearnerState(make_artifact())
    state.fold_rows(X[:150], labels[:150])
    state.add_classes(1)
    state.fold_rows(X[150:200], labels[150:200])
    exported = state.export_artifact([*CLASSES["softmax"], "d"], {})
    assert exported.manifest.format_version == 2
    write_artifact(tmp_path / "1", exported)
    read = read_artifact(tmp_path / "1", SIZE_MAX)
    again = LearnerState(read)
    assert probabilities(again, X).tobytes() == probabilities(state, X).tobytes()
    before = again.fold_rows(X[200:], labels[200:])
    assert before.mean() < 1.5 * state.fold_rows(X[200:], labels[200:]).mean()
    assert np.isfinite(before).all()


@pytest.mark.parametrize("has_offset", [False, True])
def test_a_mapped_snapshot_answers_with_the_same_bits(tmp_path: Path, *, has_offset: bool) -> None:
    """Its arrays are read-only."""
    X, labels = make_rows()
    state = LearnerState(make_artifact(rule="newton" if has_offset else "mixture"))
    state.fold_rows(X[:100], labels[:100])
    if has_offset:
        state.configure({"rule": "mixture", "constants": {"features": 64}})
        state.fold_rows(X[100:], labels[100:])
    served = state.served_parameters()
    snapshot = read_snapshot(write_snapshot(tmp_path, 1, {"clips": served.clips()}, served.arrays(), durable=False))
    restored = restore_parameters(state.artifact.manifest, snapshot.arrays, snapshot.fields["clips"])
    assert restored.build_model().predict(X).tobytes() == served.build_model().predict(X).tobytes()
    assert hash_weights(restored) == hash_weights(served)


@pytest.mark.parametrize("learned", [0, 120])
def test_an_added_class_is_improbable_and_changes_no_order(learned: int) -> None:
    """It is improbable before and after the first rows, though the mixture flattens its experts; it can be learned."""
    X, labels = make_rows()
    state = LearnerState(make_artifact())
    state.fold_rows(X[:learned], labels[:learned])
    before = probabilities(state, X)
    state.add_classes(1)
    after = probabilities(state, X)
    assert (after[:, 3] < (0.1 if learned else 0.01)).all()
    assert (after[:, :3].argmax(axis=1) == before.argmax(axis=1)).all()
    twin = LearnerState.from_tensors(state.artifact, state.tensors(), state.scalars())
    for one in (state, twin):
        one.fold_rows(X[:100], np.full(100, 3))
    assert equal(state, twin)
    assert probabilities(state, X[:50])[:, 3].mean() > 0.9


def test_mixture_continues_from_what_another_rule_has_learned() -> None:
    """What was served stays the same to the bit until the next row; a checkpoint and an export keep the offset."""
    X, labels = make_rows()
    state = LearnerState(make_artifact(rule="newton"))
    state.fold_rows(X[:100], labels[:100])
    before = probabilities(state, X)
    state.configure({"rule": "mixture", "constants": {"features": 64}})
    assert probabilities(state, X).tobytes() == before.tobytes()
    assert state.progress["steps"] == 100
    state.fold_rows(X[100:200], labels[100:200])
    twin = LearnerState.from_tensors(state.artifact, state.tensors(), state.scalars())
    for one in (state, twin):
        one.add_classes(1)
        one.fold_rows(X[200:], labels[200:])
    assert equal(state, twin)
    artifact = state.export_artifact([*CLASSES["softmax"], "d"], {})
    assert probabilities(LearnerState(artifact), X).tobytes() == probabilities(state, X).tobytes()
    for changes in ({"rule": "newton"}, {"rule": "mixture", "constants": {"features": 128}}):
        with pytest.raises(ArtifactError, match="roll back"):
            state.configure(changes)


def test_a_trained_model_is_served_unchanged_until_the_first_row() -> None:
    """Its own weights answer, also in the scores of the fold; then the experts join."""
    X, labels = make_rows()
    first = LearnerState(make_artifact(rule="newton"))
    first.fold_rows(X[:100], labels[:100])
    trained = first.export_artifact(CLASSES["softmax"], {})
    learning = {"learning": {"rule": "mixture", "constants": {"features": 64}}}
    fields = trained.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    state = LearnerState(Artifact.from_fields(fields | learning, trained.tensors))
    assert probabilities(state, X).tobytes() == probabilities(LearnerState(trained), X).tobytes()
    state.fold_rows(X[100:], labels[100:])
    assert isinstance(state.served_parameters().build_model(), MixtureModel)


@pytest.mark.parametrize(("fields", "match"), [
    ({"head": "multilabel"}, "softmax and sigmoid"),
    ({"head": "ovr"}, "softmax and sigmoid"),
    ({"constants": {"features": 100}}, "multiple"),
    ({"constants": {"seed": 1.5}}, "whole"),
    ({"constants": {"features": 1e9}}, "from"),
])  # fmt: skip
def test_models_that_mixture_is_not_for_are_refused(fields: dict[str, Any], match: str) -> None:
    """Its random features fill whole vectors, and other heads keep their rules."""
    head = fields.get("head", "softmax")
    CLASSES.setdefault(head, ["a", "b", "c"])
    learning = {"rule": "mixture", "constants": fields.get("constants", {})}
    with pytest.raises(ArtifactError, match=match):
        LearnerState(make_artifact(head, learning=learning))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), paused=st.booleans())
def test_soft_targets_and_importance(*, seed: int, paused: bool) -> None:
    """A distribution that is one class is that class; importance 2 differs from 1; a paused state only scores."""
    X, labels = make_rows()
    random = np.random.RandomState(seed)
    weights = random.uniform(0.5, 2.0, 40)
    Y = np.eye(3)[labels[:40]]
    states = [LearnerState(make_artifact()) for _ in range(3)]
    for state in states:
        state.fold_rows(X[40:80], labels[40:80])
        state.paused = paused
    states[0].fold_rows(X[:40], labels[:40], weights=weights)
    states[1].fold_rows(X[:40], Y=Y, weights=weights)
    states[2].fold_rows(X[:40], labels[:40])
    served = [probabilities(state, X) for state in states]
    assert served[0].tobytes() == served[1].tobytes()
    assert (served[0].tobytes() == served[2].tobytes()) is paused


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("has_offset", [False, True])
@pytest.mark.parametrize("n_features", [N, 160])
def test_sensitivities_against_finite_differences(head: str, *, has_offset: bool, n_features: int) -> None:
    """Explanations differentiate the answer through features, experts and mixture; there are no contributions."""
    X, _ = make_rows(head, "float64", n_features)
    model = learned_mixture(head, dtype="float64", n_features=n_features, has_offset=has_offset)
    rows, step = X[240:244], 1e-6
    found = create_explainer(model).explain(rows)
    assert found.contributions is None
    assert found.probabilities.tobytes() == model.predict(rows).tobytes()
    for j in range(0, n_features, 1 + n_features // 7):
        above, below = rows.copy(), rows.copy()
        above[:, j] += step
        below[:, j] -= step
        measured = (model.predict(above) - model.predict(below)) / (2 * step)
        assert np.allclose(found.sensitivities[:, :, j], measured, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["running", "trained", "staged"])
def test_an_export_right_after_the_change_goes_on_as_the_state(kind: str) -> None:
    """The rows that another rule has learned, and the statistics of the trained rows, count in both, to the bit."""
    state = LearnerState(artifact(kind))
    X, Y = rows(state.artifact)
    state.fold_rows(X, Y=Y)
    state.configure({"rule": "mixture"})
    exported = LearnerState(state.export_artifact(state.artifact.manifest.classes, {}))
    for one in (state, exported):
        one.fold_rows(X, Y=Y)
    assert exported.rule_settings == state.rule_settings
    assert probabilities(exported, X).tobytes() == probabilities(state, X).tobytes()


@pytest.mark.parametrize(("kind", "added_before"), [("zero", 0), ("running", 0), ("running", 3)])
@pytest.mark.parametrize(("K", "wide"), [(25, False), (26, True)])
def test_added_classes_never_change_how_rows_are_learned(kind: str, added_before: int, K: int, *, wide: bool) -> None:
    """100 features and 25 classes make narrow rows, and with more classes they stay so, also after an export."""
    source = artifact(kind, N=100, K=K)
    X, Y = rows(source)
    state = LearnerState(source)
    state.fold_rows(X, Y=Y)
    if added_before:
        state.add_classes(added_before)
    state.configure({"rule": "mixture"})
    state.add_classes(3)
    more = np.hstack([Y, np.zeros((len(Y), 3 + added_before))])
    state.fold_rows(X, Y=more)
    names = [f"class {k}" for k in range(state.n_classes)]
    restored = LearnerState.from_tensors(source, state.tensors(), state.scalars())
    exported = LearnerState(state.export_artifact(names, {}))
    for one in (state, restored, exported):
        rule = one._learner.rule  # a state publishes none of what follows from the size
        assert rule.mixture is not None
        assert (rule.mixture.is_wide, rule.mixture.base.name) == (wide, "ftrl" if wide else "newton")
        assert ("squares.base" in one.tensors()) is wide
        assert ("curvature.base" in one.tensors()) is not wide
        one.add_classes(1)
        one.fold_rows(X, np.full(len(X), one.n_classes - 1))
        assert (probabilities(one, X).argmax(axis=1) == one.n_classes - 1).all()
    assert equal(state, restored)
    assert exported.artifact.manifest.mixture is not None
    assert (exported.artifact.manifest.mixture.linear is None) is wide
