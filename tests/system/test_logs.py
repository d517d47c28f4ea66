"""The log of a whole service: its events, their fields, and what it leaves out."""

import json
import shutil
from pathlib import Path
from typing import Any

from service.log_event_table import EVENTS
from tests.support.processes import CLIENT, SECONDS, kill, log_of, predict, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

MEMBERS = {"time", "level", "event", "message", "process"}
CANARY = "canary-4711"
CANARY_NUMBER = 5.104711


def records_of(service: Service) -> list[dict[str, Any]]:
    """Return the lines of a service's log."""
    return [json.loads(line) for line in log_of(service).splitlines()]


def events_of(service: Service, name: str) -> list[dict[str, Any]]:
    """Return the lines of one event."""
    return [record for record in records_of(service) if record["event"] == name]


def drive(service: Service, models: Path) -> str:
    """Cause as many events as a service without faults can; return the request id of an administrative call."""
    url = f"{service.url}/v1/models/iris"
    body = {"id": CANARY, "instances": [[CANARY_NUMBER, 3.5, 1.4, 0.2]], "labels": [0]}
    assert CLIENT.post(f"{url}:feedback?wait=true", json=body).status_code == 200
    headers = {"X-Request-Id": "admin-1"}
    configured = CLIENT.post(f"{url}:configure", json={"id": f"{CANARY}-c", "paused": True}, headers=headers)
    assert configured.status_code == 202
    assert CLIENT.post(f"{url}:forget", json={"id": f"{CANARY}-f", "ids": [CANARY]}).status_code == 202
    shutil.copytree(models / "iris" / "1", models / "iris" / "2")
    wait_until(lambda: events_of(service, "model_loaded")[1:])
    (models / "iris" / "2" / "model.json").write_text("{")
    wait_until(lambda: events_of(service, "model_refused"))
    shutil.rmtree(models / "iris" / "2")
    wait_until(lambda: events_of(service, "model_removed"))
    for action in ("unload", "load"):
        assert CLIENT.post(f"{service.url}/v2/repository/models/iris/{action}").status_code == 200
    kill(workers(service.process.pid)[0])
    wait_until(lambda: len(events_of(service, "child_started")) == 3)
    wait_until(lambda: predict(service.url).status_code == 200)
    return "admin-1"


def test_every_line_has_the_fields_of_its_event(iris_models: Path, tmp_path: Path) -> None:
    """The log of starts, models, administrative calls, a killed worker and the stop is what the table says."""
    with serving(iris_models, tmp_path, SOFTSTEP_SCAN_SECONDS=0.1) as service:
        identity = drive(service, iris_models)
        service.process.terminate()
        assert service.process.wait(SECONDS) == 0
        records, text = records_of(service), log_of(service)
    for record in records:
        assert set(record) - {"request_id"} == MEMBERS | set(EVENTS[record["event"]].fields), record
    assert {record["event"] for record in records} == {
        "started", "child_started", "model_loaded", "model_refused", "model_removed", "model_unloaded", "load_applied",
        "admin_event", "child_exited", "draining", "listener_closed", "workers_stopped", "stopped",
    }  # fmt: skip
    admin = [(record["kind"], record["seq"], record["duplicate"]) for record in records if "kind" in record]
    assert admin == [("configure", 2, False), ("forget", 3, False)]
    assert next(record["request_id"] for record in records if "kind" in record) == identity
    (crash,) = (record for record in records if record["event"] == "child_exited")
    assert (crash["child"], crash["cause"], crash["level"]) == ("worker 0", "SIGKILL", "warning")
    assert CANARY not in text
    assert str(CANARY_NUMBER) not in text


def test_text_is_for_people(iris_models: Path, tmp_path: Path) -> None:
    """With SOFTSTEP_LOG_FORMAT=text a line has the time, the level and the message."""
    with serving(iris_models, tmp_path, SOFTSTEP_LOG_FORMAT="text") as service:
        lines = log_of(service).splitlines()
    assert any(line[8:] == f" info    serving on {service.url}" for line in lines)
    assert any(line.endswith("model iris version 1: ready at seq 0") for line in lines)
