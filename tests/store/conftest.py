"""What the tests of this room share: a small artifact, and folders made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.artifact.artifact import Artifact, write_artifact

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="session")
def make_artifact() -> MakeArtifact:
    """Makes a 2 -> 3 softmax artifact; `bias` tells one from another, keyword arguments change the manifest."""

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
    """A version's folder that holds a good artifact."""
    directory = tmp_path / "iris" / "1"
    write_artifact(directory, make_artifact())
    return directory
