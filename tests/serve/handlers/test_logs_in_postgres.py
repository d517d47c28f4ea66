"""What a service answers from a log in PostgreSQL that other services use too."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.process.shared_memory import LOG_DOUBTS
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import store_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import SEQ_BITS, Draft, EventLocation, Kind, Stream
from service.store.log.postgres import PostgresLog
from service.store.states.snapshots import write_snapshot
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


def test_a_past_state_that_cannot_be_folded_is_logged(
    pair: Pair, address: str, postgres_server: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request gets 202, as if the fold went on; the service's log says why it fails."""
    for label in (0, 1):
        assert ask(pair, "feedback", labels=[label]).status == 202
    postgres_server.execute("DELETE FROM blobs", database=address.rpartition("/")[2])
    assert ask(pair, "explain", seq=1).status == 202
    wait_until(lambda: "cannot be folded" in caplog.text, 60)
    assert caplog.messages[-1] == (
        "the state of model iris version 1 at seq 1 cannot be folded: "
        "the log lacks the artifact of the stream; restore a backup of its database"
    )


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


def test_feedback_stays_with_its_model(
    pair: Pair, log: PostgresLog, address: str, postgres_server: PostgresCluster
) -> None:
    """A failover loses the stream of one model, and another model gets its number: neither gets events of the other."""
    assert ask(pair, "feedback", labels=[0]).status == 202
    for statement in (
        "DELETE FROM events",
        "DELETE FROM streams",
        "ALTER TABLE streams ALTER COLUMN number RESTART WITH 1",
    ):
        postgres_server.execute(statement, database=address.rpartition("/")[2])
    body = instances([[0.5] * 18], labels=[0])
    assert pair.ask(request("POST", "/v1/models/segment:feedback", body))[0].status == 202
    assert ask(pair, "feedback", labels=[1]).status == 202
    found = {stream.model: (stream.number, log.stream_state(stream.number).seq) for stream in log.list_streams()}
    assert found == {"segment": (1, 1), "iris": (2, 1)}


class Branches:
    """A stream of iris whose database loses events, and the states that a replica has of them.

    Args:
        address: The address of the log.
        cluster: Its server.
        data: The replica's data directory.
    """

    def __init__(self, address: str, cluster: PostgresCluster, data: Path) -> None:
        self._name = address.rpartition("/")[2]
        self._cluster = cluster
        self.log = PostgresLog(address, copies=1)
        self.stream = self.log.open_stream("iris", 1, compute_genesis(iris_artifact()), 3)
        self._folder = DataDirectory(data).stream_folder("iris", 1)
        self._folder.path.mkdir(parents=True)
        store_artifact(self._folder, iris_artifact())

    def write(self, seq: int, folder: str) -> None:
        """Write the state at a seq as the replica's learner does."""
        replay = StreamReplay(self.stream, iris_artifact(), self.log)
        list(replay.fold_to(seq))
        contents = snapshot_contents(replay.fold, replay.position_fields())
        write_snapshot(getattr(self._folder, folder), seq, *contents, durable=False)

    def lose(self, seq: int) -> None:
        """Lose the events after a seq, as a failover does."""
        first = self.stream.number << SEQ_BITS
        statement = "UPDATE streams SET seq = %s, hash = (SELECT hash FROM events WHERE position = %s)"
        self._cluster.execute(statement, seq, first + seq, database=self._name)
        self._cluster.execute("DELETE FROM events WHERE position > %s", first + seq, database=self._name)


@pytest.fixture
def branches(address: str, postgres_server: PostgresCluster, tmp_path: Path) -> Iterator[Branches]:
    """Five events, of which the replica serves the last state and stores that of the third."""
    made = Branches(address, postgres_server, tmp_path / "data")
    teach(made.log, made.stream, 1, 2, 3, 4, 5)
    made.write(3, "keyframes")
    made.write(5, "snapshots")
    with closing(made.log):
        yield made


@pytest.mark.parametrize("call", ["predict", "explain"])
def test_min_seq_is_an_event_of_the_log_as_it_is_now(
    call: str, branches: Branches, address: str, tmp_path: Path
) -> None:
    """A state of lost events does not count for a client whose event has the seq of one of them now."""
    options = {"log": address, "log_copies": "1", "min_seq_seconds": 0.5}
    with Pair(SHIPPED, data=tmp_path / "data", **options) as pair:

        def statuses(*seqs: int) -> list[int]:
            return [ask(pair, call, min_seq=seq).status for seq in seqs]

        def doubt() -> None:
            """As the learner does when it looks."""
            pair.shared_memory.learner_cells[LOG_DOUBTS] += 1

        assert statuses(1, 5) == [200, 200]
        doubt()
        assert statuses(5, 1) == [200, 200]  # the log has all that is served
        branches.lose(4)
        assert statuses(5) == [200]  # until the learner looks
        doubt()
        assert statuses(1, 3, 4, 5) == [200, 200, 409, 409]  # it waits for a longer log
        teach(branches.log, branches.stream, 6, 7)
        assert statuses(3, 4) == [200, 409]
        doubt()
        assert statuses(1, 3, 6) == [409, 409, 409]  # it goes back in a moment
        assert ask(pair, call).json["seq"] == 5
        branches.write(6, "snapshots")
        pair.run(pair.worker.registry.serve_snapshots())
        assert statuses(6, 1) == [200, 200]
        assert ask(pair, call, min_seq=5).json["seq"] == 6


def test_a_request_waits_until_the_learner_has_gone_back(branches: Branches, address: str, tmp_path: Path) -> None:
    """It is answered from the first state that has the event."""
    with Pair(SHIPPED, data=tmp_path / "data", log=address, log_copies="1", min_seq_seconds=30.0) as pair:
        branches.lose(3)
        teach(branches.log, branches.stream, 6, 7)
        pair.shared_memory.learner_cells[LOG_DOUBTS] += 1

        async def waiting() -> Response:
            async with pair.connect() as client:
                asked = asyncio.ensure_future(
                    client.ask(request("POST", "/v1/models/iris:predict", instances([ROW], min_seq=4)))
                )
                await asyncio.sleep(0.2)
                assert not asked.done()
                branches.write(5, "snapshots")
                await pair.worker.registry.serve_snapshots()
                return await asked

        lost = ask(pair, "predict").json
        answer = pair.run(waiting())
        assert (answer.status, answer.json["seq"], lost["seq"]) == (200, 5, 5)
        assert answer.json["predictions"] != lost["predictions"]
