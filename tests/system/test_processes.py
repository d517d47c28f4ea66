"""Real services with several workers, of which some are killed, or with them the parent."""

from pathlib import Path

import httpx

from service.store.artifact.artifact import write_artifact
from tests.support.model_artifacts import make_artifact
from tests.support.processes import (
    CLIENT,
    ask_every_worker,
    children,
    is_free,
    is_running,
    kill,
    log_of,
    predict,
    sum_counter,
    worker_of,
    workers,
)
from tests.support.running_service import is_ready, serving
from tests.support.waiting import wait_until

REQUESTS = "softstep_predict_requests_total"


def test_two_workers_answer_alike(iris_models: Path, tmp_path: Path) -> None:
    """Both workers answer with the same bytes, and every metric sums both."""
    with serving(iris_models, tmp_path, workers=2) as service:
        assert len(workers(service.process.pid)) == 2
        answers = ask_every_worker(service.url, 2)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert {sum_counter(service.url, REQUESTS) for _ in range(10)} == {len(answers)}
        stats = [CLIENT.get(f"{service.url}/v2/models/iris/stats").json() for _ in range(10)]
        assert {row["model_stats"][0]["inference_count"] for row in stats} == {len(answers)}


def test_a_killed_worker_is_replaced_and_its_counts_stay(iris_models: Path, tmp_path: Path) -> None:
    """The service answers all the time, and the new worker continues the counts."""
    with serving(iris_models, tmp_path, workers=2) as service:
        before = ask_every_worker(service.url, 2)
        killed, other = workers(service.process.pid)
        kill(killed)
        wait_until(lambda: not is_running(killed))
        assert predict(service.url).status_code == 200
        wait_until(lambda: killed not in (now := workers(service.process.pid)) and len(now) == 2)
        wait_until(lambda: is_ready(service.url, 2))
        assert other in workers(service.process.pid)
        after = ask_every_worker(service.url, 2)
        names = {worker_of(answer) for answer in before}
        assert len(names | {worker_of(answer) for answer in after}) == 3
        assert sum_counter(service.url, REQUESTS) == len(before) + 1 + len(after)
        assert f"(process {killed}) exited: SIGKILL" in log_of(service)


def test_a_single_worker_is_replaced(iris_models: Path, tmp_path: Path) -> None:
    """The only worker is killed three times and restarted each time."""
    with serving(iris_models, tmp_path) as service:
        for _ in range(3):
            (killed,) = workers(service.process.pid)
            kill(killed)
            wait_until(lambda killed=killed: workers(service.process.pid) not in ([], [killed]))  # type: ignore[misc]
            wait_until(lambda: is_ready(service.url, 1))
            assert predict(service.url).status_code == 200
        assert sum_counter(service.url, REQUESTS) == 3


def test_workers_of_a_killed_parent_exit(iris_models: Path, tmp_path: Path) -> None:
    """No worker keeps the port, even with an open connection; a new service can use it at once."""
    with serving(iris_models, tmp_path, workers=2) as service, httpx.Client() as client:
        assert client.get(f"{service.url}/readyz").status_code == 200
        processes = children(service.process.pid)
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(map(is_running, processes)))
        wait_until(lambda: is_free(service.address))
        port = service.address[1]
        (tmp_path / "second").mkdir()
        with serving(iris_models, tmp_path / "second", SOFTSTEP_PORT=port) as second:
            assert second.address == service.address
            assert predict(second.url).status_code == 200


def test_invalid_models_do_not_stop_the_start(iris_models: Path, tmp_path: Path) -> None:
    """They are reported with their reasons, and the valid one is served."""
    (iris_models / "torn" / "1").mkdir(parents=True)
    (iris_models / "torn" / "1" / "model.json").write_text("{")
    # Good files, but 1 / scale is more than the weights' dtype can hold.
    unfit = make_artifact("softmax", 1, ["a", "b"], stage={"mean": [0], "scale": [1e-300]})
    write_artifact(iris_models / "unfit" / "1", unfit)
    with serving(iris_models, tmp_path) as service:
        assert predict(service.url).status_code == 200
        for name in ("torn", "unfit"):
            assert CLIENT.get(f"{service.url}/v1/models/{name}").json()["state"] == "UNAVAILABLE"
            assert predict(service.url, name).status_code == 503
            assert f"model {name} version 1 refused: " in log_of(service)
        assert log_of(service).count('"model_refused"') == 2
