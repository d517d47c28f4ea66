"""Feedback to a running service: too fast, with an invalid token key, and again after a deployment."""

import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from service.store.artifact.artifact import write_artifact
from tests.support.model_artifacts import make_artifact
from tests.support.paths import SHIPPED
from tests.support.processes import children, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

ROW = [5.1, 3.5, 1.4, 0.2]
LAG = 5


def send_feedback(service: Service, path: str, **query: str) -> httpx.Response:
    document = {"instances": [ROW], "labels": ["virginica"]}
    return httpx.post(f"{service.url}/v1/models/iris{path}", json=document, params=query, timeout=20)


def test_feedback_waits_for_a_learner_that_is_behind(tmp_path: Path) -> None:
    """The response is 429 with Retry-After and stores nothing, until the learner has caught up; predictions go on."""
    with serving(SHIPPED, tmp_path, SOFTSTEP_LAG_EVENTS_MAX=LAG) as service:
        (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
        os.kill(learner, signal.SIGSTOP)
        answers = [send_feedback(service, ":feedback") for _ in range(LAG + 4)]
        assert [answer.status_code for answer in answers] == [202] * (LAG + 1) + [429] * 3
        waited = send_feedback(service, ":feedback", wait="true")
        for refused in (answers[-1], waited):
            assert (refused.status_code, refused.headers["retry-after"], list(refused.json())) == (
                429,
                "1",
                ["error", "code"],
            )
        predicted = httpx.post(f"{service.url}/v1/models/iris:predict", json={"instances": [ROW]})
        assert (predicted.status_code, predicted.json()["seq"]) == (200, 0)
        os.kill(learner, signal.SIGCONT)
        wait_until(lambda: send_feedback(service, ":feedback").status_code == 202, 20)
        last = send_feedback(service, ":feedback", wait="true")
        assert (last.status_code, last.json()["seq"]) == (200, LAG + 3)


@pytest.mark.parametrize(("place", "key"), [("setting", f"{'5' * 64},{'6' * 62}"), ("file", "g" * 64)])
def test_an_invalid_key_is_refused_at_the_start(tmp_path: Path, place: str, key: str) -> None:
    """The start fails with a sentence that describes a key and does not repeat the wrong one."""
    settings = {"SOFTSTEP_TOKEN_KEY": key} if place == "setting" else {}
    if place == "file":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "token.key").write_text(key)
    with pytest.raises(AssertionError, match="64 hexadecimal digits") as failed, serving(SHIPPED, tmp_path, **settings):
        pass
    assert "Traceback" not in str(failed.value)
    assert key[-40:] not in str(failed.value)


def test_a_retry_after_a_deploy_waits_for_the_version_that_has_the_event(tmp_path: Path) -> None:
    """A retry to a newer version has the seq, losses and version of the first response."""
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "iris" / "1", tmp_path / "models" / "iris" / version)
    document = {"id": "once", "instances": [ROW, ROW], "labels": ["virginica", 1]}
    with serving(tmp_path / "models", tmp_path) as service:
        for _ in range(3):
            assert send_feedback(service, "/versions/1:feedback").status_code == 202
        first, again = (
            httpx.post(f"{service.url}/v1/models/iris{path}?wait=true", json=document, timeout=20)
            for path in ("/versions/1:feedback", ":feedback")
        )
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json()["seq"] == 4
        assert len(first.json()["losses"]) == 2
        assert again.json() == {**first.json(), "duplicate": True}
        forgotten = httpx.post(f"{service.url}/v1/models/iris:forget?wait=true", json={"ids": ["once"]}, timeout=20)
        assert (forgotten.status_code, forgotten.json()["model_version"], forgotten.json()["seq"]) == (200, "1", 5)
        body = httpx.get(f"{service.url}/v1/models/iris/versions/1").json()
        assert (body["seq"], body["epoch"]) == (5, 1)


def test_responses_count_forgotten_feedback(tmp_path: Path) -> None:
    """Responses have an epoch once feedback was forgotten, for one row and several, in both protocols."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}

    def states(service: Service) -> list[dict[str, int]]:
        url = f"{service.url}/v1/models/iris:predict"
        answers = [httpx.post(url, json={"instances": [ROW] * rows}).json() for rows in (1, 2)]
        inferred = httpx.post(f"{service.url}/v2/models/iris/infer", json={"inputs": [tensor]}).json()["parameters"]
        return [*({name: body[name] for name in ("seq", "epoch") if name in body} for body in answers), inferred]

    with serving(SHIPPED, tmp_path) as service:
        id_ = send_feedback(service, ":feedback", wait="true").json()["id"]
        assert states(service) == [{"seq": 1}] * 3
        httpx.post(f"{service.url}/v1/models/iris:forget?wait=true", json={"ids": [id_]}, timeout=20)
        assert states(service) == [{"seq": 2, "epoch": 1}] * 3
        send_feedback(service, ":feedback", wait="true")
        assert states(service) == [{"seq": 3, "epoch": 1}] * 3


def test_files_that_differ_from_those_of_the_stream_are_reported(tmp_path: Path) -> None:
    """The learned state stays served; metadata, index and metrics report other files until they are restored."""
    folder = tmp_path / "models" / "iris" / "1"
    shutil.copytree(SHIPPED / "iris" / "1", folder)

    def reports(service: Service) -> tuple[bool, bool, bool] | None:
        metadata = httpx.get(f"{service.url}/v1/models/iris").json()
        rows = httpx.post(f"{service.url}/v2/repository/index").json()
        if "versions" not in metadata or rows[:1] != [{"name": "iris", **metadata["versions"][0]}]:
            return None  # the folder is just being changed
        (row,) = rows
        gauge = 'softstep_learn_bound_differs{model="iris",version="1"} 1.0\n'
        assert metadata["weights_sha256"] == weights_hash
        return (
            metadata["bound_differs"],
            "new version" in row["reason"],
            gauge in httpx.get(f"{service.url}/metrics").text,
        )

    with serving(tmp_path / "models", tmp_path, SOFTSTEP_SCAN_SECONDS=0.1) as service:
        assert send_feedback(service, ":feedback", wait="true").status_code == 200
        weights_hash = httpx.get(f"{service.url}/v1/models/iris").json()["weights_sha256"]
        assert reports(service) == (False, False, False)
        write_artifact(tmp_path / "other", make_artifact("softmax", 4, ["setosa", "versicolor", "virginica"]))
        folder.rename(tmp_path / "kept")
        (tmp_path / "other").rename(folder)
        wait_until(lambda: reports(service) == (True, True, True))
        assert send_feedback(service, ":feedback", wait="true").json()["seq"] == 2
        weights_hash = httpx.get(f"{service.url}/v1/models/iris").json()["weights_sha256"]
        assert reports(service) == (True, True, True)
        folder.rename(tmp_path / "other")
        (tmp_path / "kept").rename(folder)
        wait_until(lambda: reports(service) == (False, False, False))
