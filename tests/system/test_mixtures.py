"""A mixture of experts behind a real service: its snapshots and its replay have the bits of its learner."""

from pathlib import Path

import numpy as np

from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from tests.support.artifacts import digits
from tests.support.data_directories import LIMIT, json_lines, run_command
from tests.support.learning_client import data_of, metadata, post
from tests.support.paths import SHIPPED
from tests.support.processes import children, kill, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

MODEL, ROWS, BATCH = "digits", 400, 20


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
    wait_until(lambda: metadata(service, MODEL)["seq"] == ROWS // BATCH, 20)


def test_a_mixture_survives_a_restart_and_a_replay(tmp_path: Path) -> None:
    """It answers with the same bits while it learns, from a snapshot on disk, and from its log."""
    write_artifact(tmp_path / "models" / MODEL / "1", make_artifact())
    rows = digits()[0][-50:]
    with serving(tmp_path / "models", tmp_path, workers=2) as service:
        data = data_of(service)
        learn(service)
        learned, answers = metadata(service, MODEL), predictions(service, rows)
        service.process.kill()
        service.process.wait()
    with serving(tmp_path / "models", tmp_path) as service:
        wait_until(lambda: metadata(service, MODEL)["seq"] == ROWS // BATCH, 10)
        assert metadata(service, MODEL)["weights_sha256"] == learned["weights_sha256"]
        assert predictions(service, rows) == answers
        assert predictions(service, rows[:1]) == answers[: len(answers) // len(rows)]
        (again,) = json_lines(run_command("replay", MODEL, "--data", data, "--json"))
        assert (again["weights_sha256"], again["published"]) == (learned["weights_sha256"], "equal")


def predictions(service: Service, rows: np.ndarray) -> bytes:
    """Return the bytes of the probabilities."""
    answer = post(service, f"{MODEL}:predict", {"instances": rows.tolist()}).json()["predictions"]
    return np.array(answer, np.float32).tobytes()
