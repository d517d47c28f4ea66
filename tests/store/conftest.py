"""Fixtures shared by the tests of the store: a small artifact, and a folder with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.artifact.artifact import Artifact, write_artifact
from tests.support.artifact_files import MakeArtifact


@pytest.fixture(scope="session")
def make_artifact() -> MakeArtifact:
    """Return a function that makes a 2 -> 3 softmax artifact; `bias` identifies it, keywords change the manifest."""

    def make(bias: float = 0.5, **changes: Any) -> Artifact:
        fields = {
            "head": "softmax",
            "classes": ["a", "b", "c"],
            "features": ["x", "y"],
            "dtype": "float32",
            "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
            **changes,
        }
        weight = np.arange(6, dtype=fields["dtype"]).reshape(2, 3)
        return Artifact.from_fields(fields, {"weight": weight, "bias": np.full(3, bias, dtype=fields["dtype"])})

    return make


@pytest.fixture
def folder(tmp_path: Path, make_artifact: MakeArtifact) -> Path:
    """Return a version's folder with a valid artifact."""
    directory = tmp_path / "iris" / "1"
    write_artifact(directory, make_artifact())
    return directory
