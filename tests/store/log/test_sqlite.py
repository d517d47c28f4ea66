"""The log in SQLite keeps the contract of every log, and what its gates, index and files promise beside it."""

import os
import shutil
import struct
from pathlib import Path

import apsw
import pytest

from service.errors import (
    LogDamagedError,
    LogError,
    LogFullError,
    LogUnavailableError,
    LogUnsafeError,
    OutcomeUnknownError,
)
from service.store import filesystem
from service.store.log import database
from service.store.log.database import refuse_unsafe_version
from service.store.log.events import EventLocation, Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.log_connection import LocalGeneration
from service.store.log.sqlite import SqliteLog
from service.store.mount_types import mount_type
from tests.support.disk_faults import Disk, Fault
from tests.support.feedback_log_contract import GENESIS, FeedbackLogTests, feedback, forget, kinds


class TestSqliteLog(FeedbackLogTests):
    """Every thread that races has a connection of its own."""

    tail = 65_536

    def make_log(self, folder: Path) -> FeedbackLog:
        return SqliteLog(folder / "log.sqlite", tail_events_max=self.tail)

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        log.close()
        return self.make_log(folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it opens the file again
        return self.make_log(folder)


class TestSqliteLogWithAShortTail(TestSqliteLog):
    """With every few ids a slice of the index is written, and what another process wrote is taken over."""

    tail = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path: Path) -> SqliteLog:
    return SqliteLog(path)


@pytest.fixture
def stream(log: SqliteLog) -> Stream:
    return log.open_stream("iris", 1, GENESIS, 3)


# Gates


@pytest.mark.parametrize("version", ["3.51.3", "3.51.4", "3.50.7", "3.44.6", "3.52.1", "3.53.0", "3.54.1", "4.0.0"])
def test_cured_versions_are_taken(version: str) -> None:
    refuse_unsafe_version(version)


@pytest.mark.parametrize(
    "version", ["3.40.1", "3.46.1", "3.51.2", "3.52.0", "3.50.6", "3.44.5", "3.45.9", "2.51.3", "3.51", "unknown"]
)
def test_versions_with_the_wal_reset_bug_are_refused(version: str) -> None:
    with pytest.raises(LogUnsafeError):
        refuse_unsafe_version(version)


def test_a_start_refuses_such_a_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.apsw, "sqlite_lib_version", lambda: "3.46.1")
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
24 22 0:22 / /proc rw,nosuid shared:13 - proc proc rw
40 22 0:45 / /mnt/share rw - nfs4 10.0.0.1:/export rw,vers=4.2
41 22 0:46 / /mnt/with\\040space rw - fuse.sshfs host: rw
42 22 0:47 / /data rw,relatime - virtiofs mount0 rw
43 42 0:48 / /data/local rw - tmpfs tmpfs rw
44 22 0:49 / /twice rw - 9p drvfs rw
45 44 0:50 / /twice rw master:1 propagate_from:2 - xfs /dev/vdb rw
a line of another kind
46 22 0:51 / /broken -
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/with space", "fuse.sshfs"),
        ("/data", "virtiofs"),
        ("/data/local/x", "tmpfs"),
        ("/twice", "xfs"),
        ("/broken", "ext4"),
    ],
)
def test_the_table_of_mounts_is_read(folder: str, kind: str) -> None:
    assert mount_type(MOUNTS, Path(folder)) == kind


def test_a_table_without_a_mount_says_nothing() -> None:
    assert mount_type("", Path("/data")) is None


def test_this_machine_has_a_table_that_can_be_read() -> None:
    """The parser understands the real one, and knows the file system of memory where there is one."""
    table = filesystem.MOUNTS.read_text()
    assert mount_type(table, Path("/")) is not None
    assert mount_type(table, Path("/proc/self")) == "proc"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuseblk", "fuse.gocryptfs", "virtiofs"])
def test_a_start_refuses_disks_that_keep_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = path.parent / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - {kind} none rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", table)
    with pytest.raises(LogUnsafeError, match=kind):
        SqliteLog(path)
    table.write_text("1 0 0:1 / / rw - tmpfs none rw\n")
    SqliteLog(path).close()
    monkeypatch.setattr(filesystem, "MOUNTS", path.parent / "missing")
    SqliteLog(path).close()


def test_another_programs_database_is_refused(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE t(x)")
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def test_another_format_is_refused(path: Path, log: SqliteLog) -> None:
    log.close()
    apsw.Connection(str(path)).pragma("user_version", 2)
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def test_a_setting_that_does_not_hold_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PRAGMAS", (("synchronous", "normal", 2),))
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def test_a_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"nothing that SQLite knows" * 400)
    with pytest.raises(LogDamagedError):
        SqliteLog(path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError):
        SqliteLog(tmp_path / "missing" / "log.sqlite")


# Room


def test_a_full_disk_takes_admin_calls_only(path: Path, log: SqliteLog, stream: Stream) -> None:
    log.append([feedback(stream, "a")])
    full = SqliteLog(path, reserve_bytes=1 << 62)
    assert kinds(full.append([feedback(stream, "b"), forget(stream, "f", "a")])) == [LogFullError, 2]


def test_feedback_waits_where_the_write_ahead_log_cannot_shrink(path: Path, stream: Stream) -> None:
    """A reader that keeps its cursor holds every frame; once it is gone, feedback is taken again."""
    small = SqliteLog(path, wal_bytes_max=100_000)
    reader = apsw.Connection(str(path))
    cursor = reader.execute("SELECT * FROM sqlite_schema")
    next(cursor)
    names = iter(range(10_000))
    while small.wal_bytes <= 100_000:
        small.append([feedback(stream, str(next(names))) for _ in range(20)])
    assert kinds(small.append([feedback(stream, "refused")])) == [LogFullError]
    reader.close()
    SqliteLog(path).empty_wal()
    assert small.wal_bytes == 0
    assert isinstance(small.append([feedback(stream, "refused")])[0], EventLocation)


def test_a_checkpoint_begins_the_write_ahead_log_anew(
    log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the limit it does nothing; above it the log's bytes go to their place."""
    log.append([feedback(stream, str(n)) for n in range(100)])
    before = log.wal_bytes
    log.checkpoint_wal()
    assert log.wal_bytes == before > 0
    monkeypatch.setattr("service.store.log.log_connection.WAL_BYTES_KEPT", 0)
    log.checkpoint_wal()
    log.append([feedback(stream, "x")])
    assert 0 < log.wal_bytes < before


def test_what_was_forgotten_is_in_no_file(path: Path, log: SqliteLog, stream: Stream) -> None:
    """After the forget and a rewrite the row's bytes are neither in the database nor in the write-ahead log."""
    drafts = [feedback(stream, str(n), 1.2345678 + n) for n in range(60)]
    log.append(drafts)
    log.empty_wal()
    log.append([forget(stream, "f", *(str(n) for n in range(0, 60, 2)))])
    log.empty_wal()
    content = b"".join(file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm"))
    assert [draft.payload[16:32] in content for draft in drafts] == [False, True] * 30


def test_a_write_that_waits_too_long_is_told(path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 1)
    waiting = SqliteLog(path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailableError):
        waiting.append([feedback(stream, "a")])
    other.execute("ROLLBACK")
    assert kinds(waiting.append([feedback(stream, "a")])) == [1]


# Backups and purges


def test_a_backup_is_a_log(tmp_path: Path, log: SqliteLog, stream: Stream) -> None:
    log.append([feedback(stream, "a"), feedback(stream, "b"), forget(stream, "f", "a")])
    log.write_copy(tmp_path / "copy.sqlite")
    copy = SqliteLog(tmp_path / "copy.sqlite")
    assert copy.list_streams() == [stream]
    assert copy.read_events(stream.number, 0, 9) == log.read_events(stream.number, 0, 9)
    assert [seq for seq, _ in copy.verify_chain(stream.number, Position(0, GENESIS), 9)] == [3]
    with pytest.raises(LogUnavailableError):
        log.write_copy(tmp_path / "copy.sqlite")


def test_an_interrupted_purge_is_finished(log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces; ids go with their events, and nothing of the stream is left."""
    monkeypatch.setattr("service.store.log.sqlite.PURGE_EVENTS", 3)
    log.append([feedback(stream, str(n)) for n in range(10)])
    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "finish_purges", lambda _: None)
        log.purge_stream(stream.number)
    assert log.list_streams() == []
    log.finish_purges()
    with log._connection.connection() as connection:
        assert connection.execute("SELECT count(*) FROM events").get == 0
        assert connection.execute("SELECT count(*) FROM streams").get == 0


def test_a_purge_by_another_process_is_noticed(path: Path, log: SqliteLog, stream: Stream) -> None:
    """The names of the purged stream are in this object's memory still; they name nothing any more."""
    log.append([feedback(stream, "a"), feedback(stream, "b")])
    SqliteLog(path).purge_stream(stream.number)
    again = log.open_stream("iris", 1, GENESIS, 3)
    assert kinds(log.append([feedback(again, "a", 9.0), feedback(again, "a", 9.0), feedback(stream, "c")]))[:2] == [
        1,
        1,
    ]
    assert log.find_ids("iris", [b"b"]) == {}


# The index of ids


def test_ids_are_found_wherever_they_are(path: Path) -> None:
    """In the tail, in the slices, after another process wrote slices, and on a new object: each at its place."""
    first, second = (SqliteLog(path, tail_events_max=50) for _ in range(2))
    stream = first.open_stream("iris", 1, GENESIS, 3)
    for turn in range(12):
        writer = (first, second)[turn % 2]
        writer.append([feedback(stream, f"{turn}-{n}") for n in range(20)])
    ids = [f"{turn}-{n}".encode() for turn in range(12) for n in range(20)]
    expected = {id_: EventLocation(stream.number, seq, duplicate=True) for seq, id_ in enumerate(ids, 1)}
    for log in (first, second, SqliteLog(path, tail_events_max=50)):
        assert log.find_ids("iris", ids) == expected
    with first._connection.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ids").get >= 240 - 50 - 20
        assert connection.execute("SELECT count(DISTINCT position) = count(*) FROM ids").get == 1


def test_equal_keys_do_not_make_equal_ids(log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two ids have one key, the events decide."""
    monkeypatch.setattr("service.store.log.id_index.IdIndex.keys", lambda _, names: [7] * len(names))
    log._tail_events_max = 2
    log.close()
    for _ in range(2):
        outcomes = [log.append([feedback(stream, str(n))])[0] for n in range(10)]
        assert kinds(outcomes) == list(range(1, 11))


def test_a_cover_that_cannot_be_is_damage(path: Path, log: SqliteLog, stream: Stream) -> None:
    log.close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO slices VALUES(3, x'00')")
    with pytest.raises(LogDamagedError):
        SqliteLog(path).append([feedback(stream, "a")])
    connection.execute("DELETE FROM facts")
    with pytest.raises(LogDamagedError):
        SqliteLog(path)


# Several processes


def test_racing_processes_agree_on_one_order(path: Path, log: SqliteLog, stream: Stream) -> None:
    """Forked children post ids of their own and shared ones; all are told the same, and every event is there once."""

    def post(number: int) -> str:
        own = SqliteLog(path, tail_events_max=16)
        names = [name for turn in range(30) for name in (f"{number}-{turn}", f"shared-{turn}")]
        outcomes = [own.append([feedback(stream, name)])[0] for name in names]
        return " ".join(f"{name}={seq}" for name, seq in zip(names, kinds(outcomes), strict=True))

    told = {pair for text in in_children([lambda n=n: post(n) for n in range(3)]) for pair in text.split()}
    events = log.read_events(stream.number, 0, 1000)
    assert told == {f"{event.id.decode()}={event.seq}" for event in events}
    assert [event.seq for event in events] == list(range(1, 121))
    assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 1000)] == [120]


def in_children(calls: list) -> list[str]:
    """Runs each call in a forked process and gives what it returned, or fails with it."""
    pipes = []
    for call in calls:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, call().encode())
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append((pid, reading))
    answers = []
    for pid, reading in pipes:
        with os.fdopen(reading) as file:
            answers.append(file.read())
        os.waitpid(pid, 0)
    return answers


# A disk that fails


def test_all_processes_open_again_after_a_failure(path: Path) -> None:
    """The one whose commit failed says so; the others go on with a connection of their own, and lose nothing."""
    disk, generation = Disk(), LocalGeneration()
    failing = SqliteLog(path, generation, vfs=disk.name)
    other = SqliteLog(path, generation)
    stream = other.open_stream("iris", 1, GENESIS, 3)
    other.append([feedback(stream, "a")])
    before = other._connection._database
    disk.fail(0, Fault.IO, operations=frozenset({"sync"}))
    with pytest.raises(OutcomeUnknownError):
        failing.append([feedback(stream, "b")])
    assert generation.get() == 1
    told = kinds(other.append([feedback(stream, "c"), feedback(stream, "a")]))
    assert other._connection._database is not before
    told += kinds(failing.append([feedback(stream, "b")]))
    seqs = {event.id: event.seq for event in other.read_events(stream.number, 0, 9)}
    assert told == [seqs[b"c"], 1, seqs[b"b"]]
    assert sorted(seqs.values()) == [1, 2, 3]


def test_a_disk_that_goes_on_failing_is_told_each_time(path: Path) -> None:
    disk = Disk()
    log = SqliteLog(path, vfs=disk.name)
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, "a")])
    disk.fail(0, Fault.IO, forever=True)
    for _ in range(3):
        with pytest.raises(LogError):
            log.append([feedback(stream, "b")])
    disk.heal()
    seqs = kinds(log.append([feedback(stream, "b"), feedback(stream, "a")]))
    assert seqs == [2, 1]


def test_a_batch_that_fails_leaves_nothing(log: SqliteLog, stream: Stream) -> None:
    """A draft that no caller may send ends the call in its middle; the next one goes on as if it had not been."""
    log.append([feedback(stream, "a")])
    with pytest.raises(struct.error):
        log.append([feedback(stream, "b"), feedback(stream, "c")._replace(time_ms=-1)])
    assert kinds(log.append([feedback(stream, "c"), feedback(stream, "b")])) == [2, 3]
    assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 9)] == [3]


def test_what_a_recovery_finds_is_synced_first(
    path: Path, log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a log syncs its write-ahead log, in which a killed process may have left what it did not sync."""
    log.append([feedback(stream, "a")])
    synced: list[Path] = []
    monkeypatch.setattr(database, "sync_file", synced.append)
    SqliteLog(path)
    assert synced == [Path(f"{path}-wal")]


def test_a_log_that_lost_events_is_refused_after_reopening(path: Path, log: SqliteLog, stream: Stream) -> None:
    """The disk comes back with an older state: whoever has acknowledged more does not go on with it."""
    log.append([feedback(stream, "a")])
    log.empty_wal()
    shutil.copy(path, path.parent / "old")
    log.append([feedback(stream, "b")])
    log.close()
    for name in ("-wal", "-shm"):
        Path(f"{path}{name}").unlink()
    shutil.copy(path.parent / "old", path)
    with pytest.raises(LogDamagedError):
        log.append([feedback(stream, "c")])


def test_a_gap_is_not_served(log: SqliteLog, stream: Stream) -> None:
    log.append([feedback(stream, str(n)) for n in range(5)])
    with log._connection.write_transaction() as connection:
        connection.execute("DELETE FROM events WHERE position & 7 = 3")
    with pytest.raises(LogDamagedError):
        log.read_events(stream.number, 0, 9)
    with pytest.raises(LogDamagedError):
        log.read_payloads(stream.number, Position(0, GENESIS), 9)
    assert len(log.read_payloads(stream.number, Position(0, GENESIS), 2)[0]) == 2
    with pytest.raises(LogDamagedError):
        list(log.verify_chain(stream.number, Position(0, GENESIS), 9))
