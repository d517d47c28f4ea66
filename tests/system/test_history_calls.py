"""The calls about history, from real feedback: every worker answers what the test counts itself."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.store.artifact.artifact import read_artifact
from service.store.artifact.model_factory import initial_parameters
from tests.support.learning_client import data_of, post, replay_stream, rows_of
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

CLASSES = ["setosa", "versicolor", "virginica"]
EVENTS = 40


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two workers that has learned some rows of iris, two rows an event, some with wrong labels."""
    with serving(SHIPPED, tmp_path_factory.mktemp("learned"), workers=2) as service:
        rows = rows_of("iris", 2 * EVENTS)
        for number in range(EVENTS):
            labels = [CLASSES[number % 3], CLASSES[number // 3 % 3]]
            body = {"id": f"e{number}", "instances": rows[2 * number : 2 * number + 2], "labels": labels}
            post(service, "iris:feedback", body).raise_for_status()
        wait_reported(service, EVENTS)
        yield service


def get(service: Service, call: str) -> Any:
    """Ask over a connection of its own, so that any worker may answer."""
    response = httpx.get(f"{service.url}/v1/models/iris/{call}")
    assert response.status_code == 200
    return response.json()


def wait_reported(service: Service, seq: int) -> None:
    wait_until(lambda: get(service, "history")["until"] == seq and get(service, "pulse")["seq"] == seq)


def answers_of_the_artifact(rows: list[list[float]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the classes that the artifact answers, (R,)."""
    model = initial_parameters(read_artifact(SHIPPED / "iris" / "1", 1 << 30)).build_model()
    return np.array(model.classify(np.array(rows, np.float32))[1])


def test_the_history_is_what_the_rows_were_answered(learned: Service) -> None:
    """Sums equal the progressive validation of the metadata, and the artifact's hits those that it has by itself."""
    history = get(learned, "history")
    assert (history["from"], history["bucket"], history["seq"]) == (0, 1, [*range(1, EVENTS + 1)])
    assert history["rows"] == history["frozen_rows"] == [2] * EVENTS
    progressive = httpx.get(f"{learned.url}/v1/models/iris").json()["progressive"]
    assert sum(history["loss"]) / (2 * EVENTS) == pytest.approx(progressive["loss"])
    assert sum(history["hits"]) / (2 * EVENTS) == pytest.approx(progressive["accuracy"])
    labels = np.array([[number % 3, number // 3 % 3] for number in range(EVENTS)])
    hits = answers_of_the_artifact(rows_of("iris", 2 * EVENTS)).reshape(-1, 2) == labels
    assert history["frozen_hits"] == hits.sum(1).tolist()
    assert history["labels"] == [np.bincount(pair, minlength=3).tolist() for pair in labels]
    assert np.sum(history["found"], 1).tolist() == history["hits"]


def test_the_quality_is_that_of_the_rows(learned: Service) -> None:
    """Now and at a past event; the calibration now is that of the metadata."""
    now, past = get(learned, "quality"), get(learned, "quality?seq=25")
    assert (now["seq"], now["rows"], past["seq"], past["rows"]) == (EVENTS, 2 * EVENTS, 25, 50)
    history = get(learned, "history")
    assert past["accuracy"] == pytest.approx(sum(history["hits"][:25]) / 50)
    assert past["both"] == pytest.approx(sum(history["both_hits"][:25]) / 50)
    assert np.trace(past["confusion"]) == sum(history["hits"][:25])
    progressive = httpx.get(f"{learned.url}/v1/models/iris").json()["progressive"]
    assert now["calibration"]["expected_error"] == pytest.approx(progressive["calibration"]["expected_error"])


def test_the_drift_is_that_of_the_rows(learned: Service) -> None:
    """It is the mean shift of each event's rows in the units of the training rows."""
    drift, rows = get(learned, "drift"), np.array(rows_of("iris", 2 * EVENTS), np.float32)
    shift = (rows - drift["training"]["mean"]) / drift["training"]["scale"]
    assert drift["shift"][7] == pytest.approx(shift[14:16].clip(-8, 8).mean(0), abs=1e-5)


def test_the_pulse_follows(learned: Service) -> None:
    """It counts in all workers, and has the changed buckets alone."""
    before = get(learned, "pulse")
    assert (before["seq"], before["log_seq"], before["lag_events"], before["admin_seq"]) == (EVENTS, EVENTS, 0, 0)
    for _ in range(8):
        post(learned, "iris:predict", {"instances": [[6.0, 2.7, 5.1, 1.6]]}).raise_for_status()
    after = get(learned, f"pulse?since={EVENTS - 2}&epoch=0&bucket=1")
    assert after["counters"]["requests"] - before["counters"]["requests"] == 8
    assert after["counters"]["events"] == EVENTS
    assert after["history"]["seq"] == [EVENTS - 1, EVENTS]


def test_a_trajectory_and_explanations_are_those_of_a_fold(learned: Service) -> None:
    """The probabilities at each keyframe equal a fold of the events up to it, to the bit."""
    row = [6.0, 2.7, 5.1, 1.6]
    followed = post(learned, "iris:trajectory", {"instances": [row]}).json()
    assert followed["seq"][0] == 0
    assert followed["seq"][-1] == EVENTS
    assert len(followed["seq"]) > 10
    for place in (0, 5, -2, -1):
        seq = followed["seq"][place]
        fold = replay_stream(data_of(learned), "iris", seq)[1]
        P = fold.state.served_parameters().build_model().predict(np.array([row], np.float32))[0]
        assert np.array(followed["probabilities"][place], np.float32).tobytes() == P.tobytes()
        explained = post(learned, "iris:explain", {"instances": [row], "seq": seq}).json()
        assert explained["seq"] == seq
        assert explained["explanations"][0]["probabilities"] == followed["probabilities"][place]


def test_a_forgotten_event_leaves_the_history(learned: Service) -> None:
    """The pulse names another epoch, its rows no longer count, and states that had it are gone."""
    post(learned, "iris:forget", {"ids": ["e20"]}, wait=True).raise_for_status()
    wait_reported(learned, EVENTS + 1)
    pulse = get(learned, f"pulse?since={EVENTS}&epoch=0&bucket=1")
    assert (pulse["epoch"], pulse["admin_seq"], pulse["history"]["epoch"]) == (1, EVENTS + 1, 1)
    assert pulse["history"]["rows"][18:23] == [2, 2, 0, 2, 2]
    assert post(learned, "iris:explain", {"instances": [[6.0, 2.7, 5.1, 1.6]], "seq": 30}).status_code == 410
    seqs = post(learned, "iris:trajectory", {"instances": [[6.0, 2.7, 5.1, 1.6]]}).json()["seq"]
    assert not [seq for seq in seqs if 20 < seq <= EVENTS]
