"""A client that waits for an event gets a code if the event is forgotten, rolled back or skipped meanwhile."""

import os
import signal
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from service.store.log.admin_payloads import dump_seq
from service.store.log.events import Draft, Kind
from service.store.log.sqlite import SqliteLog
from tests.support.learning_client import IRIS, data_of, metadata, post, rows_of
from tests.support.processes import children, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until


class Waiter(threading.Thread):
    """A client that posts with wait=true and keeps the answer."""

    def __init__(self, service: Service, path: str, body: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._post = partial(post, service, path, body, wait=True)
        self.answer = httpx.Response(0)
        self.start()

    def run(self) -> None:
        self.answer = self._post()


def outcome(waiter: Waiter) -> tuple[int, str | None]:
    waiter.join(20)
    return waiter.answer.status_code, waiter.answer.json().get("code")


def skip(service: Service, model: str, seq: int) -> None:
    """Skip an event, as `softstep skip` does."""
    with closing(SqliteLog(data_of(service) / "log.sqlite")) as log:
        number = next(stream.number for stream in log.list_streams() if stream.model == model)
        log.append([Draft(number, Kind.SKIP, b"skip", dump_seq(seq), 0)])


def test_a_waiting_client_learns_what_removed_its_event(models: Path, tmp_path: Path) -> None:
    """The learner is stopped while events are rolled back, forgotten and skipped; those that stay get 200."""
    with serving(models, tmp_path) as service:
        tokens = post(service, "iris:predict", {"instances": [IRIS, IRIS], "feedback_tokens": True}).json()
        first = post(service, "iris:feedback", {"instances": [IRIS], "labels": [1]}, wait=True).json()
        assert first["seq"] == 1
        (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
        os.kill(learner, signal.SIGSTOP)
        two = Waiter(service, "iris:feedback", {"tokens": tokens["feedback_tokens"], "labels": [0, 1]})
        wait_until(lambda: metadata(service, "iris")["log_seq"] == 3)
        undone = Waiter(service, "iris:feedback", {"id": "undone", "instances": [IRIS], "labels": [1]})
        wait_until(lambda: metadata(service, "iris")["log_seq"] == 4)
        grown = Waiter(service, "iris:classes", {"id": "grown", "add": ["gigantea"]})
        wait_until(lambda: metadata(service, "iris")["log_seq"] == 5)
        assert post(service, "iris:rollback", {"seq": 2}).status_code == 202
        row, *_ = rows_of("digits", 1)
        gone = Waiter(service, "digits:feedback", {"id": "gone", "instances": [row], "labels": [1]})
        wait_until(lambda: metadata(service, "digits").get("log_seq") == 1)
        skipped = Waiter(service, "digits:feedback", {"id": "skipped", "instances": [row], "labels": [2]})
        wait_until(lambda: metadata(service, "digits")["log_seq"] == 2)
        stays = Waiter(service, "digits:feedback", {"id": "stays", "instances": [row], "labels": [3]})
        wait_until(lambda: metadata(service, "digits")["log_seq"] == 3)
        assert post(service, "digits:forget", {"ids": ["gone"]}).status_code == 202
        skip(service, "digits", 2)
        os.kill(learner, signal.SIGCONT)
        assert outcome(two) == (409, "some_refused")
        assert two.answer.json()["reason"] == "rolled_back"
        assert [event.get("code") for event in two.answer.json()["events"]] == [None, "rolled_back"]
        assert outcome(undone) == outcome(grown) == (409, "rolled_back")
        assert (outcome(gone), outcome(skipped)) == ((409, "forgotten"), (409, "skipped"))
        assert outcome(stays) == (200, None)
        assert stays.answer.json()["seq"] == 3
        # A retry gets the same code, whether it waits or not.
        for wait in (False, True):
            again = post(service, "digits:feedback", {"id": "gone", "instances": [row], "labels": [1]}, wait=wait)
            assert (again.status_code, again.json()["code"]) == (409, "forgotten")
            again = post(service, "iris:classes", {"id": "grown", "add": ["gigantea"]}, wait=wait)
            assert (again.status_code, again.json()["code"]) == (409, "rolled_back")


def test_a_retry_after_new_classes_is_a_duplicate(models: Path, tmp_path: Path) -> None:
    """The classes that a call has added do not refuse its retry, but another call; its id refuses other content."""
    with serving(models, tmp_path) as service:
        row = {"id": "early", "instances": [IRIS], "labels": ["setosa"]}
        assert post(service, "iris:feedback", row).status_code == 202
        body = {"id": "more", "add": ["gigantea"]}
        first, again = (post(service, "iris:classes", body, wait=True) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == {**first.json(), "duplicate": True}
        early = post(service, "iris:feedback", row)
        assert (early.status_code, early.json()["duplicate"]) == (202, True)
        for other, status, code in (
            ({"add": ["gigantea"]}, 422, "invalid_request"),
            ({"id": "more", "add": ["other"]}, 409, "id_taken"),
            ({"id": "more", "add": ["setosa"]}, 409, "id_taken"),
        ):
            refused = post(service, "iris:classes", other)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
