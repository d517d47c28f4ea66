"""A model of sparse rows behind a real service: it learns from names and texts, and its state follows from its log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from service.fields.entry_names import EntryNames
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.model_factory import build_model, build_row_model
from tests.support.data_directories import LIMIT, json_lines, run_command
from tests.support.learning_client import caught_up, data_of, metadata, post, replay_stream
from tests.support.processes import children, kill, workers
from tests.support.running_service import Service, serving
from tests.support.sparse_streams import CLASSES, N, sparse_artifact
from tests.support.waiting import wait_until

MODEL = "tickets"
WORDS = ("late", "refund", "parcel", "thanks", "broken", "überall")
# The text of a row; no file may have it.
NEEDLE = "zyxwv"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with one model of a category and a hashed text."""
    path = tmp_path_factory.mktemp("sparse") / "models"
    write_artifact(path / MODEL / "1", sparse_artifact(support=True))
    return path


@pytest.fixture(scope="module")
def running(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve with two workers and a learner."""
    with serving(models, tmp_path_factory.mktemp("service"), workers=2) as service:
        yield service


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows with a country, or none, and a few words."""
    rng = np.random.default_rng(seed)
    countries = ("DE", "PT", "FR", None)
    return [
        {"country": countries[rng.integers(4)], "subject": " ".join(rng.choice(WORDS, rng.integers(0, 4)))}
        for _ in range(count)
    ]


def answers(artifact: Artifact, rows: list[dict[str, Any]], model: Any) -> bytes:
    """Return the probabilities of a model as bytes."""
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.encode_objects(rows).rows.astype(np.float32)
    return bytes(model.predict(encoded).tobytes())


def predictions(service: Service, rows: Any, **more: Any) -> Any:
    """Return the response and its probabilities as bytes."""
    answer = post(service, f"{MODEL}:predict", {"instances": rows, **more}).json()
    return answer, np.array(answer["predictions"], np.float32).tobytes()


def weights(service: Service, seq: int | None = None) -> httpx.Response:
    """Request the weights at a seq."""
    query = {} if seq is None else {"seq": seq}
    return httpx.get(f"{service.url}/v1/models/{MODEL}/weights", params=query, timeout=20)


def check_explanations(service: Service, models: Path, rows: list[dict[str, Any]], bits: bytes, **more: int) -> None:
    """Explanations by a state have the probabilities of that state, and name what each row holds."""
    wait_until(lambda: post(service, f"{MODEL}:explain", {"instances": rows, **more}).status_code == 200, 20)
    found = post(service, f"{MODEL}:explain", {"instances": rows, **more}).json()["explanations"]
    assert np.array([one["probabilities"] for one in found], np.float32).tobytes() == bits
    encoder = read_artifact(models / MODEL / "1", LIMIT).row_encoder
    assert encoder is not None
    names = [set(EntryNames(encoder).name_entries(row)) for row in rows]
    assert [{entry["feature"] for entry in one["top"]} for one in found] == names


def test_a_sparse_model_learns_and_all_its_states_are_available(running: Service, models: Path) -> None:
    """Feedback, losses, tokens, weights of any seq, classes, rollback, correction and forgetting are exact."""
    service, rows, artifact = running, make_rows(12), read_artifact(models / MODEL / "1", LIMIT)
    assert predictions(service, rows)[1] == answers(artifact, rows, build_model(artifact))
    first = weights(service)
    assert {name: array.shape for name, array in safetensors.numpy.load(first.content).items()} == {
        "weight": (N, 3), "bias": (3,),
    }  # fmt: skip
    for number, row in enumerate(rows, 1):
        body = {"id": f"n{number}", "instances": [row], "labels": [CLASSES[number % 3]]}
        answer = post(service, f"{MODEL}:feedback", body, wait=True).json()
        assert (answer["seq"], len(answer["losses"])) == (number, 1)
    result, data = caught_up(service, MODEL), data_of(service)
    sha, fold = replay_stream(data, MODEL, models=models)
    assert result["weights_sha256"] == sha
    assert (result["learning"]["rule"], result["learning"]["form"]) == ("adagrad", "plain")
    assert result["progressive"]["loss"] == fold.progressive_validation["loss"]
    answer, bits = predictions(service, rows, min_seq=12, feedback_tokens=True)
    assert answer["seq"] == 12
    assert bits == answers(artifact, rows, build_row_model(fold.state.served_parameters()))
    assert bits == b"".join(predictions(service, [row], min_seq=12)[1] for row in rows)
    live = safetensors.numpy.load(weights(service).content)
    assert {name: array.shape for name, array in live.items()} == {"weights": (N, 3), "bias": (3,)}
    body = {"tokens": answer["feedback_tokens"][:2], "labels": ["a", "b"]}
    feedback = [post(service, f"{MODEL}:feedback", body, wait=True).json() for _ in range(2)]
    assert [[event["seq"] for event in one["events"]] for one in feedback] == [[13, 14], [13, 14]]
    wait_until(lambda: weights(service, 5).status_code == 200, 20)
    assert weights(service, 5).headers["x-softstep-weights-sha256"] == replay_stream(data, MODEL, 5, models)[0]
    assert weights(service, 0).content == first.content
    past = replay_stream(data, MODEL, 5, models)[1].state.served_parameters()
    check_explanations(service, models, rows, answers(artifact, rows, build_row_model(past)), seq=5)
    check_explanations(service, models, rows, predictions(service, rows, min_seq=14)[1], min_seq=14)
    grown = post(service, f"{MODEL}:classes", {"add": ["ten"]}, wait=True).json()["seq"]
    result = caught_up(service, MODEL)
    assert (result["classes"][-1], result["parameters"]) == ("ten", (N + 1) * 4)
    last = post(service, f"{MODEL}:feedback", {"instances": rows[:1], "labels": ["ten"]}, wait=True).json()["seq"]
    assert len(predictions(service, rows, min_seq=last)[0]["predictions"][0]) == 4
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, models=models)[0]
    post(service, f"{MODEL}:rollback", {"seq": grown - 1}, wait=True)
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, grown - 1, models)[0]
    assert post(service, f"{MODEL}:correct", {"ids": ["n4"], "labels": [["c"]]}, wait=True).status_code == 200
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, models=models)[0]
    post(service, f"{MODEL}:forget", {"ids": ["n3"]}, wait=True)
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, models=models)[0]
    assert weights(service, 5).status_code == 410
    wait_until(lambda: metadata(service, MODEL)["erased"] is True)
    for rule in ("newton", "mixture"):
        assert post(service, f"{MODEL}:configure", {"rule": rule}).status_code == 422
    assert post(service, f"{MODEL}:configure", {"rule": "sgd"}, wait=True).status_code == 200
    post(service, f"{MODEL}:feedback", {"instances": rows[:1], "labels": ["a"]}, wait=True)
    assert caught_up(service, MODEL)["learning"]["rule"] == "sgd"
    assert caught_up(service, MODEL)["weights_sha256"] == replay_stream(data, MODEL, models=models)[0]


def is_mapped(pid: int, data: Path) -> bool:
    """Return whether a process maps the only base of the model."""
    bases = list((data / "streams" / MODEL / "1" / "bases").glob("[0-9a-f]*"))
    return len(bases) == 1 and str(bases[0]) in Path(f"/proc/{pid}/maps").read_text("utf-8")


def test_workers_map_the_base_and_no_text_is_kept(models: Path, tmp_path: Path) -> None:
    """All workers map one file, from before the first feedback on; all files hold columns and values alone."""
    rows = [{"country": "DE", "subject": NEEDLE}]
    with serving(models, tmp_path, workers=2) as service:
        wait_until(lambda: all(is_mapped(pid, data_of(service)) for pid in workers(service.process.pid)), 20)
        assert metadata(service, MODEL)["seq"] == 0
        artifact = read_artifact(models / MODEL / "1", LIMIT)
        assert predictions(service, rows)[1] == answers(artifact, rows, build_model(artifact))
        answer = post(service, f"{MODEL}:feedback", {"instances": rows, "labels": ["a"]}, wait=True)
        assert answer.status_code == 200
        data = data_of(service)
        wait_until(lambda: all(is_mapped(pid, data) for pid in workers(service.process.pid)))
    assert [path for path in data.rglob("*") if path.is_file() and NEEDLE.encode() in path.read_bytes()] == []


def test_kills_backups_and_commands(models: Path, tmp_path: Path) -> None:
    """A killed learner, a killed service, replay, verify, whatif, export and a backup give the same bits."""
    rows = make_rows(30, 5)
    with serving(models, tmp_path) as service:
        data = data_of(service)
        (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
        for number, row in enumerate(rows):
            body = {"id": f"k{number}", "instances": [row], "labels": [CLASSES[number % 3]]}
            assert post(service, f"{MODEL}:feedback", body).status_code == 202
            if number == 10:
                kill(learner)
        wait_until(lambda: metadata(service, MODEL)["seq"] == 30, 10)
        sha = caught_up(service, MODEL)["weights_sha256"]
        assert sha == replay_stream(data, MODEL, models=models)[0]
        service.process.kill()
        service.process.wait()
    with serving(models, tmp_path) as service:
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
    assert answers(exported, rows, build_model(exported)) == expected
    assert run_command("check", target).returncode == 0
    assert exported.manifest.training is not None
    assert exported.manifest.training.rows == 50 + 30
    row = '{"country": "PT", "subject": "late refund"}'
    assert run_command("bisect", MODEL, row, "--data", data).returncode == 0
