"""Corrections with a running service: the served weights are those of the right labels, to the bit."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.store.log.events import Event, Kind
from service.store.log.sqlite import SqliteLog
from tests.support.data_directories import json_lines, run_command
from tests.support.learning_client import caught_up, data_of, metadata, post, rows_of
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

ROWS = 12
SOFT = [0.123456, 0.7, 0.176544]


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Two equal versions of iris."""
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "iris" / "1", tmp_path / "models" / "iris" / version)
    return tmp_path / "models"


def teach(service: Service, version: int, labels: list[int]) -> None:
    """Post one row for each label to a version."""
    for number, (row, label) in enumerate(zip(rows_of("iris", len(labels)), labels, strict=True)):
        body = {"id": f"{version}-{number}", "instances": [row], "labels": [label]}
        assert post(service, f"iris/versions/{version}:feedback", body).status_code == 202


def admin(service: Service, call: str, **body: Any) -> Any:
    """Send an admin call, wait until it is served, and return the answer."""
    answer = post(service, f"iris:{call}", body, wait=True)
    assert answer.status_code == 200, answer.text
    return answer.json()


def weights(service: Service, version: int, seq: int | None = None) -> httpx.Response:
    """Ask for the weights of a version, by default the served ones."""
    query = {} if seq is None else {"seq": seq}
    return httpx.get(f"{service.url}/v1/models/iris/versions/{version}/weights", params=query, timeout=20)


def weights_hash(service: Service, version: int) -> str:
    """Return the hash of the served weights of a version."""
    return str(caught_up(service, f"iris/versions/{version}")["weights_sha256"])


def replayed_hash(service: Service, version: int) -> str:
    """Return the hash of the weights that `softstep replay` makes of the log and the artifact."""
    (result,) = json_lines(run_command("replay", f"iris/{version}", "--json", "--data", data_of(service)))
    return str(result["weights_sha256"])


def stored(service: Service, version: int) -> list[Event]:
    """Return every event of a version."""
    with closing(SqliteLog(data_of(service) / "log.sqlite")) as log:
        (number,) = [stream.number for stream in log.list_streams() if stream.version == version]
        return log.read_events(number, 0, 1000)


def test_a_corrected_label_counts_as_if_it_had_been_posted(versions: Path, tmp_path: Path) -> None:
    """Corrected weights equal those of right labels; a rollback, a forget and a kill change that as they should."""
    right = [number % 3 for number in range(ROWS)]
    wrong = [1, 2, *right[2:]]
    with serving(versions, tmp_path, workers=2) as service:
        teach(service, 1, wrong)
        teach(service, 2, right)
        wait_until(lambda: metadata(service, "iris/versions/2")["seq"] == ROWS)
        wait_until(lambda: metadata(service, "iris/versions/1")["seq"] == ROWS)
        before = weights_hash(service, 1)
        answer = admin(service, "correct", id="fix", ids=["1-0", "1-1"], labels=[["setosa"], [1]])
        assert [event["seq"] for event in answer["events"]] == [ROWS + 1, ROWS + 2]
        assert weights_hash(service, 1) == weights_hash(service, 2) != before
        wait_until(lambda: weights(service, 1, ROWS).status_code == 200, 20)
        assert weights(service, 1, ROWS).headers["x-softstep-weights-sha256"] == before
        service.process.kill()
        service.process.wait()
    with serving(versions, tmp_path) as service:
        assert weights_hash(service, 1) == weights_hash(service, 2) != before
        assert replayed_hash(service, 1) == weights_hash(service, 1)
        back = post(service, "iris/versions/1:rollback", {"seq": ROWS}, wait=True)
        assert (back.status_code, weights_hash(service, 1)) == (200, before)
        admin(service, "correct", ids=["1-0", "1-1"], labels=[[SOFT], [1]])
        assert weights_hash(service, 1) == replayed_hash(service, 1)
        needle = np.array(SOFT, np.float32).tobytes()
        assert needle in (stored(service, 1)[-2].payload or b"")
        admin(service, "forget", ids=["1-0", "2-0"])
        wait_until(lambda: metadata(service, "iris/versions/1")["erased"] is True)
        corrections = [event for event in stored(service, 1) if event.kind == Kind.CORRECT]
        assert [event.payload is None for event in corrections] == [True, False, True, False]
        assert not [path for path in data_of(service).rglob("*") if path.is_file() and needle in path.read_bytes()]
        done = run_command("verify", "--refold", "--data", data_of(service))
        assert (done.returncode, done.stderr, done.stdout.count("good")) == (0, "", 2)
