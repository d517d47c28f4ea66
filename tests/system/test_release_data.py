"""A data directory of an earlier release opens, verifies, and serves the bits that it served there."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from tests.support.data_directories import json_lines, run_command, run_softstep
from tests.support.make_actor_log import GOLDEN as ACTORS_GOLDEN
from tests.support.make_release_data import GOLDEN
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())
NAMES = sorted(EXPECTED)


def extract(folder: Path) -> Path:
    """Extract the release's data directory into a folder with nothing else."""
    with tarfile.open(GOLDEN / "data.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def schema_version(folder: Path) -> int:
    """Return the version of the log's schema."""
    with closing(apsw.Connection(str(folder / "data" / "log.sqlite"))) as log:
        return int(log.pragma("user_version"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's data directory, in a folder with nothing else."""
    return extract(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that the data belongs to: those that the release shipped, if others are shipped today."""
    models = tmp_path_factory.mktemp("models")
    for name in NAMES:
        released = GOLDEN / "models" / name
        shutil.copytree(released if released.exists() else SHIPPED / name, models / name)
    return models


@pytest.fixture(scope="module")
def service(folder: Path, models: Path) -> Iterator[Service]:
    """A service that goes on with the data."""
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


def test_a_start_upgrades_the_log(models: Path, tmp_path: Path) -> None:
    """Commands leave the log to the release that may still serve it; a start upgrades it, and it takes corrections."""
    folder = extract(tmp_path)
    commands = [("verify", "--refold"), ("replay", "iris"), ("backup", folder / "backup")]
    for command, *arguments in commands:
        done = run_command(command, *arguments, "--data", folder / "data")
        assert (done.returncode, schema_version(folder)) == (0, 1), done.stderr
    with serving(models, folder) as running:
        assert schema_version(folder) == 3
        before = httpx.get(f"{running.url}/v1/models/iris").json()
        body = {"ids": ["evt-12"], "labels": [["virginica"]], "id": "fix"}
        answer = httpx.post(f"{running.url}/v1/models/iris:correct?wait=true", json=body, timeout=20)
        assert (answer.status_code, answer.json()["events"][0]["seq"]) == (200, before["seq"] + 1)
        assert httpx.get(f"{running.url}/v1/models/iris").json()["weights_sha256"] != before["weights_sha256"]
    done = run_command("verify", "--refold", "--data", folder / "data")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_log_with_actors_opens_as_it_was_written(tmp_path: Path) -> None:
    """A log of schema 3 verifies up to the hash that its release reported, and lists the same events and actors."""
    expected = json.loads((ACTORS_GOLDEN / "expected.json").read_text())
    with tarfile.open(ACTORS_GOLDEN / "data.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert schema_version(tmp_path) == 3
    verified = json_lines(run_command("verify", "--json", "--data", tmp_path / "data"))
    assert [(one["hash"], one["damage"]) for one in verified if "hash" in one] == [(expected["hash"], [])]
    assert json_lines(run_command("events", "iris", "--json", "--data", tmp_path / "data")) == expected["events"]
    assert len({event["actor"] for event in expected["events"]}) == 5
