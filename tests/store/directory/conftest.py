"""Fixtures of data directories."""

from pathlib import Path

import pytest

from service.store.directory.data_directory import DataDirectory


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "new" / "data")
