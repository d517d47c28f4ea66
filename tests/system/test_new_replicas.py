"""Real services that share a log get from it what they lack: artifact, newest state, token key."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from service.learn.state_exchange import SHARED_EVENTS
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.postgres import PostgresLog
from service.store.states.state_folder import list_seqs
from tests.support.learning_client import IRIS, metadata, post
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS, wait_until

LABELED = {"instances": [IRIS], "labels": ["setosa"]}
MORE = 40  # events after the last state that is shared
BATCH = 4096


def replica(models: Path, scratch: Path, address: str, **more: object) -> contextlib.AbstractContextManager[Service]:
    scratch.mkdir(exist_ok=True)
    return serving(models, scratch, SOFTSTEP_LOG=address, SOFTSTEP_LOG_COPIES=1, **more)


def folder(scratch: Path) -> StreamFolder:
    return DataDirectory(scratch / "data", create=False).stream_folder("iris", 1)


def artifact_files(scratch: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder(scratch).artifact.iterdir()}


def append_rows(address: str, events: int) -> None:
    """Append feedback to the stream of iris."""
    random = np.random.default_rng(5)
    rows, labels = random.standard_normal((events, 4)).astype(np.float32), random.integers(0, 3, events)
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
        (stream,) = log.list_streams()
        for start in range(0, events, BATCH):
            numbers = range(start, min(start + BATCH, events))
            log.append(
                [
                    Draft(
                        stream.number,
                        Kind.FEEDBACK,
                        b"row %d" % one,
                        encode_rows(rows[one : one + 1], labels[one : one + 1], Targets.INDEX, 3),
                        0,
                    )
                    for one in numbers
                ]
            )


def learned(service: Service, seq: int) -> str:
    """Wait until a service has learned up to an event; return the hash of its weights."""
    wait_until(lambda: metadata(service, "iris")["seq"] == seq, SECONDS)
    return str(metadata(service, "iris")["weights_sha256"])


def test_a_new_replica_begins_with_the_newest_state(iris_models: Path, tmp_path: Path, address: str) -> None:
    """It folds only what came after the last state that another one has stored, and its states are compared."""
    last = SHARED_EVENTS + MORE
    with replica(iris_models, tmp_path / "a", address) as a:
        assert post(a, "iris:feedback", {"id": "first", **LABELED}).status_code == 202
        append_rows(address, last - 1)
        weights = learned(a, last)
        with contextlib.closing(PostgresLog(address, copies=1)) as log:
            wait_until(lambda: len(log.states.newest(1)) == 1, SECONDS)
        with replica(iris_models, tmp_path / "b", address) as b:
            assert metadata(b, "iris")["seq"] == last
            assert learned(b, last) == weights
            checkpoint = str(SHARED_EVENTS)
            ours, theirs = (folder(tmp_path / name).checkpoints / checkpoint for name in "ab")
            assert ours.read_bytes() == theirs.read_bytes()
            assert min(list_seqs(folder(tmp_path / "b").keyframes), default=last) > SHARED_EVENTS
            assert "state_diverged" not in a.log.read_text() + b.log.read_text()


def test_replicas_use_the_files_that_the_stream_began_with(iris_models: Path, tmp_path: Path, address: str) -> None:
    """Also one whose models directory has other notes about the same model, and one whose data directory is new."""
    other = tmp_path / "other"
    shutil.copytree(iris_models, other)
    manifest = other / "iris" / "1" / "model.json"
    fields = json.loads(manifest.read_text())
    fields["provenance"] = {"note": "made elsewhere"}
    manifest.write_text(json.dumps(fields))
    with replica(iris_models, tmp_path / "a", address) as a, replica(other, tmp_path / "b", address) as b:
        assert post(a, "iris:feedback", {"id": "first", **LABELED}, wait=True).status_code == 200
        assert post(b, "iris:feedback", {"id": "second", **LABELED}, wait=True).status_code == 200
        assert learned(a, 2) == learned(b, 2)
        assert artifact_files(tmp_path / "a") == artifact_files(tmp_path / "b")


def test_a_token_of_one_replica_is_accepted_by_another(iris_models: Path, tmp_path: Path, address: str) -> None:
    """They have one key, which is in the log."""
    with replica(iris_models, tmp_path / "a", address) as a, replica(iris_models, tmp_path / "b", address) as b:
        answer: Any = post(a, "iris:predict", {"instances": [IRIS], "feedback_tokens": True}).json()
        body = {"tokens": answer["feedback_tokens"], "labels": ["setosa"]}
        taught = post(b, "iris:feedback", body)
        assert taught.status_code == 202, taught.text
    key = (tmp_path / "a" / "data" / "token.key").read_text().strip()
    assert key == (tmp_path / "b" / "data" / "token.key").read_text().strip()


def test_rows_are_erased_once_no_replica_has_them(iris_models: Path, tmp_path: Path, address: str) -> None:
    """The metadata say so, and until when archives of the database may have them."""
    kept = {"SOFTSTEP_LOG_ARCHIVE_SECONDS": 60}
    with (
        replica(iris_models, tmp_path / "a", address) as a,
        replica(iris_models, tmp_path / "b", address, **kept) as b,
    ):
        for number in range(4):
            assert post(a, "iris:feedback", {"id": str(number), **LABELED}, wait=True).status_code == 200
        assert "archived_until_ms" not in metadata(b, "iris")
        before = time.time_ns() // 1_000_000
        assert post(b, "iris:forget", {"ids": ["2"]}).status_code in {200, 202}
        for service in (a, b):
            wait_until(lambda service=service: metadata(service, "iris")["seq"] == 5, SECONDS)
            wait_until(lambda service=service: metadata(service, "iris")["erased"], SECONDS)
        assert learned(a, 5) == learned(b, 5)
        assert "archived_until_ms" not in metadata(a, "iris")
        now = time.time_ns() // 1_000_000
        assert before + 60_000 <= metadata(b, "iris")["archived_until_ms"] <= now + 60_000
