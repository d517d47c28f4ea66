"""Real services that share a log in PostgreSQL: one order and one set of weights, whatever fails."""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store.log.postgres_schema import create_schema
from tests.support.learning_client import IRIS, metadata, post
from tests.support.postgres_servers import PostgresCluster, require_postgres, running_pair
from tests.support.processes import children, is_running, sum_counter
from tests.support.running_service import Service, serving, start
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import SECONDS, wait_until

CLASSES = ["setosa", "versicolor", "virginica"]


def replica(models: Path, scratch: Path, address: str, **more: object) -> contextlib.AbstractContextManager[Service]:
    """Run a service whose log is a database, in the environment because it has a password."""
    scratch.mkdir(exist_ok=True)
    return serving(models, scratch, SOFTSTEP_LOG=address, SOFTSTEP_LOG_COPIES=1, **more)


def teach(service: Service, *names: object, wait: bool = False) -> list[int]:
    """Send an event for each name; return their seqs."""
    seqs = []
    for name in names:
        row = [(hash_ % 70 + 1) / 10 for hash_ in (len(str(name)) * 7, *str(name).encode()[-3:].ljust(3))]
        body = {"id": str(name), "instances": [row], "labels": [CLASSES[sum(str(name).encode()) % 3]]}
        answer = post(service, "iris:feedback", body, wait=wait)
        assert answer.status_code == (200 if wait else 202), answer.text
        seqs.append(answer.json()["seq"])
    return seqs


def ready(service: Service) -> int:
    return httpx.get(f"{service.url}/readyz", timeout=SECONDS).status_code


def predict(service: Service, **members: object) -> Any:
    answer = post(service, "iris:predict", {"instances": [IRIS], **members})
    assert answer.status_code == 200, answer.text
    return answer.json()


def weights_at(service: Service, seq: int) -> str:
    """Wait until a service has learned exactly up to an event; return the hash of its weights."""
    wait_until(lambda: metadata(service, "iris")["seq"] >= seq, SECONDS)
    found = metadata(service, "iris")
    assert found["seq"] == seq
    return str(found["weights_sha256"])


def test_replicas_learn_the_same(iris_models: Path, tmp_path: Path, address: str) -> None:
    """Feedback to one is served by the other, also to a request that waits; a retry to the other is a duplicate."""
    with replica(iris_models, tmp_path / "a", address) as a, replica(iris_models, tmp_path / "b", address) as b:
        for number in range(5):
            (seq,) = teach(a, f"a{number}")
            assert predict(b, min_seq=seq)["seq"] >= seq
            (seq,) = teach(b, f"b{number}", wait=True)
            assert predict(a, min_seq=seq)["seq"] >= seq
        assert teach(b, "a0", "a4") == [1, 9]
        assert weights_at(a, 10) == weights_at(b, 10)
        refused = post(b, "iris:configure", {"paused": True, "if_seq": 3})
        assert refused.status_code == 409
        assert post(b, "iris:configure", {"paused": True, "if_seq": 10}).status_code in {200, 202}
        wait_until(lambda: metadata(a, "iris")["learning"]["paused"], SECONDS)
    assert not (tmp_path / "a" / "data" / "log.sqlite").exists()


def test_a_replica_without_its_data_is_ready_at_the_head(iris_models: Path, tmp_path: Path, address: str) -> None:
    """It is killed (-9), and its data directory is deleted: what was acknowledged is in the log."""
    with replica(iris_models, tmp_path / "a", address) as a:
        with contextlib.suppress(httpx.TransportError), replica(iris_models, tmp_path / "b", address) as b:
            teach(b, *range(20))
            processes = [b.process.pid, *children(b.process.pid)]
            for process in processes:
                os.kill(process, signal.SIGKILL)
            wait_until(lambda: not any(map(is_running, processes)), SECONDS)
        shutil.rmtree(tmp_path / "b" / "data")
        teach(a, *range(20, 30))
        with replica(iris_models, tmp_path / "b", address) as again:
            assert predict(again)["seq"] == 30
            assert weights_at(a, 30) == weights_at(again, 30)


def test_a_lost_database_stops_feedback_alone(
    iris_models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str
) -> None:
    """Predictions and readiness go on; feedback gets 503 with Retry-After, and is stored once the database is back."""
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay:
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        with replica(iris_models, tmp_path / "a", through, SOFTSTEP_LOG_SECONDS=1) as service:
            teach(service, "first", wait=True)
            relay.cut()
            refused = post(service, "iris:feedback", {"id": "second", "instances": [IRIS], "labels": [0]})
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert predict(service)["seq"] == 1
            assert ready(service) == 200
            relay.mend()
            body = {"id": "second", "instances": [IRIS], "labels": [0]}
            wait_until(lambda: post(service, "iris:feedback", body).status_code == 202, SECONDS)
            wait_until(lambda: predict(service)["seq"] == 2, SECONDS)


@pytest.mark.parametrize("unlearned", [False, True])
def test_a_start_without_database_is_not_ready(
    iris_models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str, *, unlearned: bool
) -> None:
    """It predicts with what it has, is ready once it has caught up, and may be told not to wait for that."""
    with replica(iris_models, tmp_path / "a", address) as service:
        teach(service, *range(3))
        wait_until(lambda: predict(service)["seq"] == 3, SECONDS)
    shutil.rmtree(tmp_path / "a" / "data")
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay:
        relay.cut()
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))},
            "SOFTSTEP_PORT": "0", "SOFTSTEP_DRAIN_SECONDS": "0", "SOFTSTEP_LOG": through, "SOFTSTEP_LOG_COPIES": "1",
            "SOFTSTEP_LOG_SECONDS": "1", "SOFTSTEP_SERVE_UNLEARNED": str(unlearned),
            # With a file of keys of its own, which there is not, the service is open without asking the log for keys.
            "SOFTSTEP_KEYS_FILE": str(tmp_path / "keys.json"),
        }  # fmt: skip
        log = tmp_path / "log"
        with log.open("w") as errors:
            arguments = ["serve", "--models", str(iris_models), "--data", str(tmp_path / "a" / "data")]
            process = start(arguments, variables, errors)
        assert process.stdout is not None
        try:
            service = Service(process.stdout.readline().split()[2], process, log)
            wait_until(lambda: is_answering(service), SECONDS)
            assert predict(service)["seq"] == 0
            assert ready(service) == (200 if unlearned else 503)
            refused = post(service, "iris:feedback", {"id": "4", "instances": [IRIS], "labels": [0]})
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            relay.mend()
            wait_until(lambda: ready(service) == 200 and predict(service)["seq"] == 3, SECONDS)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
            process.stdout.close()
        assert "log_not_reached" in log.read_text()
        assert "postgresql://" not in log.read_text()


def is_answering(service: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return post(service, "iris:predict", {"instances": [IRIS]}).status_code == 200
    return False


def test_a_failover_that_loses_events_is_a_fork(iris_models: Path, tmp_path: Path) -> None:
    """The standby lacks events that a replica has served, because nobody waits for it here: it goes back and goes on.

    Predictions go on meanwhile. In the end its weights are those of a replica that never saw the lost events.
    """
    require_postgres()
    with (
        running_pair(synchronous=False) as (primary, standby),
        TcpRelay(("127.0.0.1", primary.port)).running() as relay,
    ):
        name = primary.make_database(create_schema).rpartition("/")[2]
        through = primary.address(name, port=relay.port)
        limits = {"SOFTSTEP_LOG_SECONDS": 1, "SOFTSTEP_WAIT_SECONDS": 1}
        with replica(iris_models, tmp_path / "a", through, **limits) as service:
            teach(service, *range(20), wait=True)
            wait_until(lambda: last_position(standby, name) == last_position(primary, name), SECONDS)
            with primary.paused("walsender"):
                teach(service, *(f"lost{number}" for number in range(6)), wait=True)
                lost = weights_at(service, 26)
                primary.kill()
            relay.cut()
            standby.promote()
            relay.target = ("127.0.0.1", standby.port)
            relay.mend()
            wait_until(lambda: metadata(service, "iris")["learner"]["state"] == "held", SECONDS)
            assert sum_counter(service.url, "softstep_learn_held") == 1
            assert predict(service)["seq"] == 26
            assert ready(service) == 200
            body = {"id": "kept", "instances": [IRIS], "labels": [1]}
            wait_until(lambda: post(service, "iris:feedback", body).status_code == 202, SECONDS)
            assert post(service, "iris:feedback", body, wait=True).status_code == 409
            # The state of event 26 is served, but its event 21 is a lost one.
            asked = post(service, "iris:predict", {"instances": [IRIS], "min_seq": 21})
            assert (asked.status_code, asked.json()["code"]) == (409, "not_reached_yet")
            for number in range(7):
                body = {"id": f"kept{number}", "instances": [IRIS], "labels": [number % 3]}
                wait_until(lambda body=body: post(service, "iris:feedback", body).status_code == 202, SECONDS)
            wait_until(lambda: predict(service)["seq"] == 28, SECONDS)
            assert predict(service, min_seq=28)["seq"] == 28
            assert "softstep_log_forks_total 1.0\n" in httpx.get(f"{service.url}/metrics").text
            learned = weights_at(service, 28)
            assert metadata(service, "iris")["learner"]["state"] == "following"
            assert sum_counter(service.url, "softstep_learn_held") == 0
            with replica(iris_models, tmp_path / "b", through) as other:
                assert weights_at(other, 28) == learned != lost


def last_position(cluster: PostgresCluster, database: str) -> Any:
    return cluster.execute("SELECT max(position) FROM events", database=database)
