"""What a service answers from a log in PostgreSQL that other services use too."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.store.artifact.fingerprint import compute_genesis
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.postgres import PostgresLog
from tests.support.data_directories import iris_artifact, row_payload
from tests.support.http_connection import Response
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import PostgresCluster
from tests.support.server_pair import Pair
from tests.support.waiting import wait_until

ROW = [6.0, 2.7, 5.1, 1.6]


@pytest.fixture
def log(address: str) -> Iterator[PostgresLog]:
    """The log, as another service has it."""
    with closing(PostgresLog(address, copies=1)) as opened:
        yield opened


@pytest.fixture
def pair(address: str, tmp_path: Path) -> Iterator[Pair]:
    """A server with that log, and with nothing else: neither the environment nor a data directory names it."""
    with Pair(SHIPPED, data=tmp_path / "data", log=address, log_copies="1") as running:
        yield running


def teach(log: PostgresLog, stream: Stream, *seeds: int) -> None:
    """Append events of one row each."""
    for outcome in log.append(
        [Draft(stream.number, Kind.FEEDBACK, b"%d" % seed, row_payload(seed), 1) for seed in seeds]
    ):
        assert isinstance(outcome, EventLocation), outcome


def ask(pair: Pair, call: str, **body: object) -> Response:
    return pair.ask(request("POST", f"/v1/models/iris:{call}", instances([ROW], **body)))[0]


def test_past_states_are_folded_from_the_log(pair: Pair, log: PostgresLog) -> None:
    """The process that folds has the service's log, and finds the artifact there."""
    for label in (0, 1, 2):
        assert ask(pair, "feedback", labels=[label]).status == 202
    assert ask(pair, "explain", seq=2).status == 202
    learning = pair.worker.learning
    assert learning is not None
    # No call of the service waits for the process that folds a past state.
    (task,) = learning.past_states._replays.values()
    wait_until(task.done, 60)
    past = ask(pair, "explain", seq=2)
    assert (past.status, past.json["seq"]) == (200, 2)
    now = ask(pair, "explain").json["explanations"][0]["probabilities"]
    assert past.json["explanations"][0]["probabilities"] != now
    (stream,) = log.list_streams()
    assert log.stream_state(stream.number).seq == 3


def test_a_stream_may_get_the_number_of_another(
    pair: Pair, log: PostgresLog, address: str, postgres_server: PostgresCluster
) -> None:
    """A failover may lose the opening of a stream; then the status is not that of the stream with its number now."""
    teach(log, log.open_stream("iris", 1, compute_genesis(iris_artifact()), 3), 1, 2)
    pulse = request("GET", "/v1/models/iris/pulse")
    assert pair.ask(pulse)[0].json["log_seq"] == 2
    assert pair.ask(request("GET", "/v1/models/iris"))[0].json["model_version_status"] is not None
    postgres_server.execute("UPDATE streams SET model = 'other'", database=address.rpartition("/")[2])
    pair.worker.counters.count_commit(1)  # what was read last counts no longer
    assert pair.ask(pulse)[0].json["log_seq"] == 0
    teach(log, log.open_stream("iris", 1, compute_genesis(iris_artifact()), 3), 3)
    pair.worker.counters.count_commit(1)
    assert pair.ask(pulse)[0].json["log_seq"] == 1
