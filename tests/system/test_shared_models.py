"""Real services that share a log unload and load models together, and remember it."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.serve.grpc.grpc_messages import message_class
from service.store.log.postgres import PostgresLog
from tests.support.grpc_service import grpc_calls, grpc_target
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import PostgresCluster
from tests.support.processes import CLIENT, children, kill, predict, workers
from tests.support.running_service import Service, serving
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import SECONDS, wait_until

NEVER = 600  # seconds between two scans that nothing has requested
REQUESTS = 16  # so many reach each of two workers


@pytest.fixture
def two_models(iris_models: Path) -> Path:
    """A models directory with iris and a copy of it."""
    shutil.copytree(SHIPPED / "iris", iris_models / "second")
    return iris_models


def replica(models: Path, scratch: Path, address: str, **more: Any) -> contextlib.AbstractContextManager[Service]:
    scratch.mkdir(exist_ok=True)
    options = {"SOFTSTEP_SCAN_SECONDS": NEVER, "SOFTSTEP_GRPC_PORT": 0, "SOFTSTEP_LOG_COPIES": 1, **more}
    return serving(models, scratch, SOFTSTEP_LOG=address, **options)


def change(service: Service, do: str, model: str = "second") -> httpx.Response:
    """Load or unload a model."""
    return CLIENT.post(f"{service.url}/v2/repository/models/{model}/{do}", headers={"x-request-id": do})


def change_by_grpc(service: Service, do: str, model: str = "second") -> grpc.StatusCode:
    """Load or unload a model; return the status of gRPC."""
    request = message_class(f"inference.RepositoryModel{do}Request")(model_name=model)
    with grpc_calls(grpc_target(service)) as calls:
        return calls.ask(f"RepositoryModel{do}", request).status


def statuses(service: Service, model: str = "second") -> set[int]:
    """Return the statuses of predictions by all workers."""
    return {predict(service.url, model).status_code for _ in range(REQUESTS)}


def wait_statuses(status: int, *services: Service) -> None:
    for service in services:
        wait_until(lambda service=service: statuses(service) == {status}, SECONDS)


def test_replicas_unload_and_load_together(two_models: Path, tmp_path: Path, address: str) -> None:
    """Whichever gets the call, by HTTP or gRPC; each reads its own files; restarts and a new replica change nothing."""
    with (
        replica(two_models, tmp_path / "a", address) as a,
        replica(two_models, tmp_path / "b", address, workers=2) as b,
    ):
        assert change(a, "unload").status_code == 200
        assert statuses(a) == {503}
        wait_statuses(503, b)
        assert statuses(a, "iris") == statuses(b, "iris") == {200}
        shutil.copytree(SHIPPED / "iris" / "1", two_models / "second" / "2")
        kill(learner(a))
        assert change_by_grpc(b, "Load") == grpc.StatusCode.OK
        assert statuses(b) == {200}
        wait_statuses(200, a)
        assert {predict(one.url, "second").json()["model_version"] for one in (a, b)} == {"2"}
        assert change_by_grpc(b, "Unload") == grpc.StatusCode.OK
        wait_statuses(503, a)
    others = tmp_path / "others"
    shutil.copytree(SHIPPED / "iris", others / "iris")
    with (
        replica(others, tmp_path / "a", address) as a,
        replica(two_models, tmp_path / "b", address) as b,
        replica(two_models, tmp_path / "new", address) as new,
    ):
        assert (statuses(a), statuses(b), statuses(new)) == ({404}, {503}, {503})
        assert change(new, "load").status_code == 200
        assert statuses(new) == {200}
        wait_statuses(200, b)
        assert change(a, "unload").status_code == 404
        assert (statuses(a), statuses(a, "iris"), statuses(b)) == ({404}, {200}, {200})
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
        notes = [json.loads(note.content) for note in log.facts.read_notes(0, 10)]
    files = [line | {"time": ""} for name in ("a", "b", "new") for line in audit_lines(tmp_path / name)]
    assert [note | {"time": ""} for note in notes] == files
    assert [(note["action"], note["object"]) for note in notes] == 2 * [("unload", "second"), ("load", "second")]


def learner(service: Service) -> int:
    """Return the process of a service's learner."""
    (process,) = set(children(service.process.pid)) - set(workers(service.process.pid))
    return process


def audit_lines(scratch: Path) -> list[Any]:
    """Return the entries of a replica's own audit log."""
    return [json.loads(line) for line in (scratch / "data" / "audit.jsonl").read_text().splitlines()]


def test_a_lost_database_changes_nothing(
    two_models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str
) -> None:
    """Calls get 503 with Retry-After, predictions go on, and a start uses the list that was followed last."""
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay:
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        more: dict[str, object] = {"SOFTSTEP_LOG_SECONDS": 1, "SOFTSTEP_SERVE_UNLEARNED": "true"}
        more["SOFTSTEP_KEYS_FILE"] = tmp_path / "keys.json"  # missing: open without asking the log for keys
        with replica(two_models, tmp_path / "a", through, **more) as service:
            relay.cut()
            for do in ("unload", "load"):
                refused = change(service, do)
                assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable")
                assert int(refused.headers["retry-after"]) >= 1
                assert statuses(service) == statuses(service, "iris") == {200}
            assert change_by_grpc(service, "Unload") == grpc.StatusCode.UNAVAILABLE
            relay.mend()
            wait_until(lambda: change(service, "unload").status_code == 200, SECONDS)
            assert statuses(service) == {503}
            relay.cut()
            assert change(service, "load").status_code == 503
            assert statuses(service) == {503}
        with replica(two_models, tmp_path / "a", through, **more) as service:
            assert statuses(service) == {503}
            assert statuses(service, "iris") == {200}
            relay.mend()
            wait_until(lambda: change(service, "load").status_code == 200, SECONDS)
            assert statuses(service) == {200}
