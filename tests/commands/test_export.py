"""`softstep export`: the version that it writes answers with the same bits, and learns on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from service.learn.event_fold import EventFold
from service.learn.replay import StreamReplay
from service.store.artifact.artifact import read_artifact
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.model_factory import build_model
from tests.support.data_directories import LIMIT, History, iris, learned, lines, ran, rows, softstep
from tests.support.processes import CLIENT, predict
from tests.support.servers import serving, wait_until


def test_a_learned_version_is_served_beside_the_old_one(root: Path, tmp_path: Path) -> None:
    """By a service that runs: the next number, the same probabilities, the same hash of weights."""
    with serving(root, tmp_path) as service:
        history = History(tmp_path / "data")
        seq = history.teach(*range(30))
        metadata = learned(service, seq)
        before = predict(service.url).json()
        (told,) = lines(softstep("export", "iris", root / "iris", "--data", tmp_path / "data", "--json"))
        assert told["directory"] == str(root / "iris" / "2")
        wait_until(lambda: predict(service.url).json()["model_version"] == "2")
        assert predict(service.url).json()["predictions"] == before["predictions"]
        assert told["weights_sha256"] == metadata["weights_sha256"]
        assert CLIENT.get(f"{service.url}/v1/models/iris").json()["weights_sha256"] == metadata["weights_sha256"]
        history.close()


def test_a_state_of_before_is_exported(tmp_path: Path) -> None:
    """With classes that were added by then; its provenance says where it comes from, and it goes on learning."""
    history = History(tmp_path / "data")
    history.teach(*range(9))
    seq = history.add_class("new")
    seq = history.teach(20, 21, classes=4)
    history.teach(30, classes=4)
    target = tmp_path / "out" / "deep"
    lines(ran("export", "iris/1", target, "--data", tmp_path / "data", "--seq", seq, "--json"))
    artifact = read_artifact(target, LIMIT)
    replay = StreamReplay(history.stream, iris(), history.log)
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
    further.fold_payloads([rows(5, 4)] * 3)
    assert further.events == 3
    assert hash_tensors(further.state.candidate_parameters().tensors()) != artifact.weights_sha256
    history.close()


def test_nothing_is_written_over(root: Path, tmp_path: Path) -> None:
    """What is there already, whatever it is, is refused; damaged versions keep their number."""
    history = History(tmp_path / "data")
    history.teach(1)
    history.close()
    (root / "iris" / "7").mkdir()
    shutil.copytree(root / "iris" / "1", root / "plain")
    argv = ("export", "iris", "--data", tmp_path / "data")
    for target, sentence in (
        (root / "plain", "the target has a version already; name a folder that does not exist yet"),
        (root / "iris" / "1", "the target has a version already; name a folder that does not exist yet"),
        (
            root / "iris" / "1" / "model.json",
            "the target is a file; name a folder that does not exist yet, or a model's folder",
        ),
        (Path("/proc/none"), "disk error: No such file or directory"),
    ):
        done = ran(*argv, target)
        assert (done.returncode, done.stderr) == (1, f"softstep: {sentence}\n")
    assert ran(*argv, root / "iris").stdout.startswith(f"{root / 'iris' / '8'}: iris/1 at seq 1\n")


@pytest.mark.parametrize("argv", [["export", "iris"], ["export", "iris", "out", "--seq"]])
def test_usage_is_told(argv: list[str]) -> None:
    """With exit code 2."""
    assert ran(*argv).returncode == 2
