"""Disks that are too small, full or not writable: what a service reports, and what continues."""

import json
from pathlib import Path
from typing import Any

from tests.support.processes import CLIENT, ROW, log_of, predict
from tests.support.running_service import Service, serving

FEEDBACK = {**ROW, "labels": [0]}


def events_of(service: Service, name: str) -> list[dict[str, Any]]:
    """Return the lines of one event of a service's log."""
    return [record for line in log_of(service).splitlines() if (record := json.loads(line))["event"] == name]


def test_a_disk_below_the_reserve_is_reported_at_the_start(iris_models: Path, tmp_path: Path) -> None:
    """The line names the setting; predictions continue, and refusals of feedback are logged once, not each."""
    reserve = 1 << 60
    with serving(iris_models, tmp_path, SOFTSTEP_DISK_RESERVE_BYTES=reserve) as service:
        (warning,) = events_of(service, "disk_below_reserve")
        assert "SOFTSTEP_DISK_RESERVE_BYTES" in warning["message"]
        assert 0 < warning["free_bytes"] <= warning["total_bytes"] < warning["reserve_bytes"] == reserve
        for number in range(5):
            answer = CLIENT.post(f"{service.url}/v1/models/iris:feedback", json={**FEEDBACK, "id": f"full-{number}"})
            assert (answer.status_code, answer.json()["code"]) == (503, "log_full")
        assert [record["code"] for record in events_of(service, "feedback_refused")] == ["log_full"]
        assert predict(service.url).status_code == 200
        assert CLIENT.get(f"{service.url}/readyz").json() == {"ready": True}


def test_a_service_that_cannot_write_its_data_serves_without_learning(iris_models: Path, tmp_path: Path) -> None:
    """Readiness shows it, predictions work, and feedback is refused."""
    (tmp_path / "data").touch()  # a file in place of the directory: also root cannot write there
    with serving(iris_models, tmp_path) as service:
        (warning,) = events_of(service, "learning_unavailable")
        assert warning["directory"] == str(tmp_path / "data")
        for path in ("/readyz", "/health", "/v2/health/ready"):
            answer = CLIENT.get(f"{service.url}{path}")
            assert (answer.status_code, answer.json()) == (200, {"ready": True, "learning": False})
        assert predict(service.url).status_code == 200
        answer = CLIENT.post(f"{service.url}/v1/models/iris:feedback", json=FEEDBACK)
        assert (answer.status_code, answer.json()["code"]) == (503, "learning_off")


def test_readiness_may_require_learning(iris_models: Path, tmp_path: Path) -> None:
    """With SOFTSTEP_READY_REQUIRES_LEARNING such a service is not ready, and still answers."""
    (tmp_path / "data").touch()
    with serving(iris_models, tmp_path, SOFTSTEP_READY_REQUIRES_LEARNING="on") as service:
        answer = CLIENT.get(f"{service.url}/readyz")
        assert answer.status_code == 503
        assert {name: answer.json()[name] for name in ("ready", "learning", "code")} == {
            "ready": False, "learning": False, "code": "not_ready"
        }  # fmt: skip
        assert predict(service.url).status_code == 200
