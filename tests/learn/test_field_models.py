"""Models of dense fields learn as models of standardized features do, and are exported with their fields."""

from typing import Any

import numpy as np
import pytest

from service.errors import ArtifactError
from service.learn import fold_upgrade
from service.learn.base_state import FoldStart, encode_state
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import first_fold
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, compute_genesis
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.model_factory import build_model
from service.store.log.admin_payloads import dump
from service.store.log.events import Kind, Stream
from service.store.log.lineage import Lineage, LineageChange
from service.store.states.snapshots import Snapshot
from tests.support.artifacts import rows
from tests.support.field_artifacts import DENSE_COLUMNS, field_artifact, field_tensors, plain_fields
from tests.support.learner_states import has_same_bits
from tests.support.memory_log import MemoryLog
from tests.support.reference import HEADS

TRAINING = {"rows": 200}
HIDDEN = [
    {"weight": "h", "bias": "c", "activation": "tanh"},
    {"weight": "weight", "bias": "bias", "activation": "identity"},
]


def twin(source: Artifact) -> Artifact:
    """Return the same model on features, whose training statistics are mean 0 and scale 1."""
    fields = plain_fields(source.manifest)
    del fields["fields"]
    statistics = {"mean": [0.0] * DENSE_COLUMNS, "scale": [1.0] * DENSE_COLUMNS}
    more = {"features": DENSE_COLUMNS, "training": {"rows": source.manifest.training.rows} | statistics}  # type: ignore[union-attr]
    return Artifact.from_fields(fields | more, source.weight_tensors)


def network() -> Artifact:
    """Return a network on dense fields."""
    plain = field_artifact(training=TRAINING)
    rng = np.random.default_rng(2)
    shapes = {"h": (DENSE_COLUMNS, 5), "c": (5,), "weight": (5, 3), "bias": (3,)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return Artifact.from_fields(plain_fields(plain.manifest) | {"layers": HIDDEN}, {**plain.tensors, **tensors})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rule", [None, "sgd", "adagrad", "ftrl", "newton", "mixture", "plain", "network"])
def test_dense_fields_learn_as_standardized_features_do(head: str, rule: str | None) -> None:
    """By each rule and form, to the bit, and so does the export of each."""
    if (rule == "mixture" and head in {"multilabel", "ovr"}) or (rule == "network" and head != "softmax"):
        return
    learning = {} if rule in {None, "plain", "network"} else {"learning": {"rule": rule}}
    if rule == "plain":
        learning = {"learning": {"rule": "sgd", "constants": {}}}
    if rule == "sgd":
        learning["learning"]["constants"] = {"clip": 2.0}  # type: ignore[assignment]
    source = network() if rule == "network" else field_artifact(head=head, training=TRAINING, **learning)
    X, Y = rows(source)
    states = [LearnerState(source), LearnerState(twin(source))]
    assert states[0].rule_settings == states[1].rule_settings
    exports = []
    for state in states:
        state.fold_rows(X, Y=Y)
        exported = state.export_artifact(source.manifest.classes, {})
        assert exported.weights_sha256 == hash_tensors(state.served_parameters().tensors())
        exports.append(exported)
    assert has_same_bits(*states)
    fields, features = exports
    assert fields.weights_sha256 == features.weights_sha256
    assert fields.manifest.training is not None
    assert (fields.manifest.training.rows, fields.manifest.training.mean) == (260, None)
    assert (fields.manifest.fields, fields.manifest.stage) == (source.manifest.fields, None)
    assert fields.manifest.format_version == 2
    assert {name: fields.tensors[name].tolist() for name in field_tensors()} == {
        name: tensor.tolist() for name, tensor in field_tensors().items()
    }
    again = [LearnerState(exported) for exported in exports]
    for state in again:
        state.fold_rows(X, Y=Y)
    assert has_same_bits(*again)


@pytest.mark.parametrize(
    ("seed", "head", "learning", "rule", "form"),
    [
        (None, "softmax", None, "mixture", "mixture"),
        (None, "ovr", None, "newton", "delta"),
        (None, "softmax", "newton", "newton", "delta"),
        (0, "softmax", None, "adagrad", "delta"),
        (0, "softmax", "ftrl", "ftrl", "delta"),
    ],
)
def test_fields_need_no_training_rows(seed: int | None, head: str, learning: str | None, rule: str, form: str) -> None:
    """Their columns have a scale without them, so a delta learns; an export has the rows that were learned."""
    more = {} if learning is None else {"learning": {"rule": learning}}
    source = field_artifact(head=head, seed=seed, **more)
    X, Y = rows(source)
    state = LearnerState(source)
    assert (state.rule_settings["rule"], state.rule_settings["form"]) == (rule, form)
    unchanged = state.export_artifact(source.manifest.classes, {})
    assert unchanged.manifest.training is None
    assert build_model(unchanged).predict(X).tobytes() == build_model(source).predict(X).tobytes()
    state.fold_rows(X, Y=Y)
    exported = state.export_artifact(source.manifest.classes, {})
    assert exported.manifest.training is not None
    assert exported.manifest.training.model_dump() == {"rows": 60, "mean": None, "scale": None, "support": None}
    assert build_model(exported).predict(X).tobytes() == state.served_parameters().build_model().predict(X).tobytes()
    assert LearnerState(exported).rule_settings["rule"] == rule


def test_an_export_keeps_what_a_row_is() -> None:
    """Fields, their tensors, the support and `others` stay; examples and metrics were those of the trained model."""
    example = {"row": {}, "probabilities": [0.5, 0.25, 0.25]}
    source = field_artifact(
        training=TRAINING | {"support": "s"}, others="ignore", examples=[example], metrics={"log_loss": 0.1}
    )
    state = LearnerState(source)
    X, Y = rows(source)
    state.fold_rows(X, Y=Y)
    exported = state.export_artifact(source.manifest.classes, {})
    assert (exported.manifest.others, exported.manifest.examples, exported.manifest.metrics) == ("ignore", None, {})
    assert exported.manifest.training is not None
    assert exported.manifest.training.model_dump(exclude_none=True) == {"rows": 260, "support": "s"}
    assert exported.tensors["s"].tobytes() == source.tensors["s"].tobytes()


def test_a_checkpoint_holds_what_learning_changes() -> None:
    """Not the vocabulary: a stream that another release takes over continues with that of its artifact."""
    source = field_artifact(training=TRAINING | {"support": "s"})
    X, Y = rows(source)
    fold = EventFold(source)
    fold.state.fold_rows(X, Y=Y)
    fields, arrays = fold.checkpoint_contents()
    held = {name for name in arrays if name.startswith("artifact.")}
    assert held == {"artifact.weight", "artifact.bias", "artifact.delta.weight"}
    restored = EventFold.from_checkpoint(source, Snapshot(fields, arrays))
    assert has_same_bits(restored.state, fold.state)


def test_a_stream_is_taken_over_with_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base has the weights, and the artifact the rest."""
    source = field_artifact(training=TRAINING | {"support": "s"})
    X, Y = rows(source)
    fold = EventFold(source)
    fold.state.fold_rows(X, Y=Y)
    stored = encode_state(source, FoldStart(source), Snapshot(*fold.checkpoint_contents()))
    payload = dump({"seq": 60, "turns": 0, "n_classes": 3, "state": stored})
    monkeypatch.setattr(fold_upgrade, "read_verified_payload", lambda *_: payload)
    stream = Stream(1, "m", 1, compute_genesis(source), 3)
    base = LineageChange(61, Kind.BASE, 60, fold=FOLD_VERSION)
    begun = first_fold(stream, source, MemoryLog(), Lineage([base]), base)
    assert begun.artifact.manifest.fields == source.manifest.fields
    assert {name: tensor.tobytes() for name, tensor in begun.artifact.fixed_tensors.items()} == {
        name: tensor.tobytes() for name, tensor in source.fixed_tensors.items()
    }
    served, learned = (one.state.served_parameters().build_model() for one in (begun, fold))
    assert served.predict(X).tobytes() == learned.predict(X).tobytes()
    monkeypatch.setattr(fold_upgrade, "read_verified_payload", lambda *_: _without(payload, "delta.weight"))
    with pytest.raises(ArtifactError):
        first_fold(stream, source, MemoryLog(), Lineage([base]), base)


def _without(payload: bytes, tensor: str) -> bytes:
    """Return the payload of a base that lacks a tensor."""
    fields: Any = fold_upgrade.parse(payload, len(payload))
    del fields["state"]["tensors"][tensor]
    return dump(fields)


@pytest.mark.parametrize("rule", ["adagrad", "ftrl"])
def test_trained_weights_hold_by_column(rule: str) -> None:
    """G begins at firmness times the support of a column, and at firmness times the rows of the bias."""
    more = {"learning": {"rule": rule, "constants": {"firmness": 0.5}}}
    firm = field_artifact(training={**TRAINING, "support": "support"}, **more)
    state = LearnerState(firm)
    expected = np.repeat(0.5 * np.r_[200, firm.tensors["support"]][:, None], 3, axis=1)
    np.testing.assert_array_equal(state.tensors()["squares"], expected)
    np.testing.assert_array_equal(state.copy().tensors()["squares"], expected)
    state.configure({"rule": "sgd"})
    state.configure({"rule": rule, "constants": {"firmness": 0.25}})
    np.testing.assert_array_equal(state.tensors()["squares"], expected / 2)
    restored = LearnerState.from_tensors(firm, state.tensors(), state.scalars())
    assert has_same_bits(restored, state)
    plain = LearnerState(field_artifact(training=TRAINING, **more))
    assert set(plain.tensors()["squares"].ravel().tolist()) == {100.0}


@pytest.mark.parametrize("rule", ["newton", "sgd", "mixture"])
def test_other_rules_have_no_use_for_support(rule: str) -> None:
    """They learn to the bit what they learn without it."""
    learning = {"learning": {"rule": rule}}
    states = [
        LearnerState(field_artifact(training=training, **learning))
        for training in (TRAINING, {**TRAINING, "support": "support"})
    ]
    X, Y = rows(field_artifact())
    for state in states:
        state.fold_rows(X, Y=Y)
    assert has_same_bits(*states)
