"""Admin calls that would make a model larger than it may be are refused before they become events."""

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import RuleFixedError, UnacceptableError
from service.learn.state import LearnerState
from service.record import NAME_CHARACTERS_MAX
from service.serve.handlers.admin_requests import check_classes, check_configuration
from service.serve.models.served_model import ServedModel
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.artifact.manifest_json import dump_manifest
from service.store.log.append_rules import CLASSES_MAX
from tests.support.artifacts import artifact, rows
from tests.support.field_artifacts import DENSE_COLUMNS, field_artifact
from tests.support.http_requests import request
from tests.support.make_zero_fold1 import GOLDEN, MODELS
from tests.support.model_artifacts import make_artifact
from tests.support.server_pair import Pair


def served(pair: Pair, name: str, bytes_max: int) -> ServedModel:
    """Return a served model, under another limit of an artifact's size."""
    # A model with a changed argument is made like the live one, from the other arguments that it holds.
    version, artifact, resources = pair.worker.registry.now.find_served(name, None)._source_arguments
    settings = resources.settings.model_copy(update={"artifact_bytes_max": bytes_max})
    return ServedModel(version, artifact, resources._replace(settings=settings))


def added(count: int, model: ServedModel) -> None:
    check_classes([f"more {k}" for k in range(count)], model, FOLD_VERSION)


@pytest.mark.parametrize("name", ["iris", "network"])
def test_classes_are_added_while_the_model_can_be_exported(pair: Pair, name: str) -> None:
    """A network, and a model that learns in a delta, still fit the limit with as many classes as they may have."""
    bytes_max = 1400
    model = served(pair, name, bytes_max)
    room = model.classes_max - len(model.classes)
    assert 0 < room < CLASSES_MAX
    added(room, model)
    with pytest.raises(UnacceptableError, match=f"^This model may have at most {model.classes_max} classes.$"):
        added(room + 1, model)
    assert largest(model.artifact, model.classes_max) <= bytes_max


def largest(artifact: Artifact, classes: int) -> int:
    """Return the bytes of a model with this many classes and everything that it may learn."""
    hidden = (17, 5) if artifact.manifest.hidden else ()
    made = make_artifact("softmax", artifact.n_features, [str(k) for k in range(classes)], hidden=hidden)
    delta = 0 if hidden else artifact.n_features * classes * 4
    return sum(tensor.nbytes for tensor in made.tensors.values()) + delta


def test_a_model_that_is_too_large_already_gets_no_class(pair: Pair) -> None:
    """A model above a limit that was lowered after its loading gets no class."""
    model = served(pair, "iris", 10)
    with pytest.raises(UnacceptableError, match="at most 3 classes"):
        added(1, model)


def test_the_names_of_added_classes_fit_into_a_manifest(pair: Pair) -> None:
    """Names of classes are refused if an export of the model could not be loaded again."""
    # A model with a changed argument is made like the live one, from the other arguments that it holds.
    version, _, resources = pair.worker.registry.now.find_served("iris", None)._source_arguments
    long = make_artifact("softmax", 4, ["a", "b"], provenance={"notes": "x" * (8 << 20)})
    model = ServedModel(version, long, resources)
    names = [f"{k:04}".ljust(NAME_CHARACTERS_MAX, "\x01") for k in range(6000)]
    fitting = names[:5000]
    check_classes(fitting, model, FOLD_VERSION)
    assert len(dump_manifest(long.manifest.model_copy(update={"classes": ("a", "b", *fitting)}))) < MANIFEST_BYTES_MAX
    with pytest.raises(UnacceptableError, match="do not fit into a manifest"):
        check_classes(names, model, FOLD_VERSION)


def test_no_model_has_more_classes_than_any_may_have(pair: Pair) -> None:
    """A small model has a limit of classes as well."""
    with pytest.raises(UnacceptableError, match=f"at most {CLASSES_MAX} classes"):
        added(CLASSES_MAX, served(pair, "iris", 1 << 40))


def test_tensors_of_fields_are_part_of_an_exported_model(pair: Pair) -> None:
    """They leave less room for classes."""
    features, fields = (
        artifact("trained", N=DENSE_COLUMNS),
        field_artifact(training={"rows": 200, "support": "support"}),
    )
    fixed = sum(tensor.nbytes for tensor in fields.fixed_tensors.values())
    rooms = [made(pair, one, artifact_bytes_max=4000).classes_max for one in (features, fields)]
    assert rooms[1] == made(pair, features, artifact_bytes_max=4000 - fixed).classes_max
    assert rooms[1] < rooms[0]


def made(pair: Pair, artifact: Artifact, **limits: int) -> ServedModel:
    """Return a served model of an artifact."""
    # A model of another artifact is made like a live one, from the other arguments that it holds.
    version, _, resources = pair.worker.registry.now.find_served("iris", None)._source_arguments
    settings = resources.settings.model_copy(update=limits)
    return ServedModel(version, artifact, resources._replace(settings=settings))


def configure(model: ServedModel, rule: str, fold_version: int = FOLD_VERSION, **constants: float) -> None:
    """Check a change of the rule."""
    check_configuration({"rule": rule, "constants": constants}, model, fold_version)


def test_only_mixture_continues_mixture(pair: Pair) -> None:
    """A model that learns by it keeps its random features too; a stream that began with newton may change."""
    model = made(pair, artifact("zero"))
    configure(model, "mixture", rate=2.0)
    changes: list[tuple[str, dict[str, float]]] = [
        ("newton", {}),
        ("ftrl", {}),
        ("mixture", {"features": 64}),
        ("mixture", {"seed": 1}),
    ]
    for rule, constants in changes:
        with pytest.raises(RuleFixedError, match="roll back"):
            configure(model, rule, **constants)
        configure(model, rule, fold_version=1, **constants)


@pytest.mark.parametrize(
    ("source", "rule", "constants", "reason"),
    [
        (artifact("trained", "multilabel"), "mixture", {}, "softmax and sigmoid"),
        (artifact("trained", "ovr"), "mixture", {}, "softmax and sigmoid"),
        (artifact("network"), "mixture", {}, "hidden layers"),
        (artifact("trained"), "mixture", {"features": 100}, "out of range"),
        (artifact("trained"), "mixture", {"seed": 0.5}, "out of range"),
        (artifact("trained"), "mixture", {"clip": 2.0}, "out of range"),
        (artifact("trained", N=4097), "mixture", {"features": 4096}, "rule mixture does not take so many"),
        (artifact("trained", N=2000), "newton", {}, "rule newton does not take so many"),
    ],
)
def test_rules_that_do_not_fit_are_refused(
    pair: Pair, source: Artifact, rule: str, constants: dict[str, float], reason: str
) -> None:
    """The reason names the heads, the layers, the constants or the size."""
    with pytest.raises(UnacceptableError, match=reason):
        configure(made(pair, source), rule, **constants)


@pytest.mark.parametrize(("kind", "rule"), [("zero", "mixture"), ("running", "newton")])
def test_classes_are_added_while_the_matrices_are_small(pair: Pair, kind: str, rule: str) -> None:
    """Narrow rows have a matrix for each class, so a mixture has the limit of newton; wide rows have none."""
    model = made(pair, artifact(kind, N=127))
    added(253, model)
    with pytest.raises(UnacceptableError, match=f"rule {rule} does not take so many"):
        added(254, model)
    added(CLASSES_MAX - 3, made(pair, artifact("zero", N=129)))


@pytest.mark.parametrize("N", [6, 160])
def test_a_mixture_gets_classes_while_it_can_be_exported(pair: Pair, N: int) -> None:
    """The largest export, with a trained model and its delta beside the experts, has the bytes of the limit."""
    source, bytes_max = artifact("trained", N=N), 100_000
    model = made(pair, artifact("trained", N=N, learning={"rule": "mixture"}), artifact_bytes_max=bytes_max)
    room = next(count for count in range(1, 1000) if refused(model, count)) - 1
    state = LearnerState(source)
    state.fold_rows(*labeled(source, state.n_classes))
    state.configure({"rule": "mixture"})
    state.fold_rows(*labeled(source, state.n_classes))
    state.add_classes(room)
    state.fold_rows(*labeled(source, state.n_classes))
    names = [f"class {k}" for k in range(state.n_classes)]
    size = sum(tensor.nbytes for tensor in state.export_artifact(names, {}).tensors.values())
    assert 0.9 * bytes_max * (1 - 1 / room) < size <= bytes_max
    configure(made(pair, source, artifact_bytes_max=size), "mixture")
    with pytest.raises(UnacceptableError, match="rule mixture does not take so many"):
        configure(made(pair, source, artifact_bytes_max=1000), "mixture")


def refused(model: ServedModel, count: int) -> bool:
    """Return whether so many classes are refused."""
    try:
        added(count, model)
    except UnacceptableError:
        return True
    return False


def labeled(source: Artifact, classes: int) -> tuple[Any, Any]:
    """Return rows and labels."""
    X, _ = rows(source)
    return X, np.arange(len(X)) % classes


def test_a_stream_of_fold_1_without_a_snapshot_changes_its_rule(tmp_path: Path) -> None:
    """Its first event, not this release, decides that it learns by newton; a stream that begins now may not change."""
    with tarfile.open(GOLDEN / "data.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name, model in MODELS.items():
        write_artifact(tmp_path / "models" / name / "1", model.artifact())
        write_artifact(tmp_path / "models" / name / "2", model.artifact())
        shutil.rmtree(tmp_path / "data" / "streams" / name / "1" / "snapshots")
    with Pair(tmp_path / "models", data=tmp_path / "data") as pair:
        for name in MODELS:
            for version, status in ((1, 202), (2, 409)):
                body = request("POST", f"/v1/models/{name}/versions/{version}:configure", b'{"rule": "adagrad"}')
                assert pair.ask(body)[0].status == status
