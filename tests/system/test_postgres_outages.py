"""A service whose feedback log is in PostgreSQL serves and learns on through outages of the database."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import PostgresCluster, require_postgres, running_pair
from tests.support.processes import CLIENT, ROW, predict, sum_counter
from tests.support.running_service import Service, serving
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until

SECONDS = 20.0


class Rig(NamedTuple):
    """A service, the relay between it and its database, the database's server, and the relay to the standby."""

    service: Service
    relay: TcpRelay
    cluster: PostgresCluster
    stream: TcpRelay

    def teach(self, name: str) -> httpx.Response:
        """Post one event."""
        return CLIENT.post(f"{self.service.url}/v1/models/iris:feedback", json={**ROW, "id": name, "labels": [1]})

    def teach_until_stored(self, name: str) -> int:
        """Post one event until it is acknowledged; return its seq."""
        seqs: list[int] = []

        def is_stored() -> bool:
            answer = self.teach(name)
            if answer.status_code == 202:
                seqs.append(answer.json()["seq"])
            return bool(seqs)

        wait_until(is_stored, SECONDS)
        return seqs[0]

    def served_seq(self) -> int:
        """Return the seq of the state that answers predictions, which must succeed."""
        answer = predict(self.service.url)
        assert answer.status_code == 200
        return int(answer.json()["seq"])


@pytest.fixture(scope="module")
def rig(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A service that reaches its database through a relay, with one event that is stored."""
    require_postgres()
    with (
        TcpRelay("").running() as stream,
        running_pair(relay=stream) as (cluster, _),
        TcpRelay(("127.0.0.1", cluster.port)).running() as relay,
    ):
        database = cluster.make_database(create_schema).rpartition("/")[2]
        with serving(
            models,
            tmp_path_factory.mktemp("outages"),
            SOFTSTEP_LOG=cluster.address(database, port=relay.port),
            SOFTSTEP_LOG_SECONDS=1,
        ) as service:
            rig = Rig(service, relay, cluster, stream)
            rig.teach_until_stored("first")
            yield rig


def cut(rig: Rig) -> None:
    """Reset each connection to the database."""
    rig.relay.cut()


def stall(rig: Rig) -> None:
    """Let no byte pass to the database and back."""
    rig.relay.stall()


def stop(rig: Rig) -> None:
    """Stop the database's server."""
    rig.cluster.stop(signal.SIGQUIT)


def lose_standby(rig: Rig) -> None:
    """Cut the standby off, so that no COMMIT returns."""
    rig.stream.cut()


def reads_log(rig: Rig) -> bool:
    """Return whether the last look of the learner at the log succeeded, as a metric has it."""
    return sum_counter(rig.service.url, "softstep_log_readable") == 1


def end(rig: Rig) -> None:
    """End each outage."""
    rig.stream.mend()
    rig.relay.mend()
    rig.relay.resume()
    if not rig.cluster.is_running:
        rig.cluster.start()


@pytest.mark.parametrize("outage", [cut, stall, stop, lose_standby])
def test_predictions_go_on_and_feedback_comes_back(rig: Rig, outage: Callable[[Rig], None]) -> None:
    """In an outage predictions are answered, feedback gets 503 with Retry-After, and readiness stays.

    Without the standby too: what is stored on one server alone is neither acknowledged nor learned. Afterwards the same
    ids are stored once, and the service learns them. A metric says whether the learner can read the log.
    """
    name = outage.__name__
    before = rig.teach_until_stored(f"{name} before")
    wait_until(lambda: rig.served_seq() == before, SECONDS)
    outage(rig)
    try:
        for number in range(3):
            refused = rig.teach(f"{name} {number}")
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert rig.served_seq() == before
            assert CLIENT.get(f"{rig.service.url}/readyz").status_code == 200
        wait_until(lambda: reads_log(rig) == (outage is lose_standby), SECONDS)
    finally:
        end(rig)
    seqs = [rig.teach_until_stored(f"{name} {number}") for number in range(3)]
    assert sorted(seqs) == [before + 1, before + 2, before + 3]
    assert [rig.teach_until_stored(f"{name} {number}") for number in range(3)] == seqs
    wait_until(lambda: rig.served_seq() == before + 3 and reads_log(rig), SECONDS)
