"""`softstep backup` and `softstep restore`: backups are complete and verified, and forgotten events stay forgotten."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.access.key_file import KeyTable, read_keys
from service.learn.replay import StreamReplay
from service.store.directory.ack_marks import read_marks
from service.store.log.events import Kind
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import write_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.data_directories import (
    History,
    file_hashes,
    iris_artifact,
    json_lines,
    row_payload,
    run_command,
    run_killed_at,
    run_softstep,
    wait_learned,
)
from tests.support.running_service import serving

KEY = b"5a" * 32 + b"\n"
NO_NAME = "softstep: the folder for the backup exists already; name one that does not\n"
NOT_EMPTY = "softstep: the data directory has a log; choose an empty directory, or replace its content with --over\n"
UNFINISHED = "a restore of the data directory was interrupted; run softstep restore again"


def test_a_backup_of_a_running_service_is_served(iris_models: Path, tmp_path: Path) -> None:
    """A backup made while events are learned restores to the bits of that moment."""
    data, stop = tmp_path / "data", threading.Event()
    with serving(iris_models, tmp_path) as service:
        history = History(data)
        wait_learned(service, history.add_feedback(*range(50)))
        (data / "token.key").write_bytes(KEY)

        def teach() -> None:
            busy = History(data)
            for n in range(100, 100_000):
                if stop.is_set():
                    break
                busy.add_feedback(n)
            busy.close()

        teacher = threading.Thread(target=teach)
        teacher.start()
        try:
            (result,) = json_lines(run_softstep("backup", tmp_path / "backup", "--data", data, "--json"))
        finally:
            stop.set()
            teacher.join()
        last = history.log.stream_state(history.stream.number).seq
        assert 50 <= result["seq"] < last
        (mark,) = read_marks(tmp_path / "backup" / "marks" / "0")
        assert (mark[1].seq, mark[1].hash.hex()) == (result["seq"], result["hash"])
        replay = StreamReplay(history.stream, iris_artifact(), history.log)
        list(replay.fold_to(result["seq"]))
        history.close()
    (verified, marks) = json_lines(run_softstep("verify", "--refold", "--data", tmp_path / "backup", "--json"))
    assert (verified["seq"], verified["damage"], marks) == (result["seq"], [], {"marks": "good"})
    again = tmp_path / "again"
    restored = run_softstep("restore", tmp_path / "backup", "--data", again / "data", "--json")
    assert json_lines(restored) == [{"finished": True, "forgotten_again": 0}]
    key = again / "data" / "token.key"
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (KEY, 0o600)
    with serving(iris_models, again) as service:
        metadata = wait_learned(service, result["seq"])
        assert (metadata["seq"], metadata["progressive"]["rows"]) == (
            result["seq"],
            replay.fold.progressive_validation["rows"],
        )
        refused = run_softstep("restore", tmp_path / "backup", "--data", again / "data", "--over")
        assert "another instance uses the data directory" in refused.stderr
    (after, _) = json_lines(run_softstep("replay", "iris", "--data", again / "data", "--json")) * 2
    assert (after["hash"], after["published"]) == (result["hash"], "equal")


def write_checkpoint(history: History, seq: int) -> None:
    """Write a checkpoint as the learner would."""
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_to(seq))
    fields, arrays = replay.fold.checkpoint_contents()
    write_snapshot(history.folder.checkpoints, seq, {**fields, **replay.position_fields()}, arrays, durable=True)


def files_with_row(path: Path, id_: int) -> list[str]:
    """Return the files below a folder that contain the row of an event."""
    row = row_payload(int.from_bytes(str(id_).encode()))[16:]
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and row in file.read_bytes()]


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data directory in `data` and its backup in `backup`, then forget and add events."""
    path = tmp_path_factory.mktemp("whole")
    history, second = History(path / "data"), History(path / "data", 2)
    history.add_feedback(*range(30))
    history.forget(4)
    second.add_feedback(*range(200, 210))
    write_checkpoint(second, 10)
    second.forget(201)
    write_checkpoint(history, 2)
    write_checkpoint(history, 31)
    assert run_softstep("backup", path / "backup", "--data", path / "data").returncode == 0
    assert list_seqs(path / "backup" / "streams" / "iris" / "1" / "checkpoints") == [31]
    # What the second stream has was made of an event that is forgotten.
    assert list_seqs(path / "backup" / "streams" / "iris" / "2" / "checkpoints") == []
    history.add_feedback(*range(40, 50))
    history.forget(9, 45)
    second.forget(203)
    for each in (history, second):
        each.log.empty_wal()
        each.close()
    return path


def test_events_forgotten_since_the_backup_stay_forgotten(backed_up: Path, tmp_path: Path) -> None:
    """Restoring over a log that forgot events leaves their rows in no file, and no state made of them."""
    assert files_with_row(backed_up / "backup", 9) == ["log.sqlite"]
    assert files_with_row(backed_up / "backup", 4) == files_with_row(backed_up / "data", 9) == []
    shutil.copytree(backed_up / "data", tmp_path / "data")
    argv = ("restore", backed_up / "backup", "--data", tmp_path / "data")
    refused = run_command(*argv)
    assert (refused.returncode, refused.stderr) == (1, NOT_EMPTY)
    assert file_hashes(tmp_path / "data") == file_hashes(backed_up / "data") | {
        "lock": file_hashes(tmp_path / "data")["lock"]
    }
    assert json_lines(run_command(*argv, "--over", "--json")) == [{"finished": True, "forgotten_again": 2}]
    assert_restored(tmp_path / "data")


def assert_restored(path: Path) -> None:
    """Check that a data directory is the backup without the events forgotten since."""
    log = SqliteLog(path / "log.sqlite")
    assert [log.stream_state(stream.number).seq for stream in log.list_streams()] == [32, 12]
    places = log.find_ids("iris", [b"4", b"9", b"45", b"203", b"8"])
    log.close()
    assert {id_: place.removed_by == Kind.FORGET for id_, place in places.items()} == {
        b"4": True,
        b"9": True,
        b"203": True,
        b"8": False,
    }
    assert files_with_row(path, 9) == files_with_row(path, 203) == []
    assert files_with_row(path, 8) == ["log.sqlite"]
    assert list_seqs(path / "streams" / "iris" / "1" / "checkpoints") == []
    assert not [file for file in path.iterdir() if file.name.startswith(".restore")]
    assert run_killed_at(0, ("verify", "--refold", "--data", path)) == 0


def flip_bit(path: Path) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_last_event(folder: Path) -> None:
    """Remove the last event."""
    log = SqliteLog(folder / "log.sqlite")
    # Damage the database through the log's own connection; its public methods cannot.
    with log._connection.write_transaction() as database:
        database.execute("DELETE FROM events WHERE position IN (SELECT max(position) FROM events)")
    log.close()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "log": lambda folder: flip_bit(folder / "log.sqlite"),
    "end": cut_last_event,
    "checkpoint": lambda folder: flip_bit(folder / "streams" / "iris" / "1" / "checkpoints" / "31"),
    "artifact": lambda folder: flip_bit(folder / "streams" / "iris" / "2" / "artifact" / "model.safetensors"),
    "no artifact": lambda folder: shutil.rmtree(folder / "streams"),
    "no log": lambda folder: (folder / "log.sqlite").unlink(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_backup_is_rejected(what: str, backed_up: Path, tmp_path: Path) -> None:
    """The error names the damage, and the data directory is unchanged."""
    shutil.copytree(backed_up / "backup", tmp_path / "backup")
    shutil.copytree(backed_up / "data", tmp_path / "data")
    DAMAGE[what](tmp_path / "backup")
    before = file_hashes(tmp_path / "backup")
    assert run_killed_at(0, ("restore", tmp_path / "backup", "--over", "--data", tmp_path / "data")) == 1
    left = file_hashes(tmp_path / "data")
    assert {name: left[name] for name in file_hashes(backed_up / "data")} == file_hashes(backed_up / "data")
    assert left.keys() - file_hashes(backed_up / "data").keys() <= {"lock"}
    assert file_hashes(tmp_path / "backup") == before


def test_an_unreadable_log_is_not_replaced(backed_up: Path, tmp_path: Path) -> None:
    """Its forgets are unknown, so nothing is restored over it, but an empty directory works."""
    shutil.copytree(backed_up / "data", tmp_path / "data")
    (tmp_path / "data" / "log.sqlite").write_bytes(b"x" * 5000)
    done = run_command("restore", backed_up / "backup", "--over", "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "what was forgotten since the backup is unknown" in done.stderr


def test_a_backup_does_not_overwrite(backed_up: Path, tmp_path: Path) -> None:
    """Existing folders are not touched, and a disk error is reported."""
    before = file_hashes(backed_up / "backup")
    done = run_command("backup", backed_up / "backup", "--data", backed_up / "data")
    assert (done.returncode, done.stderr) == (1, NO_NAME)
    assert file_hashes(backed_up / "backup") == before
    for target in (Path("/proc/none/backup"), Path("/dev/null/backup")):
        done = run_command("backup", target, "--data", backed_up / "data")
        assert (done.returncode, done.stderr.startswith("softstep: disk error: ")) == (1, True)
    assert run_command("backup", tmp_path / "b", "--data", tmp_path / "none").returncode == 1
    assert not (tmp_path / "none").exists()


def test_a_killed_backup_has_no_name(backed_up: Path, tmp_path: Path) -> None:
    """Killed at each of its steps, it has its name only if complete, and the next run makes it."""
    expected = file_hashes(backed_up / "data")
    kills = 0
    for tick in range(1, 400, 2):
        target = tmp_path / str(tick)
        argv = ("backup", target, "--data", backed_up / "data")
        code = run_killed_at(tick, argv)
        if code == 0:
            break
        assert code is None
        kills += 1
        if not target.exists():
            assert run_killed_at(0, argv) == 0
        if tick % 5 == 0:
            assert run_killed_at(0, ("verify", "--data", target)) == 0
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        shutil.rmtree(target)
    assert kills > 10
    assert {name: content for name, content in file_hashes(backed_up / "data").items() if name in expected} == expected


@pytest.mark.parametrize("over", [False, True])
def test_a_killed_restore_is_finished_by_the_next(backed_up: Path, tmp_path: Path, *, over: bool) -> None:
    """Killed at each of its steps, the old content is there, or the directory cannot be opened until the next run."""
    kills = unfinished = 0
    for tick in range(1, 400, 2 if over else 1):
        path = tmp_path / str(tick)
        if over:
            shutil.copytree(backed_up / "data", path)
        argv = ("restore", backed_up / "backup", *(["--over"] if over else []), "--data", path)
        code = run_killed_at(tick, argv)
        if code == 0:
            break
        assert code is None
        kills += 1
        is_unfinished = (path / ".restore").exists()
        unfinished += is_unfinished
        if is_unfinished or over:
            # Refused while unfinished, else the old state or the new one, backed_up.
            assert run_killed_at(0, ("verify", "--data", path)) == int(is_unfinished)
        if is_unfinished and unfinished == 1:
            assert run_softstep("verify", "--data", path).stderr == f"softstep: {UNFINISHED}\n"
            line = json.loads(run_softstep("serve", "--port", "0", "--data", path).stderr)
            assert (line["event"], line["reason"]) == ("start_failed", UNFINISHED)
        is_done = not over and not is_unfinished and (path / "log.sqlite").exists()
        assert is_done or run_killed_at(0, argv) == 0
        log = SqliteLog(path / "log.sqlite")
        assert [log.stream_state(stream.number).seq for stream in log.list_streams()] == (
            [32, 12] if over else [31, 11]
        )
        assert log.find_ids("iris", [b"9"])[b"9"].removed_by == (Kind.FORGET if over else None)
        log.close()
        if over and tick % 9 == 0:
            assert_restored(path)
        shutil.rmtree(path)
    assert kills > 20
    assert unfinished > 2


@pytest.mark.parametrize("complete", [False, True])
def test_a_restore_brings_no_key_back(tmp_path: Path, *, complete: bool) -> None:
    """Keys and audit log are in no backup, and a restore leaves them, also from a copy of the whole directory."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    history = History(data)
    history.add_feedback(1, 2)
    history.close()
    key = run_command("keys", "create", "--name", "x", "--data", data).stdout.strip()
    if complete:
        shutil.copytree(data, backup)
    else:
        assert run_command("backup", backup, "--data", data).returncode == 0
        assert {path.name for path in backup.iterdir()} == {"log.sqlite", "marks", "streams"}
    run_command("keys", "revoke", key[9:17], "--data", data)
    kept = (data / "keys.json").read_bytes()
    assert run_command("restore", backup, "--data", data, "--over").returncode == 0
    assert (data / "keys.json").read_bytes() == kept
    assert KeyTable(read_keys(data / "keys.json").keys).find(key.encode(), 0.0) is None
    lines = [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["create_key", "revoke_key", "restore"]
    assert lines[-1]["object"] == str(backup)
    assert run_command("restore", backup, "--data", tmp_path / "other").returncode == 0
    assert not (tmp_path / "other" / "keys.json").exists()
