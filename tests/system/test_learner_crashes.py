"""A service whose learner crashes at an event: the model of that event stalls, and everything else continues."""

from pathlib import Path

import pytest

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import read_artifact
from service.store.artifact.hashing import hash_tensors
from tests.support.data_directories import json_lines, run_softstep
from tests.support.learning_client import IRIS, data_of, events_of, metadata, post, rows_of
from tests.support.paths import ROOT
from tests.support.processes import sum_counter
from tests.support.running_service import serving
from tests.support.waiting import wait_until


@pytest.mark.parametrize("kind", ["deadly", "broken"])
def test_an_event_that_the_learner_fails_at_is_skipped(models: Path, tmp_path: Path, kind: str) -> None:
    """Predictions, feedback and other models continue; after the skip the weights are the fold of all other events."""
    path = f"{Path(__file__).parents[1] / 'support' / 'faulty_fold'}:{ROOT}"
    with serving(models, tmp_path, workers=2, PYTHONPATH=path) as service:
        rows = rows_of("digits", 8)
        post(service, "iris:feedback", {"instances": [IRIS], "labels": [1]}, wait=True)
        answer = post(service, "iris:feedback", {"id": f"{kind}-1", "instances": [IRIS], "labels": [2]})
        assert (answer.status_code, answer.json()["seq"]) == (202, 2)
        for number, row in enumerate(rows):
            assert post(service, "iris:feedback", {"instances": [IRIS], "labels": [0]}).status_code == 202
            assert post(service, "iris:predict", {"instances": [IRIS]}).json()["seq"] == 1
            assert post(service, "digits:feedback", {"instances": [row], "labels": [number]}).status_code == 202
        wait_until(lambda: metadata(service, "iris")["learner"]["state"] == "stalled")
        wait_until(lambda: metadata(service, "digits")["seq"] == len(rows))
        assert metadata(service, "iris")["learner"]["seq"] == 2
        assert metadata(service, "iris")["lag_events"] == 9
        assert sum_counter(service.url, "softstep_learn_stalled") == 1
        feedback = post(service, "digits:feedback", {"instances": rows[:1], "labels": [5]}, wait=True)
        assert feedback.status_code == 200
        (result,) = json_lines(run_softstep("skip", "iris", 2, "--data", data_of(service), "--json"))
        wait_until(lambda: metadata(service, "iris")["seq"] == result["seq"])
        fold = EventFold(read_artifact(ROOT / "models" / "iris" / "1", 1 << 30))
        fold.fold_events(event for event in events_of(data_of(service), "iris") if event.seq not in {2, result["seq"]})
        assert metadata(service, "iris")["weights_sha256"] == hash_tensors(fold.state.served_parameters().tensors())
        assert metadata(service, "iris")["progressive"]["events"] == 9
        assert metadata(service, "iris")["learner"] == {"state": "following"}
