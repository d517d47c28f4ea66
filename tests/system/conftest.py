"""A models directory of its own for each test that changes it or the service."""

import shutil
from pathlib import Path

import pytest

from tests.support.servers import SHIPPED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A models directory that holds iris version 1."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    return tmp_path / "models"
