"""Real services: several workers, one of which may be killed, and a parent that takes all with it."""

from pathlib import Path

import httpx

from service.store.artifact.artifact import write_artifact
from tests.support.processes import (
    CLIENT,
    ask_every_worker,
    children,
    counter,
    is_free,
    kill,
    lives,
    log_of,
    predict,
    worker_of,
    workers,
)
from tests.support.servers import is_ready, make_artifact, serving, wait_until

REQUESTS = "softstep_predict_requests_total"


def test_two_workers_answer_alike(root: Path, tmp_path: Path) -> None:
    """Each of them answers, with the same bytes, and every number covers both."""
    with serving(root, tmp_path, workers=2) as service:
        assert len(workers(service.process.pid)) == 2
        answers = ask_every_worker(service.url, 2)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert {counter(service.url, REQUESTS) for _ in range(10)} == {len(answers)}
        stats = [CLIENT.get(f"{service.url}/v2/models/iris/stats").json() for _ in range(10)]
        assert {row["model_stats"][0]["inference_count"] for row in stats} == {len(answers)}


def test_a_killed_worker_is_replaced_and_its_counts_stay(root: Path, tmp_path: Path) -> None:
    """The service answers all the while, and the successor counts on."""
    with serving(root, tmp_path, workers=2) as service:
        before = ask_every_worker(service.url, 2)
        victim, other = workers(service.process.pid)
        kill(victim)
        wait_until(lambda: not lives(victim))
        assert predict(service.url).status_code == 200
        wait_until(lambda: victim not in (now := workers(service.process.pid)) and len(now) == 2)
        wait_until(lambda: is_ready(service.url, 2))
        assert other in workers(service.process.pid)
        after = ask_every_worker(service.url, 2)
        names = {worker_of(answer) for answer in before}
        assert len(names | {worker_of(answer) for answer in after}) == 3
        assert counter(service.url, REQUESTS) == len(before) + 1 + len(after)
        assert f"(process {victim}) exited with status 9" in log_of(service)


def test_one_worker_is_watched_too(root: Path, tmp_path: Path) -> None:
    """The only worker is killed three times, and each time another one takes its place."""
    with serving(root, tmp_path) as service:
        for _ in range(3):
            (victim,) = workers(service.process.pid)
            kill(victim)
            wait_until(lambda victim=victim: workers(service.process.pid) not in ([], [victim]))  # type: ignore[misc]
            wait_until(lambda: is_ready(service.url, 1))
            assert predict(service.url).status_code == 200
        assert counter(service.url, REQUESTS) == 3


def test_a_killed_parent_takes_its_workers_with_it(root: Path, tmp_path: Path) -> None:
    """No orphan keeps the port, even with a connection open; a new service can take it at once."""
    with serving(root, tmp_path, workers=2) as service, httpx.Client() as client:
        assert client.get(f"{service.url}/readyz").status_code == 200
        born = children(service.process.pid)
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(map(lives, born)))
        wait_until(lambda: is_free(service.address))
        port = service.address[1]
        (tmp_path / "second").mkdir()
        with serving(root, tmp_path / "second", SOFTSTEP_PORT=port) as second:
            assert second.address == service.address
            assert predict(second.url).status_code == 200


def test_bad_models_stop_nothing(root: Path, tmp_path: Path) -> None:
    """Present from the start, they are told with their reasons, and the good one is served."""
    (root / "torn" / "1").mkdir(parents=True)
    (root / "torn" / "1" / "model.json").write_text("{")
    # Good files, but 1 / scale is more than the weights' dtype can hold.
    unfit = make_artifact("softmax", 1, ["a", "b"], stage={"mean": [0], "scale": [1e-300]})
    write_artifact(root / "unfit" / "1", unfit)
    with serving(root, tmp_path) as service:
        assert predict(service.url).status_code == 200
        for name in ("torn", "unfit"):
            assert CLIENT.get(f"{service.url}/v1/models/{name}").json()["state"] == "UNAVAILABLE"
            assert predict(service.url, name).status_code == 503
            assert f"model {name} version 1 refused: " in log_of(service)
        assert log_of(service).count("refused") == 2
