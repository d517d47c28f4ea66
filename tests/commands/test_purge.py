"""`softstep purge`: nothing of a stream is left, whenever it is killed, and nobody else's is touched."""

import shutil
from pathlib import Path

from service.store.directory.ack_marks import read_marks
from service.store.directory.backup_files import write_marks
from service.store.log.events import EventLocation
from service.store.log.sqlite import SqliteLog
from tests.support.data_directories import History, killed_at, learned, lines, ran, rows, softstep
from tests.support.servers import serving


def filled(path: Path) -> Path:
    """A data directory with two streams."""
    for version in (1, 2):
        history = History(path, version)
        history.teach(*(f"{version}-{n}" for n in range(30)))
        write_marks(history.data, history.log)
        history.close()
    return path


def is_purged(path: Path) -> None:
    """Of version 1 nothing is left, not even in free pages, and version 2 is whole."""
    log = SqliteLog(path / "log.sqlite")
    (stream,) = log.list_streams()
    assert stream.version == 2
    assert log.stream_state(stream.number).seq == 30
    assert log.find_ids("iris", [b"1-3", b"2-3"]).keys() == {b"2-3"}
    assert [mark for mark, _ in read_marks(path / "marks" / "0")] == [stream.number]
    log.close()
    assert [folder.name for folder in (path / "streams").iterdir()] == ["iris"]
    assert [folder.name for folder in (path / "streams" / "iris").iterdir()] == ["2"]
    left = b"".join(file.read_bytes() for file in path.glob("log.sqlite*"))
    for n in range(30):
        assert rows(int.from_bytes(f"1-{n}".encode()))[16:] not in left
        assert rows(int.from_bytes(f"2-{n}".encode()))[16:] in left
    assert killed_at(0, ("verify", "--refold", "--data", path)) == 0


def test_a_purged_stream_is_gone(tmp_path: Path) -> None:
    """Its ids are free, its rows are in no file, and it is done only where it is meant."""
    filled(tmp_path)
    argv = ("purge", "iris/1", "--data", tmp_path)
    done = softstep(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "softstep: this deletes 30 events of iris/1 and everything learned from them; confirm with --yes\n"
    )
    assert lines(softstep(*argv, "--yes", "--json")) == [{"model": "iris", "version": "1", "events": 30}]
    is_purged(tmp_path)
    again = softstep(*argv, "--yes")
    assert (again.returncode, again.stderr) == (
        1,
        "softstep: name one version of the model; these have streams: iris/2\n",
    )


def test_a_killed_purge_is_finished_by_the_next(tmp_path: Path) -> None:
    """Killed at each of its steps in turn; the second run ends it, or says that nothing is left to do."""
    whole = filled(tmp_path / "whole")
    kills = 0
    for tick in range(1, 100):
        path = tmp_path / str(tick)
        shutil.copytree(whole, path)
        argv = ("purge", "iris/1", "--yes", "--data", path)
        if killed_at(tick, argv) == 0:
            break
        kills += 1
        assert killed_at(0, argv) in {0, 1}
        log = SqliteLog(path / "log.sqlite")
        assert [stream.version for stream in log.list_streams()] == [2]
        log.close()
        if tick % 5 == 0:
            is_purged(path)
        shutil.rmtree(path)
    assert kills > 10
    is_purged(path)


def test_a_directory_in_use_is_refused(root: Path, tmp_path: Path) -> None:
    """A running service has it; nothing happens to the stream, and it is served on."""
    with serving(root, tmp_path) as service:
        history = History(tmp_path / "data")
        history.teach(1, 2)
        done = ran("purge", "iris", "--yes", "--data", tmp_path / "data")
        assert done.returncode == 1
        assert done.stderr == "softstep: another instance uses the data directory; stop it or choose another one\n"
        assert learned(service, history.teach(3))["seq"] == 3
    # The next stream of that version begins at the beginning.
    assert ran("purge", "iris", "--yes", "--data", tmp_path / "data").returncode == 0
    history.close()
    history = History(tmp_path / "data")
    (outcome,) = history.log.append([history.draft(1, "1", rows(9))])  # type: ignore[arg-type]
    assert outcome == EventLocation(2, 1)
    history.close()
