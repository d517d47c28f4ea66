"""`softstep replay`: beside a running service, and over what it left."""

from pathlib import Path

import pytest

from service.store.states.state_folder import list_seqs, read_latest
from tests.support.data_directories import History, learned, lines, ran, softstep
from tests.support.servers import serving


def test_what_is_served_is_what_replays(root: Path, tmp_path: Path) -> None:
    """While the service runs, and the snapshot that was published says the same."""
    with serving(root, tmp_path) as service:
        history = History(tmp_path / "data")
        history.teach(*range(40))
        history.add_class("new")
        seq = history.teach(*range(50, 80), classes=4)
        metadata = learned(service, seq)
        (told,) = lines(softstep("replay", "iris", "--data", tmp_path / "data", "--json"))
        assert told["weights_sha256"] == metadata["weights_sha256"]
        assert (told["seq"], told["events"], told["rows"], told["published"]) == (seq, 70, 70, "equal")
        assert told["accuracy"] == metadata["progressive"]["accuracy"]
        history.close()


def test_a_published_state_that_differs_is_told(tmp_path: Path) -> None:
    """With exit code 1; a damaged file is none."""
    history = History(tmp_path)
    seq = history.teach(1, 2, 3)
    history.close()
    argv = ("replay", "iris/1", "--data", tmp_path)
    assert softstep(*argv, "--seq", 2, "--keep", history.folder.snapshots).returncode == 0
    (history.folder.snapshots / "2").rename(history.folder.snapshots / str(seq))
    done = softstep(*argv)
    assert done.returncode == 1
    assert "the published state is different" in done.stdout
    (history.folder.snapshots / str(seq)).write_bytes(b"")
    done = softstep(*argv)
    assert done.returncode == 0
    assert "published" not in done.stdout


def test_a_state_is_kept_as_a_snapshot(tmp_path: Path) -> None:
    """The file that a worker could serve, of any seq."""
    history = History(tmp_path / "data")
    history.teach(*range(9))
    history.close()
    (told,) = lines(
        ran("replay", "iris", "--data", tmp_path / "data", "--seq", 5, "--keep", tmp_path / "kept", "--json")
    )
    assert list_seqs(tmp_path / "kept") == [5]
    found = read_latest(tmp_path / "kept")
    assert found is not None
    assert found[1].fields["weights_sha256"] == told["weights_sha256"]
    assert found[1].arrays["weights"].shape == (4, 3)


def test_what_cannot_be_replayed_is_told(tmp_path: Path) -> None:
    """In a sentence, with exit code 1: what was forgotten, what there is not, and where nothing is."""
    nowhere = ran("replay", "iris", "--data", tmp_path / "none")
    assert (nowhere.returncode, (tmp_path / "none").exists()) == (1, False)
    assert nowhere.stderr == "softstep: the data directory has no feedback log; name the one that the service uses\n"
    (tmp_path / "odd").mkdir()
    for name in ("log.sqlite", "marks"):
        (tmp_path / "odd" / name).touch()
    odd = ran("replay", "iris", "--data", tmp_path / "odd")
    assert (odd.returncode, odd.stderr) == (1, "softstep: the data directory cannot be used: File exists\n")
    history, second = History(tmp_path), History(tmp_path, 2)
    history.teach(1, 2)
    history.forget(2)
    for name, more, sentence in (
        ("iris", (), "name one version of the model; these have streams: iris/1, iris/2"),
        ("iris/3", (), "name one version of the model; these have streams: iris/1, iris/2"),
        ("unknown", (), "no version of that model has a stream in this data directory"),
        ("iris/1", ("--seq", 2), "event 3 forgot an event of that state; ask for seq 3 or later"),
        ("iris/1", ("--seq", 4), "the stream has the seqs 0 to 3"),
        ("iris/1", ("--seq", 1, "--keep", "/proc/none"), "disk error: No such file or directory"),
    ):
        done = ran("replay", name, *more, "--data", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {sentence}\n")
    (history.folder.artifact / "model.json").write_text("{}")
    assert ran("replay", "iris/1", "--data", tmp_path).returncode == 1
    history.close()
    second.close()


@pytest.mark.parametrize("argv", [["replay"], ["replay", "iris", "--seq", "x"]])
def test_usage_is_told(argv: list[str]) -> None:
    """With exit code 2."""
    assert ran(*argv).returncode == 2
