"""Helpers for artifacts on disk: reasons of refusals, edits of a folder, and views of a repository."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import settings

from service.errors import ArtifactError
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.repository import Repository, RepositoryView

BYTES_MAX = 1 << 20
GOLDEN = Path(__file__).parents[1] / "golden" / "artifact" / "1"
GOLDEN_NETWORK = Path(__file__).parents[1] / "golden" / "network" / "1"
GOLDEN_FIELDS = Path(__file__).parents[1] / "golden" / "fields" / "1"
GOLDEN_SPARSE_FIELDS = Path(__file__).parents[1] / "golden" / "sparse_fields" / "1"
each_golden = pytest.mark.parametrize(
    "golden", [GOLDEN, GOLDEN_NETWORK, GOLDEN_SPARSE_FIELDS], ids=["linear", "network", "fields"]
)
on_disk = settings(deadline=None)  # a slow disk is not a failure
MakeArtifact = Callable[..., Artifact]
PutArtifact = Callable[..., Path]
HEAD_LAYER = {"weight": "weight", "bias": "bias", "activation": "identity"}
HIDDEN_LAYER = {"weight": "h", "bias": "c", "activation": "tanh"}


def refusal(directory: Path, bytes_max: int = BYTES_MAX) -> str:
    """Return the reason why a folder is refused."""
    with pytest.raises(ArtifactError) as caught:
        read_artifact(directory, bytes_max)
    return str(caught.value)


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's JSON in place."""
    manifest = json.loads((directory / "model.json").read_text())
    change(manifest)
    (directory / "model.json").write_text(json.dumps(manifest))


def replace_tensors(directory: Path, raw: bytes) -> None:
    """Replace the tensor file, and its checksum in the manifest."""
    (directory / "model.safetensors").write_bytes(raw)
    edit_manifest(directory, lambda manifest: manifest.update(tensors_sha256=hashlib.sha256(raw).hexdigest()))


def equal_artifacts(one: Artifact, other: Artifact) -> bool:
    """Return whether two artifacts have the same bits and fields, apart from the bytes of their tensor files."""
    manifests = [artifact.manifest.model_copy(update={"tensors_sha256": ""}) for artifact in (one, other)]
    return manifests[0] == manifests[1] and one.weights_sha256 == other.weights_sha256


def network_tensors(**changes: Any) -> bytes:
    """Return a tensor file of a network 2 -> 4 -> 1 -> 3, with some tensors changed or, for None, left out."""
    shapes = {"h": (2, 4), "c": (4,), "i": (4, 1), "d": (1,), "weight": (1, 3), "bias": (3,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | changes
    return safetensors.numpy.save({name: array for name, array in arrays.items() if array is not None})


def open_repository(root: Path, models_max: int = 256) -> Repository:
    """Return a repository with the usual limits."""
    return Repository(root, BYTES_MAX, models_max)


def summarize(view: RepositoryView) -> dict[tuple[str, int], tuple[str, float | None, str | None]]:
    """Return each version's state, the bias that identifies its artifact, and its reason."""
    return {
        key: (version.state, version.artifact and float(version.artifact.bias[0]), version.reason)
        for key, version in view.versions.items()
    }
