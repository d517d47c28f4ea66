"""`softstep export`: the exported version answers with the same bits and continues to learn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.convert.graphs.graph_file import check_onnx
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
from tests.support.paths import SHIPPED
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


def test_a_learned_model_becomes_onnx(iris_models: Path, tmp_path: Path) -> None:
    """The file has the probabilities of the version that `export` writes of the same events."""
    history = History(tmp_path / "data")
    history.add_feedback(*range(9))
    seq = history.add_feedback(20, 21)
    history.add_feedback(30)
    history.close()
    path, data = tmp_path / "iris.onnx", ("--data", tmp_path / "data", "--seq", seq, "--json")
    json_lines(run_command("export", "iris", tmp_path / "version", *data))
    (result,) = json_lines(run_command("export", "iris", "--onnx", path, *data, "--models", iris_models))
    artifact = read_artifact(tmp_path / "version", LIMIT)
    assert (result["model"], result["version"], result["seq"]) == ("iris", "1", seq)
    assert (result["file"], result["bytes"]) == (str(path), path.stat().st_size)
    assert result["weights_sha256"] == artifact.weights_sha256
    assert result["rows_compared"] == 200
    assert result["largest_difference"] < 1e-5
    assert path.read_bytes() == check_onnx(artifact).raw


def test_a_model_that_has_not_learned_becomes_onnx(iris_models: Path, tmp_path: Path) -> None:
    """It is the largest version of the models directory, or the one that is named; learned ones go first."""
    path, models = tmp_path / "iris.onnx", ("--models", iris_models, "--data", tmp_path / "data")
    shutil.copytree(iris_models / "iris" / "1", iris_models / "iris" / "12")
    for name, version in (("iris", 12), ("iris/1", 1)):
        done = run_command("export", name, "--onnx", path, *models)
        assert done.stdout.startswith(f"{path}: iris/{version} as it was trained\n200 rows compared with onnxruntime")
        assert path.read_bytes() == check_onnx(iris_artifact()).raw
    history = History(tmp_path / "data")
    seq = history.add_feedback(1)
    history.close()
    for name, text in (("iris", f"iris/1 at seq {seq}"), ("iris/12", "iris/12 as it was trained")):
        assert run_command("export", name, "--onnx", path, *models).stdout.startswith(f"{path}: {text}\n")


def test_onnx_refusals_leave_no_file(iris_models: Path, tmp_path: Path) -> None:
    """A model that ONNX cannot express, one that is nowhere, and a folder that is missing."""
    path, options = tmp_path / "model.onnx", ("--models", iris_models, "--data", tmp_path / "data")
    shutil.copytree(SHIPPED / "languages", iris_models / "languages")
    for arguments, sentence in (
        (("languages", "--onnx", path), 'the field "text" is a text, and ONNX takes numbers, booleans, listed '),
        (("roses", "--onnx", path), "neither the data directory nor the models directory has that model"),
        (("iris/2", "--onnx", path), "neither the data directory nor the models directory has that model"),
        (
            ("iris", "--onnx", path, "--seq", "3"),
            "the model has learned nothing in the data directory; leave out --seq",
        ),
        (("iris", "--onnx", tmp_path / "missing" / "x.onnx"), "disk error: No such file or directory"),
    ):
        done = run_command("export", *arguments, *options)
        assert done.returncode == 1
        assert done.stderr.startswith(f"softstep: {sentence}")
        assert not path.exists()


def test_export_has_one_target(tmp_path: Path) -> None:
    """Neither is an error of the command line, wherever the options stand; and one command writes one of them."""
    data = ("--data", tmp_path / "data")
    for arguments in (("iris",), ("iris", *data), (*data, "iris")):
        done = run_command("export", *arguments)
        assert done.returncode == 2
        assert "the following arguments are required: directory" in done.stderr
    for arguments in (("iris", tmp_path, "--onnx", "x.onnx"), ("--onnx", "x.onnx", "iris", *data, tmp_path)):
        done = run_command("export", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("softstep: name either a folder or a file with --onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_sentence(package: str, iris_models: Path, tmp_path: Path) -> None:
    """The command says how to install it; without --onnx nothing of it is needed."""
    code = f"import sys; sys.modules[{package!r}] = None; from service.command_line import main; sys.exit(main())"
    arguments = ["export", "iris", "--onnx", str(tmp_path / "x.onnx"), "--models", str(iris_models)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    sentence = 'softstep: `softstep export --onnx` needs more packages: pip install "softstep[convert]"\n'
    assert done.stderr == sentence
