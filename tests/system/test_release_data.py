"""A data directory of an earlier release opens, verifies, and serves the bits that it served there."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.data_directories import run_softstep
from tests.support.make_release_data import GOLDEN
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())
NAMES = sorted(EXPECTED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's data directory, in a folder with nothing else."""
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(GOLDEN / "data.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that goes on with the data, and with the models that it belongs to."""
    models = tmp_path_factory.mktemp("models")
    for name in NAMES:
        shutil.copytree(SHIPPED / name, models / name)
    with serving(models, folder) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_the_served_state_is_that_of_the_release(name: str, service: Service) -> None:
    """Seq, epoch, classes and the hash of the weights are those of the release, and so are probabilities."""
    expected = dict(EXPECTED[name])
    row, predictions = expected.pop("row"), expected.pop("predictions")
    metadata = httpx.get(f"{service.url}/v1/models/{name}").json()
    assert {field: metadata[field] for field in expected} == expected
    answer = httpx.post(f"{service.url}/v1/models/{name}:predict", json={"instances": [row]}).json()
    assert answer["predictions"] == predictions


def test_its_states_equal_the_fold_of_its_events(folder: Path, service: Service) -> None:
    """`softstep verify --refold` folds the events again and finds the checkpoints and snapshots of the release."""
    assert service.process.poll() is None
    done = run_softstep("verify", "--refold", "--data", folder / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("good") >= len(NAMES)
