"""The fields of a manifest, and the combinations that are refused."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import ArtifactError
from service.store.artifact.manifest import Manifest
from tests.support.artifact_files import HEAD_LAYER, HIDDEN_LAYER, MakeArtifact, edit_manifest, refusal

WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("format_version", 2, "format_version"),
    ("format_version", True, "format_version"),
    ("format_version", "1", "format_version"),
    ("format_version", 1.0, "format_version"),
    ("head", "relu", "head"),
    ("head", "sigmoid", "two classes"),
    ("classes", ["a"], "at least two classes"),
    ("classes", [], "classes"),
    ("classes", ["a", "b", "a"], "differ from each other"),
    ("classes", ["a", "b", ""], "classes.2"),
    ("classes", ["a", "b", 3], "classes.2"),
    ("classes", ["a", "b", "c" * 257], "classes.2"),
    ("classes", "abc", "classes"),
    ("classes", ["a", "b", "c", "d"], "shape"),
    ("features", ["x", "x"], "differ from each other"),
    ("features", ["x"], "shape"),
    ("features", [], "features"),
    ("features", None, "features"),
    ("dtype", "float16", "dtype"),
    ("dtype", "float64", "is float32"),
    ("layers", [], "layers"),
    ("layers", [HEAD_LAYER, HEAD_LAYER], "must be relu, sigmoid or tanh"),
    ("layers", [HEAD_LAYER | {"activation": "relu"}], "its activation must be identity"),
    ("layers", [HEAD_LAYER | {"activation": "softplus"}], "layers.0.activation"),
    ("layers", [HEAD_LAYER | {"bias": "weight"}], "tensor of its own"),
    ("layers", [HIDDEN_LAYER | {"bias": "bias"}, HEAD_LAYER], "tensor of its own"),
    ("layers", [HIDDEN_LAYER | {"bias": "h"}, HEAD_LAYER], "tensor of its own"),
    ("layers", [HIDDEN_LAYER, HEAD_LAYER], "exactly those"),
    ("layers", [HEAD_LAYER, HIDDEN_LAYER], "its activation must be identity"),
    ("layers", [HIDDEN_LAYER] * 127 + [HEAD_LAYER], "tensor of its own"),
    ("layers", [HIDDEN_LAYER] * 128 + [HEAD_LAYER], "at most 128 items"),
    ("layers", [HEAD_LAYER | {"weight": "../../etc/passwd"}], "exactly those"),
    ("layers", [{"weight": "weight"}], "layers.0.bias"),
    ("layers", [HEAD_LAYER | {"weight": "__metadata__"}], "__metadata__"),
    ("thresholds", [0.5, 0.5, 0.5], "only a multilabel head"),
    ("stage", {"mean": [0, 0]}, "stage.scale"),
    ("stage", {"mean": [0, 0], "scale": [1, 0]}, "stage.scale.1"),
    ("stage", {"mean": [0, 0], "scale": [1, -1]}, "stage.scale.1"),
    ("stage", {"mean": [0], "scale": [1, 1]}, "stage.mean must hold one number for each feature"),
    ("stage", {"mean": [0, 0], "scale": [1, 1, 1]}, "stage.scale must hold one number for each feature"),
    ("stage", {"mean": [0, 0], "scale": [1, 1], "clip": 0}, "stage.clip"),
    ("stage", {"mean": [0, 0], "scale": [1, 1], "code": "x"}, "stage.code"),
    ("training", {"rows": 0, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 1.5, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 10**4000, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 5, "mean": [0, True], "scale": [1, 1]}, "training.mean.1"),
    ("training", {"rows": 5, "mean": [0, 0], "scale": [1]}, "training.scale must hold"),
    ("training", {"rows": 5, "scale": [1, 1]}, "training of features has rows, mean and scale"),
    ("training", {"rows": 5, "mean": [0, 0]}, "training of features has rows, mean and scale"),
    ("training", {"rows": 5, "mean": [0, 0], "scale": [1, 1], "support": "s"}, "support is for fields"),
    ("fields", [{"name": "x", "kind": "number"}], "format_version"),
    ("others", "ignore", "others and examples are for a model with fields"),
    ("examples", [{"row": [1, 2], "probabilities": [1, 0, 0]}], "others and examples are for a model with fields"),
    ("learning", {"constants": {}}, "learning.rule"),
    ("learning", {"rule": "sgd", "constants": {"rate": "fast"}}, "learning.constants.rate"),
    ("provenance", {"when": 2024}, "provenance.when"),
    ("metrics", {"accuracy": "good"}, "metrics.accuracy"),
    ("tensors_sha256", "0" * 64, "tensors_sha256"),
    ("tensors_sha256", "A" * 64, "tensors_sha256"),
    ("tensors_sha256", "0" * 64 + "\n", "tensors_sha256"),
    ("loader", "os.system", "loader"),
    ("\u001b[31m\n" * 400, 1, "Extra inputs"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG_FIELDS)
def test_a_wrong_field_is_refused_by_name(folder: Path, field: str, value: Any, reason: str) -> None:
    """The reason names the field, is one printable line, and is short."""
    edit_manifest(folder, lambda manifest: manifest.update({field: value}))
    message = refusal(folder)
    assert reason in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("field", ["format_version", "head", "classes", "dtype", "layers", "tensors_sha256"])
def test_a_missing_field_is_refused(folder: Path, field: str) -> None:
    """Each field without a meaning for its absence must be there."""
    edit_manifest(folder, lambda manifest: manifest.pop(field))
    assert refusal(folder) == f"model.json is not a valid manifest: {field}: Field required"


def test_a_row_without_a_description_is_refused(folder: Path) -> None:
    """A manifest has features or fields."""
    edit_manifest(folder, lambda manifest: manifest.pop("features"))
    assert refusal(folder) == "model.json is not a valid manifest: a model has either features or fields"


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, -0.1], [0.5, 0.5, "1"]])
def test_multilabel_thresholds_are_one_probability_a_class(make_artifact: MakeArtifact, thresholds: list[Any]) -> None:
    """Thresholds of another number, or out of [0, 1], are refused."""
    with pytest.raises(ArtifactError, match="thresholds"):
        make_artifact(head="multilabel", thresholds=thresholds)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"learning": {"rule": "newton"}}, "newton is for models without hidden layers"),
        ({"delta": {"weight": "z", "clip": 1.0}}, "training statistics"),
        ({"delta": {"weight": "z", "clip": 1.0}, "training": {"rows": 1, "mean": [0, 0], "scale": [1, 1]}}, "no delta"),
    ],
)
def test_fields_that_a_network_does_not_have_are_refused(layered: Path, more: dict[str, Any], reason: str) -> None:
    """Its layers learn themselves."""
    edit_manifest(layered, lambda manifest: manifest.update(more))
    assert reason in refusal(layered)


def test_manifest_is_public_and_frozen(make_artifact: MakeArtifact) -> None:
    """A manifest cannot be changed under those who hold it."""
    manifest = make_artifact().manifest
    assert isinstance(manifest, Manifest)
    with pytest.raises(ValueError, match="frozen"):
        manifest.head = "ovr"  # type: ignore[misc]
