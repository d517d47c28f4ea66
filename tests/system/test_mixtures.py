"""A mixture of experts behind a real service: its snapshots and its replay have the bits of its learner."""

import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from tests.support.artifacts import artifact, digits
from tests.support.data_directories import LIMIT, json_lines, run_command
from tests.support.learning_client import IRIS, caught_up, data_of, metadata, post, replay_stream, rows_of
from tests.support.paths import SHIPPED
from tests.support.processes import children, kill, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

MODEL, ROWS, BATCH = "digits", 400, 20
MIXTURE = {"rule": "mixture", "constants": {"features": 64}}


def make_artifact() -> Artifact:
    """Return the shipped model, which continues by the rule mixture."""
    shipped = read_artifact(SHIPPED / MODEL / "1", LIMIT)
    fields = shipped.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    return Artifact.from_fields(fields | {"learning": {"rule": "mixture"}}, shipped.tensors)


def learn(service: Service) -> None:
    """Post digits with their labels, and kill the learner half way."""
    X, y = digits()
    (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
    for at in range(0, ROWS, BATCH):
        body = {"id": f"d{at}", "instances": X[at : at + BATCH].tolist(), "labels": y[at : at + BATCH].tolist()}
        assert post(service, f"{MODEL}:feedback", body).status_code == 202
        if at == ROWS // 2:
            kill(learner)
    # Several calls, which reach both workers.
    wait_until(lambda: {metadata(service, MODEL)["seq"] for _ in range(8)} == {ROWS // BATCH}, 20)


def test_a_mixture_survives_a_restart_and_a_replay(tmp_path: Path) -> None:
    """It answers with the same bits while it learns, from a snapshot on disk, and from its log."""
    write_artifact(tmp_path / "models" / MODEL / "1", make_artifact())
    rows = digits()[0][-50:]
    with serving(tmp_path / "models", tmp_path, workers=2) as service:
        data = data_of(service)
        learn(service)
        learned, answers = caught_up(service, MODEL), predictions(service, rows)
        service.process.kill()
        service.process.wait()
    with serving(tmp_path / "models", tmp_path) as service:
        wait_until(lambda: metadata(service, MODEL)["seq"] == ROWS // BATCH, 10)
        assert caught_up(service, MODEL)["weights_sha256"] == learned["weights_sha256"]
        assert predictions(service, rows) == answers
        assert predictions(service, rows[:1]) == answers[: len(answers) // len(rows)]
        (again,) = json_lines(run_command("replay", MODEL, "--data", data, "--json"))
        assert (again["weights_sha256"], again["published"]) == (learned["weights_sha256"], "equal")


def predictions(service: Service, rows: np.ndarray) -> bytes:
    """Return the bytes of the probabilities after the last row, from any worker."""
    body = {"instances": rows.tolist(), "min_seq": ROWS // BATCH}
    answer = post(service, f"{MODEL}:predict", body).json()["predictions"]
    return np.array(answer, np.float32).tobytes()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with the shipped model iris, and one of zero weights."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    write_artifact(tmp_path / "models" / "new" / "1", artifact("zero"))
    return tmp_path / "models"


def feed(service: Service, model: str, count: int, seed: int) -> None:
    """Send rows of iris in one event, labeled by the length of the petal, and wait until they are served."""
    rows = rows_of("iris", count, seed)
    labels = [int(np.digitize(row[2], [2.5, 4.9])) for row in rows]
    assert post(service, f"{model}:feedback", {"instances": rows, "labels": labels}, wait=True).status_code == 200


def answers(service: Service, model: str) -> object:
    """Return the probabilities of some rows of iris."""
    return post(service, f"{model}:predict", {"instances": [IRIS, *rows_of("iris", 20, 9)]}).json()["predictions"]


def check_refusal(answer: httpx.Response) -> None:
    """Check that a change of the rule gets 409 with the advice to roll back."""
    assert (answer.status_code, answer.json()["code"]) == (409, "rule_fixed")
    assert "roll back" in answer.json()["error"]


def test_zero_weights_learn_by_mixture(models: Path, tmp_path: Path) -> None:
    """The rule is shown and fixed; an export, and a service that starts again, go on with the same bits."""
    data = tmp_path / "data"
    with serving(models, tmp_path) as service:
        feed(service, "new", 150, seed=1)
        learned = caught_up(service, "new")
        assert learned["learning"]["rule"] == learned["learning"]["form"] == "mixture"
        assert learned["weights_sha256"] == replay_stream(data_of(service), "new", models=models)[0]
        check_refusal(post(service, "new:configure", {"rule": "newton"}))
        check_refusal(post(service, "new:configure", {"rule": "mixture", "constants": {"seed": 1}}))
        changed = post(service, "new:configure", {"rule": "mixture", "constants": {"rate": 2.0}}, wait=True)
        assert changed.status_code == 200
        feed(service, "new", 50, seed=2)
        before, answered = caught_up(service, "new"), answers(service, "new")
        assert before["learning"]["constants"]["rate"] == 2.0
    with serving(models, tmp_path) as service:
        assert caught_up(service, "new")["weights_sha256"] == before["weights_sha256"]
        assert answers(service, "new") == answered
        assert run_command("export", "new", models / "second" / "1", "--data", data).returncode == 0
        assert httpx.post(f"{service.url}/v2/repository/models/second/load", timeout=20).status_code == 200
        assert answers(service, "second") == answered
        assert caught_up(service, "second")["weights_sha256"] == before["weights_sha256"]
        feed(service, "second", 50, seed=3)
        assert caught_up(service, "second")["learning"]["rule"] == "mixture"
    assert run_command("verify", "--refold", "--data", data).returncode == 0


def test_a_trained_model_changes_to_mixture(models: Path, tmp_path: Path) -> None:
    """Its answers stay until the next row; another rule needs a rollback to before the change."""
    with serving(models, tmp_path) as service:
        feed(service, "iris", 20, seed=4)
        before, answered = caught_up(service, "iris"), answers(service, "iris")
        assert before["learning"]["rule"] == "newton"
        assert post(service, "iris:configure", MIXTURE, wait=True).status_code == 200
        assert caught_up(service, "iris")["learning"]["rule"] == "mixture"
        assert answers(service, "iris") == answered
        check_refusal(post(service, "iris:configure", {"rule": "newton"}))
        feed(service, "iris", 100, seed=5)
        assert answers(service, "iris") != answered
        assert post(service, "iris:classes", {"add": ["gigantea"]}, wait=True).status_code == 200
        feed(service, "iris", 100, seed=6)
        mixed = caught_up(service, "iris")
        assert mixed["weights_sha256"] == replay_stream(data_of(service), "iris")[0]
        check_refusal(post(service, "iris:configure", {"rule": "ftrl"}))
        assert post(service, "iris:rollback", {"seq": before["seq"]}, wait=True).status_code == 200
        assert caught_up(service, "iris")["weights_sha256"] == before["weights_sha256"]
        assert post(service, "iris:configure", {"rule": "ftrl"}, wait=True).status_code == 200
        assert caught_up(service, "iris")["learning"]["rule"] == "ftrl"
    exported = tmp_path / "exported"
    done = run_command("export", "iris", exported, "--seq", mixed["seq"], "--data", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert read_artifact(exported, 1 << 20).weights_sha256 == mixed["weights_sha256"]
    assert run_command("verify", "--refold", "--data", tmp_path / "data").returncode == 0
