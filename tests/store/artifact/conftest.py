"""Fixtures of artifacts on disk."""

from pathlib import Path

import pytest

from service.store.artifact.artifact import write_artifact
from tests.support.artifact_files import (
    HEAD_LAYER,
    HIDDEN_LAYER,
    MakeArtifact,
    PutArtifact,
    edit_manifest,
    network_tensors,
    replace_tensors,
)


@pytest.fixture
def layered(folder: Path) -> Path:
    """Return a folder whose artifact is a network."""
    layers = [HIDDEN_LAYER, {"weight": "i", "bias": "d", "activation": "relu"}, HEAD_LAYER]
    edit_manifest(folder, lambda manifest: manifest.update(layers=layers))
    replace_tensors(folder, network_tensors())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty models directory."""
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


@pytest.fixture
def put(root: Path, make_artifact: MakeArtifact) -> PutArtifact:
    """Return a function that writes a valid artifact to a folder below the root."""

    def write(folder: str, bias: float = 0.5) -> Path:
        write_artifact(root / folder, make_artifact(bias=bias), overwrite=True)
        return root / folder

    return write
