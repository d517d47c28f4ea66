"""A service that learns, with real clients and kills: acknowledged events are learned once, to the bit."""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import read_artifact
from tests.support.learning_client import IRIS, caught_up, data_of, events_of, metadata, post, replay_stream, rows_of
from tests.support.paths import ROOT
from tests.support.processes import children, is_running, kill, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

CLASSES = ["setosa", "versicolor", "virginica"]


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve with two workers and a learner, shared by the tests that break nothing."""
    with serving(models, tmp_path_factory.mktemp("learning"), workers=2) as running:
        yield running


def test_feedback_is_acknowledged_and_served(service: Service) -> None:
    """The response comes when the event is on disk; the served weights are those of the fold, to the bit."""
    rows = rows_of("phishing", 20)
    for number, row in enumerate(rows, 1):
        answer = post(service, "phishing:feedback", {"id": f"p{number}", "instances": [row], "labels": [number % 2]})
        assert answer.status_code == 202
        assert answer.json() == {
            "model_name": "phishing", "model_version": "1", "id": f"p{number}", "seq": number, "duplicate": False,
        }  # fmt: skip
    wait_until(lambda: metadata(service, "phishing")["seq"] == 20)
    result = caught_up(service, "phishing")
    expected, fold = replay_stream(data_of(service), "phishing")
    assert result["weights_sha256"] == expected
    assert result["progressive"]["events"] == result["progressive"]["rows"] == 20
    assert result["progressive"]["loss"] == fold.progressive_validation["loss"]


def test_waiting_returns_the_loss_of_each_row(service: Service) -> None:
    """The losses are those of the fold before each step, and min_seq is answered from the new state."""
    rows = rows_of("digits", 5)
    body = {"instances": rows, "labels": [3, "4", 5, 6, 7], "weights": [1, 2, 0.5, 1, 1]}
    answer = post(service, "digits:feedback", body, wait=True)
    assert answer.status_code == 200
    fold = EventFold(read_artifact(ROOT / "models" / "digits" / "1", 1 << 30))
    (scored,) = fold.fold_events(events_of(data_of(service), "digits"))
    assert answer.json()["losses"] == scored.losses.tolist()
    predicted = post(service, "digits:predict", {"instances": rows, "min_seq": answer.json()["seq"]})
    assert predicted.json()["seq"] >= answer.json()["seq"]
    P = fold.state.served_parameters().build_model().predict(np.array(rows, np.float32))
    assert np.array(predicted.json()["predictions"], np.float32).tobytes() == P.tobytes()


def test_a_retry_counts_once(service: Service) -> None:
    """This holds for any worker; another event with the same id is rejected."""
    body = {"id": "once", "instances": [IRIS], "labels": ["setosa"]}
    answers = [post(service, "iris:feedback", body).json() for _ in range(8)]
    assert [answer["duplicate"] for answer in answers] == [False] + [True] * 7
    assert len({answer["seq"] for answer in answers}) == 1
    conflict = post(service, "iris:feedback", {**body, "labels": ["virginica"]})
    assert (conflict.status_code, "id" in conflict.json()["error"]) == (409, True)


def test_a_token_contains_its_row(service: Service) -> None:
    """Each token makes one event, the same token counts once, and a forged one is rejected."""
    rows = [IRIS, [6.7, 3.0, 5.2, 2.3]]
    predicted = post(service, "iris:predict", {"instances": rows, "feedback_tokens": True}).json()
    tokens = predicted["feedback_tokens"]
    assert len(tokens) == 2
    body = {"tokens": tokens, "labels": ["setosa", 2]}
    first, second = (post(service, "iris:feedback", body).json()["events"] for _ in range(2))
    assert [event["duplicate"] for event in first] == [False, False]
    assert [event["duplicate"] for event in second] == [True, True]
    assert [event["seq"] for event in first] == [event["seq"] for event in second]
    forged = tokens[0][:-1] + ("A" if tokens[0][-1] != "A" else "E")
    for bad in (forged, tokens[0][:-4], "", "é", predicted["labels"][0]):
        answer = post(service, "iris:feedback", {"tokens": [bad], "labels": [0]})
        assert (answer.status_code, answer.json()["events"]) == (422, [{"code": "invalid_token"}])
    assert post(service, "digits:feedback", {"tokens": [tokens[0]], "labels": [0]}).status_code == 422


def test_admin_events_change_the_served_state(models: Path, tmp_path: Path) -> None:
    """Classes, rollback, forget and pause are in the served state, and a forgotten row is in no file."""
    secret = [4.0404, 3.1313, 1.2121, 0.2323]
    with serving(models, tmp_path) as service:
        data = data_of(service)
        body = {"id": "secret", "instances": [secret], "labels": [2]}
        (loss,) = post(service, "iris:feedback", body, wait=True).json()["losses"]
        other = post(service, "iris:feedback", {"id": "other", "instances": [IRIS], "labels": [1]}, wait=True).json()
        before = caught_up(service, "iris")["weights_sha256"]
        grown = post(service, "iris:classes", {"add": ["gigantea"]}, wait=True).json()["seq"]
        assert caught_up(service, "iris")["classes"] == [*CLASSES, "gigantea"]
        feedback = post(service, "iris:feedback", {"instances": [IRIS], "labels": ["gigantea"]}, wait=True)
        assert feedback.status_code == 200
        assert len(post(service, "iris:predict", {"instances": [IRIS]}).json()["predictions"][0]) == 4
        assert post(service, "iris:rollback", {"seq": grown - 1}, wait=True).status_code == 200
        result = caught_up(service, "iris")
        assert (result["weights_sha256"], result["classes"]) == (before, CLASSES)
        assert post(service, "iris:feedback", {"instances": [IRIS], "labels": ["gigantea"]}).status_code == 422
        assert post(service, "iris:forget", {"ids": ["secret"]}, wait=True).status_code == 200
        assert caught_up(service, "iris")["weights_sha256"] == replay_stream(data, "iris")[0] != before
        retry = post(service, "iris:feedback", body, wait=True)
        assert (retry.status_code, retry.json()["code"]) == (409, "forgotten")
        needles = np.array(secret, np.float32).tobytes(), np.array(loss).tobytes()
        wait_until(lambda: metadata(service, "iris")["erased"] is True)
        files = [path.read_bytes() for path in data.rglob("*") if path.is_file()]
        assert not [needle for needle in needles if any(needle in file for file in files)]
        again = post(service, "iris:feedback", {"id": "other", "instances": [IRIS], "labels": [1]}, wait=True).json()
        assert again == {**other, "duplicate": True}
        assert post(service, "iris:configure", {"paused": True}, wait=True).status_code == 200
        paused = caught_up(service, "iris")
        post(service, "iris:feedback", {"instances": [IRIS], "labels": [2]}, wait=True)
        assert caught_up(service, "iris")["weights_sha256"] == paused["weights_sha256"]
        assert caught_up(service, "iris")["progressive"]["rows"] == paused["progressive"]["rows"] + 1
        assert post(service, "breast-cancer:classes", {"add": ["third"]}).status_code == 409
        stale = post(service, "iris:rollback", {"seq": 0, "if_seq": 1})
        assert stale.status_code == 409


def test_a_killed_learner_loses_nothing(models: Path, tmp_path: Path) -> None:
    """Predictions and acknowledgements continue, and the next learner learns the events of the meantime."""
    with serving(models, tmp_path) as service:
        post(service, "iris:feedback", {"instances": [IRIS], "labels": [0]}, wait=True)
        (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
        kill(learner)
        wait_until(lambda: not is_running(learner))
        answers = [post(service, "iris:feedback", {"instances": [IRIS], "labels": [1]}) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {202}
        assert post(service, "iris:predict", {"instances": [IRIS]}).status_code == 200
        wait_until(lambda: metadata(service, "iris")["seq"] == 21, 10)
        assert caught_up(service, "iris")["weights_sha256"] == replay_stream(data_of(service), "iris")[0]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_acknowledged_is_lost_when_everything_is_killed(models: Path, tmp_path: Path, seed: int) -> None:
    """Workers, learner and parent are killed during feedback; every event is stored once, in one order."""
    chance = random.Random(seed)
    acked: dict[str, int] = {}
    rows = rows_of("digits", 40, seed)

    def teach(service: Service, name: str) -> bool:
        body = {"id": name, "instances": [rows[len(acked) % 40]], "labels": [len(acked) % 10]}
        with suppress(httpx.TransportError):
            answer = post(service, "digits:feedback", body)
            if answer.status_code == 202:
                assert acked.setdefault(name, answer.json()["seq"]) == answer.json()["seq"]
                return True
        return False

    for start in range(3):
        with serving(models, tmp_path, workers=2) as service:
            for number in range(60):
                name = f"{start}-{number}"
                if number % 10 == 9:
                    with suppress(ProcessLookupError):
                        kill(chance.choice(children(service.process.pid)))
                wait_until(lambda name=name: teach(service, name), 10)  # type: ignore[misc]
            service.process.kill()
            service.process.wait()
    with serving(models, tmp_path) as service:
        wait_until(lambda: metadata(service, "digits")["seq"] == len(acked), 10)
        assert caught_up(service, "digits")["weights_sha256"] == replay_stream(data_of(service), "digits")[0]
        assert caught_up(service, "digits")["progressive"]["events"] == len(acked) == 180
    events = events_of(tmp_path / "data", "digits")
    assert {event.id.decode(): event.seq for event in events} == acked
    assert [event.seq for event in events] == list(range(1, 181))


def test_a_service_without_learning_rejects_feedback(models: Path, tmp_path: Path) -> None:
    """Predictions work as usual."""
    with serving(models, tmp_path, SOFTSTEP_LEARN="false") as service:
        assert post(service, "iris:predict", {"instances": [IRIS]}).status_code == 200
        for path, body in (
            ("iris:feedback", {"instances": [IRIS], "labels": [0]}),
            ("iris:forget", {"ids": ["a"]}),
            ("iris:predict", {"instances": [IRIS], "feedback_tokens": True}),
        ):
            answer = post(service, path, body)
            assert (answer.status_code, "does not learn" in answer.json()["error"]) == (503, True)


def test_two_instances_do_not_share_a_data_directory(models: Path, tmp_path: Path) -> None:
    """The second instance does not start."""
    with serving(models, tmp_path), pytest.raises(AssertionError, match="another instance"), serving(models, tmp_path):
        pass


def test_weights_of_any_seq_are_returned(models: Path, tmp_path: Path) -> None:
    """Current ones come at once, earlier ones after folding, and none that contained a forgotten event."""

    def weights(service: Service, seq: int | None = None) -> httpx.Response:
        query = {} if seq is None else {"seq": seq}
        return httpx.get(f"{service.url}/v1/models/iris/weights", params=query, timeout=20)

    with serving(models, tmp_path) as service:
        assert weights(service, 1).status_code == 404
        first = weights(service)
        assert (first.status_code, first.headers["x-softstep-seq"]) == (200, "0")
        for number in range(1, 8):
            body = {"id": f"w{number}", "instances": [[number / 2, 3.0, 4.0, 1.0]], "labels": [number % 3]}
            post(service, "iris:feedback", body, wait=True)
        live = weights(service)
        assert live.headers["x-softstep-seq"] == "7"
        assert live.headers["x-softstep-weights-sha256"] == caught_up(service, "iris")["weights_sha256"]
        wait_until(lambda: weights(service, 3).status_code == 200, 20)
        past = weights(service, 3)
        assert past.headers["x-softstep-weights-sha256"] == replay_stream(data_of(service), "iris", 3)[0]
        assert weights(service, 0).content == first.content
        assert weights(service, 8).status_code == 404
        for bad in ("x", "-1", "1.5", "9" * 13):
            assert httpx.get(f"{service.url}/v1/models/iris/weights?seq={bad}").status_code == 422
        post(service, "iris:forget", {"ids": ["w2"]}, wait=True)
        assert [weights(service, seq).status_code for seq in (3, 2, 1)][:2] == [410, 410]
        assert weights(service).status_code == 200
