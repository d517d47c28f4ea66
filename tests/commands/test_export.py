"""`softstep export`: the exported version answers with the same bits and continues to learn."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from service.learn.event_fold import EventFold
from service.learn.replay import StreamReplay
from service.store.artifact.artifact import read_artifact
from service.store.artifact.hashing import hash_weights
from service.store.artifact.model_factory import build_model
from tests.support.data_directories import (
    LIMIT,
    History,
    iris_artifact,
    json_lines,
    row_payload,
    run_command,
    run_softstep,
    wait_learned,
)
from tests.support.processes import CLIENT, predict
from tests.support.running_service import serving
from tests.support.waiting import wait_until


def test_a_learned_version_is_served_beside_the_old_one(iris_models: Path, tmp_path: Path) -> None:
    """A running service serves the next version with the same probabilities and the same hash of weights."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        seq = history.add_feedback(*range(30))
        metadata = wait_learned(service, seq)
        before = predict(service.url).json()
        (result,) = json_lines(
            run_softstep("export", "iris", iris_models / "iris", "--data", tmp_path / "data", "--json")
        )
        assert result["directory"] == str(iris_models / "iris" / "2")
        wait_until(lambda: predict(service.url).json()["model_version"] == "2")
        assert predict(service.url).json()["predictions"] == before["predictions"]
        assert result["weights_sha256"] == metadata["weights_sha256"]
        assert CLIENT.get(f"{service.url}/v1/models/iris").json()["weights_sha256"] == metadata["weights_sha256"]
        history.close()


def test_an_earlier_state_is_exported(tmp_path: Path) -> None:
    """It has the classes of that time, its provenance names the stream, and it continues to learn."""
    history = History(tmp_path / "data")
    history.add_feedback(*range(9))
    seq = history.add_class("new")
    seq = history.add_feedback(20, 21, classes=4)
    history.add_feedback(30, classes=4)
    target = tmp_path / "out" / "deep"
    json_lines(run_command("export", "iris/1", target, "--data", tmp_path / "data", "--seq", seq, "--json"))
    artifact = read_artifact(target, LIMIT)
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_to(seq))
    X = np.random.default_rng(3).uniform(0, 7, (50, 4)).astype(np.float32)
    served = replay.fold.state.served_parameters().build_model()
    assert (build_model(artifact).predict(X) == served.predict(X)).all()
    provenance = json.loads((target / "model.json").read_text())["provenance"]
    assert provenance["learned_from"] == "iris/1"
    assert provenance["stream_genesis"] == history.stream.genesis.hex()
    assert (provenance["seq"], provenance["event_hash"]) == (str(seq), replay.position.hash.hex())
    assert provenance["weights_sha256"] == artifact.weights_sha256
    assert artifact.manifest.classes[-1] == "new"
    further = EventFold(artifact)
    further.fold_payloads([row_payload(5, 4)] * 3)
    assert further.events == 3
    assert hash_weights(further.state.candidate_parameters()) != artifact.weights_sha256
    history.close()


def test_export_does_not_overwrite(iris_models: Path, tmp_path: Path) -> None:
    """Existing folders are rejected, and damaged versions keep their numbers."""
    history = History(tmp_path / "data")
    history.add_feedback(1)
    history.close()
    (iris_models / "iris" / "7").mkdir()
    shutil.copytree(iris_models / "iris" / "1", iris_models / "plain")
    argv = ("export", "iris", "--data", tmp_path / "data")
    for target, sentence in (
        (iris_models / "plain", "the target has a version already; name a folder that does not exist yet"),
        (iris_models / "iris" / "1", "the target has a version already; name a folder that does not exist yet"),
        (
            iris_models / "iris" / "1" / "model.json",
            "the target is a file; name a folder that does not exist yet, or a model's folder",
        ),
        (Path("/proc/none"), "disk error: No such file or directory"),
    ):
        done = run_command(*argv, target)
        assert (done.returncode, done.stderr) == (1, f"softstep: {sentence}\n")
    assert run_command(*argv, iris_models / "iris").stdout.startswith(
        f"{iris_models / 'iris' / '8'}: iris/1 at seq 1\n"
    )


@pytest.mark.parametrize("argv", [["export", "iris"], ["export", "iris", "out", "--seq"]])
def test_invalid_usage_is_reported(argv: list[str]) -> None:
    """The exit code is 2."""
    assert run_command(*argv).returncode == 2
