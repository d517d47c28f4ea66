"""Admin calls that would make a model larger than it may be are refused before they become events."""

import pytest

from service.errors import UnacceptableError
from service.serve.handlers.admin_requests import check_classes
from service.serve.models.served_model import ServedModel
from service.store.artifact.artifact import MANIFEST_BYTES_MAX
from service.store.artifact.manifest import Manifest
from service.store.artifact.manifest_json import dump_manifest
from service.store.artifact.record import NAME_CHARACTERS_MAX
from service.store.log.append_rules import CLASSES_MAX
from tests.support.model_artifacts import make_artifact
from tests.support.server_pair import Pair


def served(pair: Pair, name: str, bytes_max: int) -> ServedModel:
    """Return a served model, under another limit of an artifact's size."""
    # A model with a changed argument is made like the live one, from the other arguments that it holds.
    version, artifact, resources = pair.worker.registry.now.find_served(name, None)._source_arguments
    settings = resources.settings.model_copy(update={"artifact_bytes_max": bytes_max})
    return ServedModel(version, artifact, resources._replace(settings=settings))


def added(count: int, model: ServedModel) -> None:
    check_classes([f"more {k}" for k in range(count)], model)


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
    assert largest(model.manifest, model.classes_max) <= bytes_max


def largest(manifest: Manifest, classes: int) -> int:
    """Return the bytes of a model with this many classes and everything that it may learn."""
    hidden = (17, 5) if manifest.hidden else ()
    made = make_artifact("softmax", manifest.n_features, [str(k) for k in range(classes)], hidden=hidden)
    delta = 0 if hidden else manifest.n_features * classes * 4
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
    check_classes(fitting, model)
    assert len(dump_manifest(long.manifest.model_copy(update={"classes": ("a", "b", *fitting)}))) < MANIFEST_BYTES_MAX
    with pytest.raises(UnacceptableError, match="do not fit into a manifest"):
        check_classes(names, model)


def test_no_model_has_more_classes_than_any_may_have(pair: Pair) -> None:
    """A small model has a limit of classes as well."""
    with pytest.raises(UnacceptableError, match=f"at most {CLASSES_MAX} classes"):
        added(CLASSES_MAX, served(pair, "iris", 1 << 40))
