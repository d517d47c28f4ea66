"""`softstep replay`: beside a running service and after it."""

from pathlib import Path

import httpx
import pytest

from service.store.artifact.artifact import read_artifact
from service.store.states.state_folder import list_seqs, read_latest
from tests.support.data_directories import (
    LIMIT,
    History,
    iris_artifact,
    json_lines,
    run_command,
    run_softstep,
    wait_learned,
)
from tests.support.running_service import serving


def test_a_replay_equals_what_is_served(iris_models: Path, tmp_path: Path) -> None:
    """The published snapshot of a running service equals the replay."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        history.add_feedback(*range(40))
        history.add_class("new")
        seq = history.add_feedback(*range(50, 80), classes=4)
        metadata = wait_learned(service, seq)
        (result,) = json_lines(run_softstep("replay", "iris", "--data", tmp_path / "data", "--json"))
        assert result["weights_sha256"] == metadata["weights_sha256"]
        assert (result["seq"], result["events"], result["rows"], result["published"]) == (seq, 70, 70, "equal")
        assert result["accuracy"] == metadata["progressive"]["accuracy"]
        history.close()


def test_a_different_published_state_is_reported(tmp_path: Path) -> None:
    """The exit code is 1; a damaged file counts as missing."""
    history = History(tmp_path)
    seq = history.add_feedback(1, 2, 3)
    history.close()
    argv = ("replay", "iris/1", "--data", tmp_path)
    assert run_softstep(*argv, "--seq", 2, "--keep", history.folder.snapshots).returncode == 0
    (history.folder.snapshots / "2").rename(history.folder.snapshots / str(seq))
    done = run_softstep(*argv)
    assert done.returncode == 1
    assert "the published state is different" in done.stdout
    (history.folder.snapshots / str(seq)).write_bytes(b"")
    done = run_softstep(*argv)
    assert done.returncode == 0
    assert "published" not in done.stdout


def test_a_state_is_written_as_a_snapshot(tmp_path: Path) -> None:
    """--keep writes the state of any seq as a file that a worker could serve."""
    history = History(tmp_path / "data")
    history.add_feedback(*range(9))
    history.close()
    (result,) = json_lines(
        run_command("replay", "iris", "--data", tmp_path / "data", "--seq", 5, "--keep", tmp_path / "kept", "--json")
    )
    assert list_seqs(tmp_path / "kept") == [5]
    found = read_latest(tmp_path / "kept")
    assert found is not None
    assert found[1].fields["weights_sha256"] == result["weights_sha256"]
    assert found[1].arrays["weights"].shape == (4, 3)


def test_the_start_is_the_artifact(iris_models: Path, tmp_path: Path) -> None:
    """After a rollback to 0 every report has the artifact's hash of weights, and no mean over no rows."""
    expected = iris_artifact().weights_sha256
    with serving(iris_models, tmp_path) as service:
        url = f"{service.url}/v1/models/iris"
        rows = {"instances": [[6.0, 2.7, 5.1, 1.6], [5.1, 3.5, 1.4, 0.2]]}
        fresh, at_start = httpx.get(url).json(), httpx.post(f"{url}:predict", json=rows).json()["predictions"]
        history = History(tmp_path / "data")
        learned = wait_learned(service, history.add_feedback(*range(30)))
        assert fresh["weights_sha256"] == expected != learned["weights_sha256"]
        assert "softstep_learn_loss{" in httpx.get(f"{service.url}/metrics").text
        metadata = wait_learned(service, history.rollback(0))
        assert metadata["weights_sha256"] == expected
        assert httpx.get(f"{url}/weights").headers["x-softstep-weights-sha256"] == expected
        assert httpx.post(f"{url}:predict", json=rows).json()["predictions"] == at_start
        means = ("loss", "accuracy", "recent_loss", "recent_accuracy", "step_norm", "mean_step_norm")
        assert {metadata["progressive"][name] for name in means} == {None}
        assert "softstep_learn_loss{" not in httpx.get(f"{service.url}/metrics").text
        data = ("--data", tmp_path / "data")
        (result,) = json_lines(run_softstep("replay", "iris", *data, "--json"))
        assert (result["weights_sha256"], result["published"]) == (expected, "equal")
        assert (result["rows"], result["loss"], result["accuracy"]) == (0, None, None)
        assert "0 rows\nweights" in run_softstep("replay", "iris", *data).stdout
        (exported,) = json_lines(run_command("export", "iris", tmp_path / "out", *data, "--json"))
        assert exported["weights_sha256"] == read_artifact(tmp_path / "out", LIMIT).weights_sha256 == expected
        history.close()


def test_unavailable_states_are_reported(tmp_path: Path) -> None:
    """Forgotten states, unknown seqs and models, and disk errors give one sentence and exit code 1."""
    nowhere = run_command("replay", "iris", "--data", tmp_path / "none")
    assert (nowhere.returncode, (tmp_path / "none").exists()) == (1, False)
    assert nowhere.stderr == "softstep: the data directory has no feedback log; name the one that the service uses\n"
    (tmp_path / "odd").mkdir()
    for name in ("log.sqlite", "marks"):
        (tmp_path / "odd" / name).touch()
    odd = run_command("replay", "iris", "--data", tmp_path / "odd")
    assert odd.returncode == 1
    assert odd.stderr.endswith("the feedback log is another program's database; use another directory\n")
    odd = run_command("backup", tmp_path / "copy", "--data", tmp_path / "odd")
    assert (odd.returncode, odd.stderr) == (1, "softstep: the data directory cannot be used: File exists\n")
    history, second = History(tmp_path), History(tmp_path, 2)
    history.add_feedback(1, 2)
    history.forget(2)
    for name, more, sentence in (
        ("iris", (), "name one version of the model; these have streams: iris/1, iris/2"),
        ("iris/3", (), "name one version of the model; these have streams: iris/1, iris/2"),
        ("unknown", (), "no version of that model has a stream in this feedback log"),
        ("iris/1", ("--seq", 2), "event 3 forgot an event of that state; ask for seq 3 or later"),
        ("iris/1", ("--seq", 4), "the stream has the seqs 0 to 3"),
        ("iris/1", ("--seq", 1, "--keep", "/proc/none"), "disk error: No such file or directory"),
    ):
        done = run_command("replay", name, *more, "--data", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {sentence}\n")
    (history.folder.artifact / "model.json").write_text("{}")
    assert run_command("replay", "iris/1", "--data", tmp_path).returncode == 1
    history.close()
    second.close()


@pytest.mark.parametrize("argv", [["replay"], ["replay", "iris", "--seq", "x"]])
def test_invalid_usage_is_reported(argv: list[str]) -> None:
    """The exit code is 2."""
    assert run_command(*argv).returncode == 2
