"""The connection of a log recovers from a disk that fails."""

import shutil
from pathlib import Path

import pytest

from service.errors import (
    LogDamagedError,
    LogError,
    OutcomeUnknownError,
)
from service.store.log.events import Stream
from service.store.log.log_connection import LocalGeneration
from service.store.log.sqlite import SqliteLog
from tests.support.disk_faults import Disk, Fault
from tests.support.feedback_log_contract import GENESIS, feedback, forget, kinds


def test_a_checkpoint_empties_a_large_write_ahead_log(
    log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint below the limit does nothing, and above it empties the write-ahead log."""
    log.append([feedback(stream, str(n)) for n in range(100)])
    before = log.wal_bytes
    log.checkpoint_wal()
    assert log.wal_bytes == before > 0
    monkeypatch.setattr("service.store.log.log_connection.WAL_BYTES_KEPT", 0)
    log.checkpoint_wal()
    log.append([feedback(stream, "x")])
    assert 0 < log.wal_bytes < before


def test_forgotten_rows_are_in_no_file(path: Path, log: SqliteLog, stream: Stream) -> None:
    """After a FORGET and an emptied write-ahead log, no file contains the row."""
    drafts = [feedback(stream, str(n), 1.2345678 + n) for n in range(60)]
    log.append(drafts)
    log.empty_wal()
    log.append([forget(stream, "f", *(str(n) for n in range(0, 60, 2)))])
    log.empty_wal()
    content = b"".join(file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm"))
    assert [draft.payload[16:32] in content for draft in drafts] == [False, True] * 30


def test_all_processes_reopen_the_log_after_a_failure(path: Path) -> None:
    """All processes open the log again after one commit failed, and lose nothing."""
    disk, generation = Disk(), LocalGeneration()
    failing = SqliteLog(path, generation, vfs=disk.name)
    other = SqliteLog(path, generation)
    stream = other.open_stream("iris", 1, GENESIS, 3)
    other.append([feedback(stream, "a")])
    # Only the connection object shows that the log was opened again.
    before = other._connection._database
    disk.fail(0, Fault.IO, operations=frozenset({"sync"}))
    with pytest.raises(OutcomeUnknownError):
        failing.append([feedback(stream, "b")])
    assert generation.get() == 1
    reported = kinds(other.append([feedback(stream, "c"), feedback(stream, "a")]))
    # As above.
    assert other._connection._database is not before
    reported += kinds(failing.append([feedback(stream, "b")]))
    seqs = {event.id: event.seq for event in other.read_events(stream.number, 0, 9)}
    assert reported == [seqs[b"c"], 1, seqs[b"b"]]
    assert sorted(seqs.values()) == [1, 2, 3]


def test_a_disk_that_keeps_failing_is_reported_each_time(path: Path) -> None:
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


def test_a_log_that_lost_events_is_refused_after_reopening(path: Path, log: SqliteLog, stream: Stream) -> None:
    """A log that returns with an older state is refused by the process that appended more."""
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
