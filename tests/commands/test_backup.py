"""`softstep backup` and `softstep restore`: whole, checked, whenever they are killed, and forgotten stays forgotten."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from service.store.directory.ack_marks import read_marks
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import write_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.data_directories import History, iris, killed_at, learned, lines, ran, rows, softstep, tree
from tests.support.servers import serving

KEY = b"5a" * 32 + b"\n"
NO_NAME = "softstep: the folder for the backup exists already; name one that does not\n"
NOT_EMPTY = "softstep: the data directory has a log; choose an empty directory, or replace its content with --over\n"
UNFINISHED = "softstep: a restore of the data directory was interrupted; run softstep restore again\n"


def test_a_backup_of_a_running_service_is_served(root: Path, tmp_path: Path) -> None:
    """Made while events come in and are learned; what is restored answers with the bits of that moment."""
    data, stop = tmp_path / "data", threading.Event()
    with serving(root, tmp_path) as service:
        history = History(data)
        learned(service, history.teach(*range(50)))
        (data / "token.key").write_bytes(KEY)

        def teach() -> None:
            busy = History(data)
            for n in range(100, 100_000):
                if stop.is_set():
                    break
                busy.teach(n)
            busy.close()

        teacher = threading.Thread(target=teach)
        teacher.start()
        try:
            (told,) = lines(softstep("backup", tmp_path / "backup", "--data", data, "--json"))
        finally:
            stop.set()
            teacher.join()
        last = history.log.stream_state(history.stream.number).seq
        assert 50 <= told["seq"] < last
        (mark,) = read_marks(tmp_path / "backup" / "marks" / "0")
        assert (mark[1].seq, mark[1].hash.hex()) == (told["seq"], told["hash"])
        replay = StreamReplay(history.stream, iris(), history.log)
        list(replay.fold_to(told["seq"]))
        history.close()
    (verified, marks) = lines(softstep("verify", "--refold", "--data", tmp_path / "backup", "--json"))
    assert (verified["seq"], verified["damage"], marks) == (told["seq"], [], {"marks": "good"})
    again = tmp_path / "again"
    restored = softstep("restore", tmp_path / "backup", "--data", again / "data", "--json")
    assert lines(restored) == [{"finished": True, "forgotten_again": 0}]
    key = again / "data" / "token.key"
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (KEY, 0o600)
    with serving(root, again) as service:
        metadata = learned(service, told["seq"])
        assert (metadata["seq"], metadata["progressive"]["rows"]) == (
            told["seq"],
            replay.fold.progressive_validation["rows"],
        )
        refused = softstep("restore", tmp_path / "backup", "--data", again / "data", "--over")
        assert "another instance uses the data directory" in refused.stderr
    (after, _) = lines(softstep("replay", "iris", "--data", again / "data", "--json")) * 2
    assert (after["hash"], after["published"]) == (told["hash"], "equal")


def checkpoint(history: History, seq: int) -> None:
    """Keep a state as the learner would."""
    replay = StreamReplay(history.stream, iris(), history.log)
    list(replay.fold_to(seq))
    fields, arrays = replay.fold.checkpoint_contents()
    write_snapshot(history.folder.checkpoints, seq, {**fields, **replay.position_fields()}, arrays, durable=True)


def holds_row(path: Path, id_: int) -> list[str]:
    """The files below a folder that hold the row of an event."""
    row = rows(int.from_bytes(str(id_).encode()))[16:]
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and row in file.read_bytes()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in `data`, and in `backup` its backup, after which events were forgotten and came."""
    path = tmp_path_factory.mktemp("whole")
    history, second = History(path / "data"), History(path / "data", 2)
    history.teach(*range(30))
    history.forget(4)
    second.teach(*range(200, 210))
    checkpoint(second, 10)
    second.forget(201)
    checkpoint(history, 2)
    checkpoint(history, 31)
    assert softstep("backup", path / "backup", "--data", path / "data").returncode == 0
    assert list_seqs(path / "backup" / "streams" / "iris" / "1" / "checkpoints") == [31]
    # What the second stream has was made of an event that is forgotten.
    assert list_seqs(path / "backup" / "streams" / "iris" / "2" / "checkpoints") == []
    history.teach(*range(40, 50))
    history.forget(9, 45)
    second.forget(203)
    for each in (history, second):
        each.log.empty_wal()
        each.close()
    return path


def test_what_was_forgotten_stays_forgotten(whole: Path, tmp_path: Path) -> None:
    """Over a log that forgot it since the backup: its rows are in no file, nor is a state that they made."""
    assert holds_row(whole / "backup", 9) == ["log.sqlite"]
    assert holds_row(whole / "backup", 4) == holds_row(whole / "data", 9) == []
    shutil.copytree(whole / "data", tmp_path / "data")
    argv = ("restore", whole / "backup", "--data", tmp_path / "data")
    refused = ran(*argv)
    assert (refused.returncode, refused.stderr) == (1, NOT_EMPTY)
    assert tree(tmp_path / "data") == tree(whole / "data") | {"lock": tree(tmp_path / "data")["lock"]}
    assert lines(ran(*argv, "--over", "--json")) == [{"finished": True, "forgotten_again": 2}]
    is_restored(tmp_path / "data")


def is_restored(path: Path) -> None:
    """The backup, without what was forgotten since."""
    log = SqliteLog(path / "log.sqlite")
    assert [log.stream_state(stream.number).seq for stream in log.list_streams()] == [32, 12]
    places = log.find_ids("iris", [b"4", b"9", b"45", b"203", b"8"])
    log.close()
    assert {id_: place.forgotten for id_, place in places.items()} == {
        b"4": True,
        b"9": True,
        b"203": True,
        b"8": False,
    }
    assert holds_row(path, 9) == holds_row(path, 203) == []
    assert holds_row(path, 8) == ["log.sqlite"]
    assert list_seqs(path / "streams" / "iris" / "1" / "checkpoints") == []
    assert not [file for file in path.iterdir() if file.name.startswith(".restore")]
    assert killed_at(0, ("verify", "--refold", "--data", path)) == 0


def flip(path: Path) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(folder: Path) -> None:
    """The last event is not there."""
    log = SqliteLog(folder / "log.sqlite")
    with log._connection.write_transaction() as database:
        database.execute("DELETE FROM events WHERE position IN (SELECT max(position) FROM events)")
    log.close()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "log": lambda folder: flip(folder / "log.sqlite"),
    "end": cut,
    "checkpoint": lambda folder: flip(folder / "streams" / "iris" / "1" / "checkpoints" / "31"),
    "artifact": lambda folder: flip(folder / "streams" / "iris" / "2" / "artifact" / "model.safetensors"),
    "no artifact": lambda folder: shutil.rmtree(folder / "streams"),
    "no log": lambda folder: (folder / "log.sqlite").unlink(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_backup_is_refused(what: str, whole: Path, tmp_path: Path) -> None:
    """In a sentence, and the data directory is as it was."""
    shutil.copytree(whole / "backup", tmp_path / "backup")
    shutil.copytree(whole / "data", tmp_path / "data")
    DAMAGE[what](tmp_path / "backup")
    before = tree(tmp_path / "backup")
    assert killed_at(0, ("restore", tmp_path / "backup", "--over", "--data", tmp_path / "data")) == 1
    left = tree(tmp_path / "data")
    assert {name: left[name] for name in tree(whole / "data")} == tree(whole / "data")
    assert left.keys() - tree(whole / "data").keys() <= {"lock"}
    assert tree(tmp_path / "backup") == before


def test_a_log_that_cannot_be_read_does_not_say_what_it_forgot(whole: Path, tmp_path: Path) -> None:
    """So nothing is restored over it; into an empty directory it is."""
    shutil.copytree(whole / "data", tmp_path / "data")
    (tmp_path / "data" / "log.sqlite").write_bytes(b"x" * 5000)
    done = ran("restore", whole / "backup", "--over", "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "what was forgotten since the backup is unknown" in done.stderr


def test_a_backup_has_a_name_of_its_own(whole: Path, tmp_path: Path) -> None:
    """What is there already is not touched, and where nothing can be written it is said."""
    before = tree(whole / "backup")
    done = ran("backup", whole / "backup", "--data", whole / "data")
    assert (done.returncode, done.stderr) == (1, NO_NAME)
    assert tree(whole / "backup") == before
    for target in (Path("/proc/none/backup"), Path("/dev/null/backup")):
        done = ran("backup", target, "--data", whole / "data")
        assert (done.returncode, done.stderr.startswith("softstep: disk error: ")) == (1, True)
    assert ran("backup", tmp_path / "b", "--data", tmp_path / "none").returncode == 1
    assert not (tmp_path / "none").exists()


def test_a_killed_backup_is_none(whole: Path, tmp_path: Path) -> None:
    """Killed at each of its steps in turn: it has its name only where it is whole, and the next run makes it."""
    expected = tree(whole / "data")
    kills = 0
    for tick in range(1, 400, 2):
        target = tmp_path / str(tick)
        argv = ("backup", target, "--data", whole / "data")
        code = killed_at(tick, argv)
        if code == 0:
            break
        assert code is None
        kills += 1
        if not target.exists():
            assert killed_at(0, argv) == 0
        if tick % 5 == 0:
            assert killed_at(0, ("verify", "--data", target)) == 0
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        shutil.rmtree(target)
    assert kills > 10
    assert {name: content for name, content in tree(whole / "data").items() if name in expected} == expected


@pytest.mark.parametrize("over", [False, True])
def test_a_killed_restore_is_finished_by_the_next(whole: Path, tmp_path: Path, *, over: bool) -> None:
    """Killed at each of its steps in turn: what was there stands, or nobody else opens what is on its way."""
    kills = unfinished = 0
    for tick in range(1, 400, 2 if over else 1):
        path = tmp_path / str(tick)
        if over:
            shutil.copytree(whole / "data", path)
        argv = ("restore", whole / "backup", *(["--over"] if over else []), "--data", path)
        code = killed_at(tick, argv)
        if code == 0:
            break
        assert code is None
        kills += 1
        is_unfinished = (path / ".restore").exists()
        unfinished += is_unfinished
        if is_unfinished or over:
            # Refused while unfinished, else the old state or the new one, whole.
            assert killed_at(0, ("verify", "--data", path)) == int(is_unfinished)
        if is_unfinished and unfinished == 1:
            for other in (("verify",), ("serve", "--port", "0")):
                assert softstep(*other, "--data", path).stderr == UNFINISHED
        is_done = not over and not is_unfinished and (path / "log.sqlite").exists()
        assert is_done or killed_at(0, argv) == 0
        log = SqliteLog(path / "log.sqlite")
        assert [log.stream_state(stream.number).seq for stream in log.list_streams()] == (
            [32, 12] if over else [31, 11]
        )
        assert log.find_ids("iris", [b"9"])[b"9"].forgotten == over
        log.close()
        if over and tick % 9 == 0:
            is_restored(path)
        shutil.rmtree(path)
    assert kills > 20
    assert unfinished > 2
