"""`softstep purge`: nothing of a stream is left, also after a kill, and other streams are unchanged."""

import shutil
from pathlib import Path

from service.store.directory.ack_marks import read_marks
from service.store.directory.backup_files import write_marks
from service.store.log.events import EventLocation
from service.store.log.sqlite import SqliteLog
from tests.support.data_directories import (
    History,
    json_lines,
    row_payload,
    run_command,
    run_killed_at,
    run_softstep,
    wait_learned,
)
from tests.support.running_service import serving


def two_streams(path: Path) -> Path:
    """Make a data directory with two streams."""
    for version in (1, 2):
        history = History(path, version)
        history.add_feedback(*(f"{version}-{n}" for n in range(30)))
        write_marks(history.data, history.log)
        history.close()
    return path


def assert_purged(path: Path) -> None:
    """Check that nothing of version 1 is left, not even in free pages, and that version 2 is complete."""
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
        assert row_payload(int.from_bytes(f"1-{n}".encode()))[16:] not in left
        assert row_payload(int.from_bytes(f"2-{n}".encode()))[16:] in left
    assert run_killed_at(0, ("verify", "--refold", "--data", path)) == 0


def test_a_purged_stream_is_gone(tmp_path: Path) -> None:
    """Its ids are free and its rows are in no file; without --yes nothing is deleted."""
    two_streams(tmp_path)
    argv = ("purge", "iris/1", "--data", tmp_path)
    done = run_softstep(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "softstep: this deletes 30 events of iris/1 and everything learned from them; confirm with --yes\n"
    )
    assert json_lines(run_softstep(*argv, "--yes", "--json")) == [{"model": "iris", "version": "1", "events": 30}]
    assert_purged(tmp_path)
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert '"action":"purge","object":"iris/1","outcome":"done"}' in line
    again = run_softstep(*argv, "--yes")
    assert (again.returncode, again.stderr) == (
        1,
        "softstep: name one version of the model; these have streams: iris/2\n",
    )


def test_a_killed_purge_is_finished_by_the_next(tmp_path: Path) -> None:
    """Killed at each of its steps, the second run finishes it or finds nothing left to do."""
    whole = two_streams(tmp_path / "whole")
    kills = 0
    for tick in range(1, 100):
        path = tmp_path / str(tick)
        shutil.copytree(whole, path)
        argv = ("purge", "iris/1", "--yes", "--data", path)
        if run_killed_at(tick, argv) == 0:
            break
        kills += 1
        assert run_killed_at(0, argv) in {0, 1}
        log = SqliteLog(path / "log.sqlite")
        assert [stream.version for stream in log.list_streams()] == [2]
        log.close()
        if tick % 5 == 0:
            assert_purged(path)
        shutil.rmtree(path)
    assert kills > 10
    assert_purged(path)


def test_a_directory_in_use_is_rejected(iris_models: Path, tmp_path: Path) -> None:
    """The stream of a running service is unchanged and still served."""
    with serving(iris_models, tmp_path) as service:
        history = History(tmp_path / "data")
        history.add_feedback(1, 2)
        done = run_command("purge", "iris", "--yes", "--data", tmp_path / "data")
        assert done.returncode == 1
        assert done.stderr == "softstep: another instance uses the data directory; stop it or choose another one\n"
        assert wait_learned(service, history.add_feedback(3))["seq"] == 3
    # The next stream of that version begins at the beginning.
    assert run_command("purge", "iris", "--yes", "--data", tmp_path / "data").returncode == 0
    history.close()
    history = History(tmp_path / "data")
    (outcome,) = history.log.append([history.draft(1, "1", row_payload(9))])  # type: ignore[arg-type]
    assert outcome == EventLocation(2, 1)
    history.close()
