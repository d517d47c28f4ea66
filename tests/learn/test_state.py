"""The learner state: what changes it, how it is restored, and what its genesis binds."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ArtifactError, ClassesFixedError, UnacceptableError
from service.learn.state import LearnerState
from service.store.artifact import fingerprint as binding
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_tensors, hash_weights
from service.store.artifact.model_factory import build_model
from tests.support.artifacts import KINDS, artifact, digits, ones, rows, rules_of
from tests.support.budgets import examples
from tests.support.learner_states import has_same_bits, state_events
from tests.support.reference import HEADS


@pytest.mark.parametrize(
    ("head", "kind", "rule"),
    [(head, kind, rule) for head in HEADS for kind in KINDS for rule in (None, *rules_of(kind, head))],
)
def test_state_0_answers_as_the_artifact(rule: str | None, head: str, kind: str) -> None:
    """Before the first event the answers have the bits of the artifact's own, with any rule."""
    source = artifact(kind, head, **({} if rule is None else {"learning": {"rule": rule}}))
    X, _ = rows(source)
    assert (
        LearnerState(source).served_parameters().build_model().predict(X).tobytes()
        == build_model(source).predict(X).tobytes()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_learning_lowers_the_loss(head: str, kind: str) -> None:
    """On rows that follow a pattern the loss of the second half is lower than without learning."""
    source = artifact(kind, head)
    X, _ = rows(source, 3000)
    truth = build_model(artifact("raw", head, provenance={"other": "weights"}))
    Z = truth.logits(X)[:, ::-1] * 2
    Y = (Z > 0).astype(np.float64) if head in {"sigmoid", "multilabel"} else np.eye(3)[Z.argmax(axis=1)]
    learned = LearnerState(source)
    losses = learned.fold_rows(X, Y=Y)
    static = LearnerState(source)
    static.configure({"paused": True})
    assert losses[1500:].mean() < (1 if kind == "raw" else 0.8) * static.fold_rows(X, Y=Y)[1500:].mean()


@settings(deadline=None, max_examples=examples(150))
@given(st.data(), st.sampled_from(KINDS), st.sampled_from(HEADS))
def test_a_restored_state_continues_to_the_same_bits(data: st.DataObject, kind: str, head: str) -> None:
    """So does a copy."""
    source = artifact(kind, head)
    stream = data.draw(st.lists(state_events(source, kind), min_size=1, max_size=10))
    cut = data.draw(st.integers(0, len(stream)))
    whole = LearnerState(source)
    for event in stream:
        event(whole)
    first = LearnerState(source)
    for event in stream[:cut]:
        event(first)
    tensors = {name: np.frombuffer(t.tobytes(), t.dtype).reshape(t.shape) for name, t in first.tensors().items()}
    restored = LearnerState.from_tensors(source, tensors, json.loads(json.dumps(first.scalars())))
    copied = first.copy()
    assert has_same_bits(restored, first)
    for event in stream[cut:]:
        event(restored)
        event(copied)
    assert has_same_bits(restored, whole)
    assert has_same_bits(copied, whole)
    assert (
        restored.served_parameters().build_model().predict(rows(source)[0]).tobytes()
        == whole.served_parameters().build_model().predict(rows(source)[0]).tobytes()
    )


@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    kind=st.sampled_from(KINDS),
    head=st.sampled_from(HEADS),
    dtype=st.sampled_from(["float32", "float64"]),
    calibrated=st.booleans(),
)
def test_an_answer_is_that_of_the_served_model(
    data: st.DataObject, kind: str, head: str, dtype: str, *, calibrated: bool
) -> None:
    """It has the bits of the model of the served parameters, also for rows that a fold skips, and is not counted."""
    numbers = {"softmax": {"kind": "temperature", "temperature": 0.3}, "sigmoid": {"kind": "platt", "a": 2.0, "b": 1.0}}
    more = {"calibration": numbers[head] | {"learn": True}} if calibrated and head in numbers else {}
    source = artifact(kind, head, dtype=dtype, **more)
    state = LearnerState(source)
    for event in data.draw(st.lists(state_events(source, kind), max_size=8)):
        event(state)
    before, scale = state.copy(), data.draw(st.sampled_from([1, 1, 0, 1e6, 1e20, 1e30, 1e37, 1e160, 1e300]))
    with np.errstate(over="ignore"):
        row = (rows(source)[0][data.draw(st.integers(0, 59)), None].astype(np.float64) * scale).astype(dtype)
    model = state.served_parameters().build_model()
    try:
        P, labels = model.classify(row.copy())
    except UnacceptableError:
        with pytest.raises(UnacceptableError):
            state.classify(row)
    else:
        answered, label = state.classify(row)
        assert (answered.tobytes(), answered.dtype, label) == (P.tobytes(), P.dtype, labels[0])
    assert has_same_bits(state, before)


def test_a_refused_question_changes_nothing() -> None:
    """The counts of a learner are its own again after a row that the fold refuses."""
    source = artifact("running", "softmax", dtype="float32")
    X, labels = rows(source)[0], np.ones(1, np.int64)
    state = LearnerState(source)
    state.configure({"rule": "mixture"})
    state.fold_rows(X[:1], labels)
    before = state.copy()
    with pytest.raises(UnacceptableError):
        state.classify(np.copysign(np.float32(np.inf), X[:1]))
    assert has_same_bits(state, before)


def test_a_copy_is_independent() -> None:
    """Learning in a copy does not change the original."""
    source = artifact()
    X, Y = rows(source)
    state, untouched = LearnerState(source), LearnerState(source)
    state.copy().fold_rows(X, Y=Y)
    assert has_same_bits(state, untouched)


def test_foreign_tensors_are_rejected() -> None:
    """Tensors of another model, missing ones and another fold version raise an error."""
    source, other = artifact(), artifact(N=5)
    state = LearnerState(source)
    with pytest.raises(ArtifactError, match="not those"):
        LearnerState.from_tensors(source, LearnerState(other).tensors(), state.scalars())
    with pytest.raises(ArtifactError, match="lacks the window"):
        LearnerState.from_tensors(source, {}, state.scalars())
    with pytest.raises(ArtifactError, match="another version"):
        LearnerState.from_tensors(source, state.tensors(), state.scalars() | {"fold_version": 0})


# A mixture flattens its experts and averages them, so it keeps neither the bound nor the order of close classes.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zero"])
def test_added_classes_are_improbable_at_first(kind: str) -> None:
    """New classes keep the ranking of the others and can be learned."""
    source = artifact(kind, K=4)
    X, Y = rows(source, 200)
    state = LearnerState(source)
    state.fold_rows(X, Y=Y)
    before = state.served_parameters().build_model().predict(X)
    state.add_classes(2)
    after = state.served_parameters().build_model().predict(X)
    assert state.n_classes == 6
    assert np.array_equal(after[:, :4].argsort(axis=1, kind="stable"), before.argsort(axis=1, kind="stable"))
    assert after[:, 4:].max() <= 1 / 400 * (1 + 1e-5)
    state.fold_rows(X, np.full(200, 5))
    assert state.served_parameters().build_model().predict(X)[:, 5].mean() > after[:, 5].mean()


def test_classes_of_a_sigmoid_head_are_fixed() -> None:
    """Adding a class raises an error and changes nothing."""
    state = LearnerState(artifact(head="sigmoid"))
    with pytest.raises(ClassesFixedError):
        state.add_classes(1)
    assert state.n_classes == 2
    with pytest.raises(ValueError, match="at least one"):
        LearnerState(artifact()).add_classes(0)


def test_the_fold_has_no_size_limit_for_newton() -> None:
    """The API rejects newton for such a model, but an event in the log always means the same."""
    source = artifact(N=1500)
    state = LearnerState(source)
    assert state.rule_settings["rule"] == "ftrl"
    state.configure({"rule": "newton"})
    state.add_classes(1)
    assert (state.rule_settings["rule"], state.n_classes) == ("newton", 4)
    again = LearnerState.from_tensors(source, state.tensors(), json.loads(json.dumps(state.scalars())))
    assert has_same_bits(again, state)


def test_shadow_mode_serves_the_old_parameters() -> None:
    """Rows are learned, added classes are served, and the end of shadow mode serves what was learned."""
    source = artifact()
    X, Y = rows(source)
    state, open_ = LearnerState(source), LearnerState(source)
    state.configure({"shadow": True})
    state.fold_rows(X, Y=Y)
    open_.fold_rows(X, Y=Y)
    assert state.shadow
    assert np.array_equal(state.served_parameters().build_model().predict(X), build_model(source).predict(X))
    assert np.array_equal(
        state.candidate_parameters().build_model().predict(X), open_.served_parameters().build_model().predict(X)
    )
    state.add_classes(1)
    open_.add_classes(1)
    assert state.served_parameters().build_model().predict(X).shape == (60, 4)
    state.configure({"shadow": False})
    assert np.array_equal(
        state.served_parameters().build_model().predict(X), open_.served_parameters().build_model().predict(X)
    )


def test_paused_rows_are_scored_only() -> None:
    """While paused, losses are those of the answers, and the answers do not change."""
    source = artifact()
    X, Y = rows(source)
    state = LearnerState(source)
    state.configure({"paused": True})
    assert np.array_equal(state.fold_rows(X, Y=Y), build_model(source).losses(X, Y))
    assert np.array_equal(state.served_parameters().build_model().predict(X), build_model(source).predict(X))
    assert (state.progress["rows"], state.progress["steps"]) == (60, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 1.0},
        {"rule": "adam"},
        {"rule": 3},
        {"constants": {"rate": -1.0}},
        {"constants": {"rate": "fast"}},
        {"constants": {"rate": True}},
        {"constants": [1.0]},
        {"paused": 1},
        {"paused": True, "shadow": "yes"},
        {"paused": True, "rule": "newton", "constants": {"momentum": 0.9}},
    ],
)
def test_invalid_configurations_are_rejected(changes: dict[str, Any]) -> None:
    """Nothing of an invalid change is applied."""
    state, untouched = LearnerState(artifact()), LearnerState(artifact())
    with pytest.raises(ArtifactError):
        state.configure(changes)
    assert has_same_bits(state, untouched)


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "newton"},
        {"rule": "adagrad", "constants": {"clip": 2.0}},
        {"constants": {"clip": 2.0}, "paused": True},
    ],
)
def test_invalid_configurations_of_a_network_are_rejected(changes: dict[str, Any]) -> None:
    """A network has no newton and no clip."""
    state, untouched = LearnerState(artifact("network")), LearnerState(artifact("network"))
    with pytest.raises(ArtifactError):
        state.configure(changes)
    assert has_same_bits(state, untouched)


@pytest.mark.parametrize("kind", KINDS)
def test_another_rule_keeps_the_answers(kind: str) -> None:
    """A change of rule changes no answer, because the clip stays."""
    source = artifact(kind)
    X, Y = rows(source)
    state = LearnerState(source)
    state.fold_rows(X, Y=Y)
    before = state.served_parameters().build_model().predict(X)
    for rule in rules_of(kind):
        state.configure({"rule": rule})
        assert state.rule_settings["rule"] == rule
        assert np.array_equal(state.served_parameters().build_model().predict(X), before)
    assert np.isfinite(state.fold_rows(X, Y=Y)).all()


def test_genesis_binds_what_changes_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, statistics, rule, classes and fold version do; provenance and metrics do not."""
    source = artifact()
    training = source.manifest.training
    assert training is not None
    others = [
        artifact("raw"),
        artifact("staged"),
        artifact(K=4),
        artifact(dtype="float64"),
        artifact(learning={"rule": "newton"}),
        artifact(learning={"rule": "newton", "constants": {"rate": 3.0}}),
        artifact(classes=["a", "b", "c"]),
        artifact(training=training.model_dump(mode="json") | {"rows": 201}),
        artifact("network"),
        artifact("network", layers=layers_with("tanh", "tanh")),
        Artifact(source.manifest, {**source.tensors, "bias": source.bias + 1}),
    ]
    found = [compute_genesis(one) for one in (source, *others)]
    assert {len(one) for one in found} == {32}
    assert len(set(found)) == len(found)
    assert compute_genesis(artifact(provenance={"a": "b"}, metrics={"loss": 1.0})) == found[0]
    monkeypatch.setattr(binding, "FOLD_VERSION", binding.FOLD_VERSION + 1)
    assert compute_genesis(source) != found[0]


def layers_with(*activations: str) -> list[dict[str, str]]:
    """Return the layers of a network with other activations."""
    hidden = [
        {"weight": f"{n}.weight", "bias": f"{n}.bias", "activation": activation}
        for n, activation in enumerate(activations)
    ]
    return [*hidden, {"weight": "weight", "bias": "bias", "activation": "identity"}]


def test_genesis_binds_the_widths_of_hidden_layers() -> None:
    """Two networks with equal tensor bytes and other widths differ."""
    assert compute_genesis(ones(1, 4)) != compute_genesis(ones(3, 2))
    assert ones(1, 4).weights_sha256 == ones(3, 2).weights_sha256


@pytest.mark.parametrize("name", ["raw", "network", "trained"])
def test_unlearned_weights_have_the_artifacts_hash(name: str) -> None:
    """The delta of zeros of a trained model is left out of the hash, until a row makes it other than zero."""
    source = artifact() if name == "trained" else artifact(name)
    state = LearnerState(source)
    assert hash_weights(state.served_parameters()) == source.weights_sha256
    X = np.ones((1, source.n_features), np.dtype(source.manifest.dtype))
    state.fold_rows(X, np.array([1]))
    assert hash_weights(state.served_parameters()) != source.weights_sha256
    assert hash_weights(state.served_parameters()) == hash_tensors(state.served_parameters().tensors())
    if name == "trained":
        assert len(LearnerState(source).served_parameters().tensors()) == 3
        exported = state.export_artifact(source.manifest.classes, {})
        assert exported.weights_sha256 == hash_weights(state.served_parameters())


@pytest.mark.parametrize(("kind", "loss"), [("zero", 0.185), ("running", 0.23)])
def test_digits_in_one_pass(kind: str, loss: float) -> None:
    """From zero weights and default constants one pass over digits has the loss of the prototype."""
    X, y = digits()
    assert LearnerState(artifact(kind, N=64, K=10)).fold_rows(X, y).mean() <= loss


@pytest.mark.parametrize("kind", ["zero", "running"])
def test_digits_in_another_unit(kind: str) -> None:
    """A unit 10**8 times as large changes the loss by rounding only."""
    X, y = digits()
    losses = [LearnerState(artifact(kind, N=64, K=10)).fold_rows(rows, y).mean() for rows in (X, X * np.float32(1e-8))]
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)


@pytest.mark.parametrize("rule", ["mixture", "newton", "ftrl", "adagrad"])
def test_changed_labels_are_learned(rule: str) -> None:
    """After 50,000 rows every label is rotated; within 5,000 rows the loss is low again."""
    X, y = digits()
    order = np.random.default_rng(0).integers(0, len(y), 55_000)
    noise = np.random.default_rng(1).standard_normal((55_000, 64)).astype(np.float32)
    state = LearnerState(artifact("zero", N=64, K=10, learning={"rule": rule}))
    stream, labels = X[order] + noise, y[order]
    state.fold_rows(stream[:50_000].copy(), labels[:50_000])
    losses = state.fold_rows(stream[50_000:].copy(), (labels[50_000:] + 1) % 10)
    assert losses[:100].mean() > 2
    assert losses[-500:].mean() < 0.5


def test_one_wrong_label_does_not_undo_a_trained_model() -> None:
    """A single wrong label changes the answers to other rows by little."""
    source = artifact(training={"mean": [0.0] * 4, "scale": [1.0] * 4, "rows": 5000})
    X, _ = rows(source)
    before = build_model(source).predict(X)
    state = LearnerState(source)
    state.fold_rows(X[:1].copy(), before[:1].argmin(axis=1))
    assert np.abs(state.served_parameters().build_model().predict(X) - before).max() < 0.05
