"""A network behind a real service: it learns in all its layers, and its state follows from its log."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from service.store.artifact.artifact import read_artifact, write_artifact
from service.store.artifact.model_factory import build_model
from tests.support.data_directories import LIMIT, json_lines, run_command
from tests.support.learning_client import caught_up, data_of, metadata, post, replay_stream, rows_of
from tests.support.paths import SHIPPED
from tests.support.processes import children, kill, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

MODEL = "digits-mlp"


@pytest.fixture(scope="module")
def network_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with the shipped network alone."""
    path = tmp_path_factory.mktemp("networks") / "models"
    shutil.copytree(SHIPPED / MODEL, path / MODEL)
    return path


@pytest.fixture(scope="module")
def running(network_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve with two workers and a learner."""
    with serving(network_models, tmp_path_factory.mktemp("service"), workers=2) as service:
        yield service


def predictions(service: Service, rows: Any, **more: Any) -> Any:
    """Return the response and its probabilities as bytes."""
    answer = post(service, f"{MODEL}:predict", {"instances": rows, **more}).json()
    return answer, np.array(answer["predictions"], np.float32).tobytes()


def weights(service: Service, seq: int | None = None) -> httpx.Response:
    """Request the weights at a seq."""
    query = {} if seq is None else {"seq": seq}
    return httpx.get(f"{service.url}/v1/models/{MODEL}/weights", params=query, timeout=20)


def test_a_network_learns_and_all_its_states_are_available(running: Service) -> None:
    """Feedback, losses, tokens, weights of any seq, classes, rollback and forgetting are exact to the bit."""
    service, rows = running, rows_of(MODEL, 12)
    shipped = build_model(read_artifact(SHIPPED / MODEL / "1", LIMIT))
    assert predictions(service, rows)[1] == shipped.predict(np.array(rows, np.float32)).tobytes()
    first = weights(service)
    assert sorted(safetensors.numpy.load(first.content)) == ["bias", "hidden.bias", "hidden.weight", "weight"]
    for number, row in enumerate(rows, 1):
        body = {"id": f"n{number}", "instances": [row], "labels": [number % 10]}
        answer = post(service, f"{MODEL}:feedback", body, wait=True).json()
        assert (answer["seq"], len(answer["losses"])) == (number, 1)
    result, data = caught_up(service, MODEL), data_of(service)
    sha, fold = replay_stream(data, MODEL)
    assert result["weights_sha256"] == sha
    assert (result["learning"]["rule"], result["learning"]["form"]) == ("adagrad", "layers")
    assert result["progressive"]["loss"] == fold.progressive_validation["loss"]
    answer, bits = predictions(service, rows, min_seq=12, feedback_tokens=True)
    assert answer["seq"] == 12
    assert bits == fold.state.served_parameters().build_model().predict(np.array(rows, np.float32)).tobytes()
    live = safetensors.numpy.load(weights(service).content)
    assert {name: array.shape for name, array in live.items() if name.startswith("layers")} == {
        "layers.0.weights": (64, 32), "layers.0.bias": (32,), "layers.1.weights": (32, 10), "layers.1.bias": (10,),
    }  # fmt: skip
    body = {"tokens": answer["feedback_tokens"][:2], "labels": [3, "4"]}
    feedback = [post(service, f"{MODEL}:feedback", body, wait=True).json() for _ in range(2)]
    assert [[event["seq"] for event in one["events"]] for one in feedback] == [[13, 14], [13, 14]]
    wait_until(lambda: weights(service, 5).status_code == 200, 20)
    assert weights(service, 5).headers["x-softstep-weights-sha256"] == replay_stream(data, MODEL, 5)[0]
    assert weights(service, 0).content == first.content
    grown = post(service, f"{MODEL}:classes", {"add": ["ten"]}, wait=True).json()["seq"]
    result = caught_up(service, MODEL)
    assert (result["classes"][-1], result["layers"][-1]["outputs"], result["parameters"]) == (
        "ten",
        11,
        65 * 32 + 33 * 11,
    )
    last = post(service, f"{MODEL}:feedback", {"instances": rows[:1], "labels": ["ten"]}, wait=True).json()["seq"]
    assert len(predictions(service, rows, min_seq=last)[0]["predictions"][0]) == 11
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL)[0]
    post(service, f"{MODEL}:rollback", {"seq": grown - 1}, wait=True)
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, grown - 1)[0]
    post(service, f"{MODEL}:forget", {"ids": ["n3"]}, wait=True)
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL)[0]
    assert weights(service, 5).status_code == 410
    needle = np.array(rows[2], np.float32).tobytes()
    wait_until(lambda: metadata(service, MODEL)["erased"] is True)
    assert [path for path in data.rglob("*") if path.is_file() and needle in path.read_bytes()] == []
    refused = post(service, f"{MODEL}:configure", {"rule": "newton"})
    assert refused.status_code == 422
    assert post(service, f"{MODEL}:configure", {"rule": "sgd"}, wait=True).status_code == 200
    post(service, f"{MODEL}:feedback", {"instances": rows[:1], "labels": [1]}, wait=True)
    assert caught_up(service, MODEL)["learning"]["rule"] == "sgd"
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL)[0]


def test_kills_backups_and_commands(network_models: Path, tmp_path: Path) -> None:
    """A killed learner, a killed service, replay, verify, export and a backup give the same bits."""
    rows = rows_of(MODEL, 30, 5)
    with serving(network_models, tmp_path) as service:
        data = data_of(service)
        (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
        for number, row in enumerate(rows):
            body = {"id": f"k{number}", "instances": [row], "labels": [number % 10]}
            assert post(service, f"{MODEL}:feedback", body).status_code == 202
            if number == 10:
                kill(learner)
        wait_until(lambda: metadata(service, MODEL)["seq"] == 30, 10)
        sha = caught_up(service, MODEL)["weights_sha256"]
        assert sha == replay_stream(data, MODEL)[0]
        service.process.kill()
        service.process.wait()
    with serving(network_models, tmp_path) as service:
        wait_until(lambda: metadata(service, MODEL)["seq"] == 30, 10)
        assert caught_up(service, MODEL)["weights_sha256"] == sha
        expected = predictions(service, rows)[1]
    (result,) = json_lines(run_command("replay", MODEL, "--data", data, "--json"))
    assert (result["weights_sha256"], result["published"]) == (sha, "equal")
    assert run_command("verify", "--refold", "--data", data).returncode == 0
    assert run_command("backup", tmp_path / "backup", "--data", data).returncode == 0
    assert run_command("verify", "--refold", "--data", tmp_path / "backup").returncode == 0
    target = tmp_path / "exported" / MODEL / "2"
    assert run_command("export", MODEL, target, "--data", data).returncode == 0
    exported = read_artifact(target, LIMIT)
    assert exported.weights_sha256 == sha
    assert build_model(exported).predict(np.array(rows, np.float32)).tobytes() == expected
    assert run_command("check", target).returncode == 0
    assert exported.manifest.training is not None
    assert exported.manifest.training.rows == 1347 + 30
    assert json.loads((target / "model.json").read_text())["provenance"]["learned_from"] == f"{MODEL}/1"


def test_a_new_version_may_have_other_layers(network_models: Path, tmp_path: Path) -> None:
    """It is served within two seconds with a stream of its own, and the old version stays reachable."""
    shutil.copytree(network_models, tmp_path / "models")
    linear = read_artifact(SHIPPED / "digits" / "1", LIMIT)
    rows = rows_of(MODEL, 3)
    with serving(tmp_path / "models", tmp_path) as service:
        post(service, f"{MODEL}:feedback", {"instances": rows, "labels": [1, 2, 3]}, wait=True)
        write_artifact(tmp_path / "models" / MODEL / "2", linear)
        wait_until(lambda: metadata(service, MODEL)["version"] == "2")
        answer, bits = predictions(service, rows)
        assert (answer["model_version"], answer["seq"]) == ("2", 0)
        assert bits == build_model(linear).predict(np.array(rows, np.float32)).tobytes()
        post(service, f"{MODEL}:feedback", {"instances": rows, "labels": [1, 2, 3]}, wait=True)
        assert caught_up(service, MODEL)["learning"]["rule"] == "newton"
        old = caught_up(service, f"{MODEL}/versions/1")
        assert (old["seq"], len(old["layers"])) == (1, 2)
