"""Learned states as files, beside a service that serves them."""

from pathlib import Path

from service.store.states.snapshots import read_snapshot, write_snapshot
from tests.support.learning_client import IRIS, data_of, metadata, post, rows_of
from tests.support.running_service import serving


def test_a_state_that_cannot_be_served_stops_no_other_model(models: Path, tmp_path: Path) -> None:
    """A snapshot whose fields contradict each other is logged, and later states of all models are served."""
    with serving(models, tmp_path) as service:
        body = {"id": "first", "instances": [IRIS], "labels": ["versicolor"]}
        assert post(service, "iris:feedback", body, wait="true").status_code == 200
        folder = data_of(service) / "streams" / "iris" / "1" / "snapshots"
        served = read_snapshot(folder / "1")
        write_snapshot(folder, 2, {**served.fields, "classes": None}, served.arrays, durable=False)
        body = {"id": "second", "instances": rows_of("phishing", 1), "labels": [1]}
        assert post(service, "phishing:feedback", body, wait="true").status_code == 200
        assert metadata(service, "iris")["seq"] == 1
        body = {"id": "third", "instances": [IRIS, IRIS], "labels": ["versicolor", "versicolor"]}
        assert post(service, "iris:feedback", body).json()["seq"] == 2
    assert '"snapshot_refused"' in service.log.read_text()
