"""Real services that share a log in PostgreSQL have the same API keys, also while the database is down."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.access.key_file import read_keys
from tests.support.api_keys import bearer
from tests.support.data_directories import json_lines, run_command
from tests.support.learning_client import IRIS
from tests.support.postgres_servers import PostgresCluster
from tests.support.processes import CLIENT, ROW, SECONDS, workers
from tests.support.running_service import Service, serving, start
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until

NO_KEY = "none"


class Replicas(NamedTuple):
    """Two services of one log, each of which reaches it through a relay."""

    services: tuple[Service, Service]
    folders: tuple[Path, Path]
    relay: TcpRelay
    address: str

    def run_keys(self, *argv: object) -> str:
        """Run `softstep keys` on the log; return what it prints."""
        done = run_command("keys", *argv, "--log", self.address)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def statuses(self, *keys: str) -> list[set[int]]:
        """Return the statuses that each key gets from both services."""
        return [{status(service.url, key) for service in self.services} for key in keys]


def status(url: str, key: str) -> int:
    return CLIENT.post(f"{url}/v1/models/iris:predict", json=ROW, headers=[bearer(key)]).status_code


@pytest.fixture(autouse=True)
def single_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server has no standby."""
    monkeypatch.setenv("SOFTSTEP_LOG_COPIES", "1")


@pytest.fixture
def replicas(models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str) -> Iterator[Replicas]:
    """Two services without keys."""
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay, contextlib.ExitStack() as stack:
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        folders = tmp_path / "a", tmp_path / "b"
        services = []
        for folder in folders:
            folder.mkdir()
            settings = {"SOFTSTEP_LOG": through, "SOFTSTEP_LOG_COPIES": 1, "SOFTSTEP_LOG_SECONDS": 1}
            services.append(stack.enter_context(serving(models, folder, **settings)))
        yield Replicas((services[0], services[1]), folders, relay, address)


def test_all_replicas_have_the_keys(replicas: Replicas) -> None:
    """The first key closes all; a revoked one is refused by all, and stays refused while the database is down."""
    assert replicas.statuses(NO_KEY) == [{200}]
    first = replicas.run_keys("create", "--name", "first", "--scopes", "predict,feedback")
    wait_until(lambda: replicas.statuses(first, NO_KEY) == [{200}, {401}], SECONDS)
    second = replicas.run_keys("create", "--name", "second")
    wait_until(lambda: replicas.statuses(second) == [{200}], SECONDS)
    rotated = replicas.run_keys("rotate", second[9:17], "--overlap", "0s")
    wait_until(lambda: replicas.statuses(rotated, second) == [{200}, {401}], SECONDS)
    replicas.run_keys("revoke", second[9:17])
    wait_until(lambda: replicas.statuses(rotated) == [{401}], SECONDS)
    url = f"{replicas.services[0].url}/v1/models/iris:feedback"
    body = {"id": "one", "instances": [IRIS], "labels": [0]}
    assert CLIENT.post(url, json=body, headers=[bearer(first)]).status_code == 202
    (event,) = json_lines(run_command("events", "iris", "--log", replicas.address, "--json"))
    assert event["actor"] == f"key:{first[9:17]}"
    replicas.relay.cut()
    for service in replicas.services:
        killed = workers(service.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda pid=service.process.pid, killed=killed: killed not in workers(pid), SECONDS)

    def are_answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return replicas.statuses(first, rotated, second, NO_KEY) == [{200}, {401}, {401}, {401}]
        return False

    wait_until(are_answered, SECONDS)
    replicas.relay.mend()
    third = replicas.run_keys("create", "--name", "third")
    wait_until(lambda: replicas.statuses(third, rotated) == [{200}, {401}], SECONDS)
    check_records(replicas)


def check_records(replicas: Replicas) -> None:
    """The audit of the log has every change once, the files of the services none, and each has a copy."""
    entries = json_lines(run_command("keys", "audit", "--log", replicas.address))
    actions = ["create_key", "create_key", "rotate_key", "revoke_key", "create_key"]
    assert [entry["action"] for entry in entries] == actions
    assert all(entry["actor"].startswith("user:") and entry["outcome"] == "done" for entry in entries)
    for folder in replicas.folders:
        keys = read_keys(folder / "data" / "keys.json")
        assert (keys.copy_of, len(keys.keys)) == ("log", 3)
        assert not (folder / "data" / "audit.jsonl").exists()
        refused = run_command("keys", "create", "--name", "fourth", "--data", folder / "data")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "--log" in refused.stderr


def test_a_damaged_document_changes_nothing(replicas: Replicas, postgres_server: PostgresCluster) -> None:
    """What another program writes into the database is logged once by each service."""
    key = replicas.run_keys("create", "--name", "first")
    wait_until(lambda: replicas.statuses(key, NO_KEY) == [{200}, {401}], SECONDS)
    name = replicas.address.rpartition("/")[2]
    for value in (b"\0", b"no keys at all", b" " * (9 << 20)):
        postgres_server.execute("UPDATE facts SET value = %s WHERE name = 'api_keys'", value, database=name)
        before = [log_of(service).count("keys_not_read") for service in replicas.services]
        wait_until(
            lambda before=before: all(
                log_of(service).count("keys_not_read") > count
                for service, count in zip(replicas.services, before, strict=True)
            ),
            SECONDS,
        )
        assert replicas.statuses(key, NO_KEY) == [{200}, {401}]
    assert [log_of(service).count("keys_not_read") for service in replicas.services] == [3, 3]
    postgres_server.execute("DELETE FROM facts WHERE name = 'api_keys'", database=name)
    other = replicas.run_keys("create", "--name", "other")
    wait_until(lambda: replicas.statuses(other, key, NO_KEY) == [{200}, {401}, {401}], SECONDS)


def log_of(service: Service) -> str:
    return service.log.read_text()


@pytest.mark.parametrize("keyed", [False, True])
def test_a_start_without_database_is_closed(
    models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str, *, keyed: bool
) -> None:
    """Without a copy every call is refused until the log has said whether there are keys; with one, its keys count."""
    key, known = NO_KEY, (200, 200)
    if keyed:
        known = (200, 401)
        key = run_command("keys", "create", "--name", "first", "--log", address).stdout.strip()
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay:
        relay.cut()
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))},
            "SOFTSTEP_PORT": "0", "SOFTSTEP_DRAIN_SECONDS": "0", "SOFTSTEP_LOG": through, "SOFTSTEP_LOG_COPIES": "1",
            "SOFTSTEP_LOG_SECONDS": "1", "SOFTSTEP_SERVE_UNLEARNED": "true", "SOFTSTEP_OPEN": "true",
        }  # fmt: skip
        for attempt in range(2 if keyed else 1):
            with started(models, tmp_path, variables) as service:
                expected = [(401, 401), (200, 401)][attempt]
                assert statuses(service, key, NO_KEY) == expected
                assert ("keys_unknown" in log_of(service)) is (attempt == 0)
                assert "open_service" not in log_of(service)
                if attempt == 0:
                    relay.mend()
                    wait_until(lambda service=service: statuses(service, key, NO_KEY) == known, SECONDS)
                    relay.cut()
                    assert statuses(service, key, NO_KEY) == known


@contextlib.contextmanager
def started(models: Path, folder: Path, variables: dict[str, str]) -> Iterator[Service]:
    """Start a service that need not be ready."""
    log = folder / "log"
    with log.open("w") as errors:
        process = start(["serve", "--models", str(models), "--data", str(folder / "data")], variables, errors)
    assert process.stdout is not None
    try:
        service = Service(process.stdout.readline().split()[2], process, log)
        wait_until(lambda: is_answering(service), SECONDS)
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        process.stdout.close()


def statuses(service: Service, *keys: str) -> tuple[int, ...]:
    return tuple(status(service.url, key) for key in keys)


def is_answering(service: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return status(service.url, NO_KEY) in {200, 401}
    return False
