"""Models of which several versions are served."""

import shutil
from pathlib import Path

import pytest

from service.store.artifact.artifact import write_artifact
from tests.support.model_artifacts import extra_artifacts
from tests.support.paths import SHIPPED


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of iris, and a multi-label model."""
    root = tmp_path_factory.mktemp("versions")
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "iris" / "1", root / "iris" / version)
    write_artifact(root / "tags" / "1", extra_artifacts()["tags"])
    return root
