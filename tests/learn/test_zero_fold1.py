"""Streams of fold 1 from zero weights go on with newton or ftrl, though such models learn by mixture now.

Their data directory was written by the release whose fold had version 1 (make_zero_fold1.py).
"""

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.learn.follow import Follower
from service.learn.replay import StreamReplay
from service.learn.state import LearnerState
from service.store.artifact.artifact import read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.hashing import hash_weights
from service.store.directory.bound_artifact import read_bound_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump
from service.store.log.events import Draft, Kind, Stream
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import read_fields
from tests.support.data_directories import run_command
from tests.support.make_zero_fold1 import BEFORE, BYTES_MAX, GOLDEN, LAST, MODELS, append, fold

EXPECTED: dict[str, dict[str, str]] = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """Copy the release's data directory."""
    with tarfile.open(GOLDEN / "data.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return DataDirectory(tmp_path / "data")


@pytest.fixture
def log(data: DataDirectory) -> Iterator[SqliteLog]:
    """Open its log."""
    with closing(SqliteLog(data.log)) as log:
        yield log


def stream_of(log: SqliteLog, name: str) -> Stream:
    """Return the stream of a model."""
    (stream,) = [one for one in log.list_streams() if one.model == name]
    return stream


def follow(data: DataDirectory, log: SqliteLog, name: str) -> Follower:
    """Return the follower of a stream, as a learner has it at its start."""
    folder, stream = data.stream_folder(name, 1), stream_of(log, name)
    return Follower(stream, read_bound_artifact(folder, stream, BYTES_MAX), log, folder)


def replayed_hash(data: DataDirectory, log: SqliteLog, name: str, seq: int) -> str:
    """Return the hash of state(seq), from the log and the artifact alone."""
    stream = stream_of(log, name)
    replay = StreamReplay(stream, read_bound_artifact(data.stream_folder(name, 1), stream, BYTES_MAX), log)
    list(replay.fold_to(seq))
    return hash_weights(replay.fold.state.served_parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_goes_on_with_its_rule_to_the_bit(name: str, data: DataDirectory, log: SqliteLog) -> None:
    """From the old checkpoint, and from the artifact, more events give the weights that the old release gave."""
    expected, model = EXPECTED[name], MODELS[name]
    snapshot = read_fields(data.stream_folder(name, 1).snapshots / str(BEFORE))
    assert (snapshot["learning"]["rule"], snapshot["weights_sha256"]) == (expected["rule"], expected["before"])
    assert replayed_hash(data, log, name, BEFORE) == expected["before"]
    append(log, stream_of(log, name).number, model, BEFORE + 1 + model.added, LAST)
    follower = follow(data, log, name)
    assert follower.seq == BEFORE
    learned = fold(follower)
    assert (learned["learning"]["rule"], learned["weights_sha256"]) == (expected["rule"], expected["after"])
    assert follower.fold.state.scalars()["fold_version"] == 1
    assert replayed_hash(data, log, name, LAST) == expected["after"]


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_that_begins_now_learns_by_mixture(name: str) -> None:
    """The same artifact has the genesis that it had, format 1, and another default."""
    source = MODELS[name].artifact()
    assert compute_genesis(source, 1).hex() == EXPECTED[name]["genesis"]
    assert source.manifest.format_version == 1
    assert LearnerState(source).rule_settings["rule"] == "mixture"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seq", [0, 5])
def test_a_rollback_keeps_the_rule(name: str, seq: int, data: DataDirectory, log: SqliteLog) -> None:
    """Also one to the artifact itself, from which the stream began."""
    stream = stream_of(log, name)
    log.append([Draft(stream.number, Kind.ROLLBACK, b"back", dump({"seq": seq}), 1)])
    follower = follow(data, log, name)
    fold(follower)
    while follower.is_refolding:
        follower.fold_batch(follower.read_next(9))
    learned: dict[str, Any] = follower.fold.state.rule_settings
    assert learned["rule"] == EXPECTED[name]["rule"]
    assert "regret" not in learned["constants"]


@pytest.mark.parametrize("name", MODELS)
def test_a_new_version_goes_on_with_the_rule(name: str, data: DataDirectory, tmp_path: Path) -> None:
    """An export names the rule of its stream, and so does a checkpoint's copy of the model."""
    done = run_command("export", name, tmp_path / "2", "--seq", BEFORE, "--data", data.path)
    assert done.returncode == 0, done.stderr
    exported = read_artifact(tmp_path / "2", BYTES_MAX)
    assert exported.manifest.format_version == 1
    assert exported.manifest.learning is not None
    assert exported.manifest.learning.rule == EXPECTED[name]["rule"]
    assert LearnerState(exported).rule_settings["rule"] == EXPECTED[name]["rule"]
    assert exported.weights_sha256 == EXPECTED[name]["before"]
    checkpoint = read_fields(data.stream_folder(name, 1).checkpoints / str(BEFORE))
    assert checkpoint["manifest"]["learning"]["rule"] == EXPECTED[name]["rule"]


def test_the_data_directory_verifies(data: DataDirectory) -> None:
    """Its states equal the fold of its events by this release."""
    assert run_command("verify", "--refold", "--data", data.path).returncode == 0
