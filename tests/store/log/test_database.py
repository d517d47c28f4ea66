"""Databases, settings and SQLite versions: what is refused, and what each connection is set to."""

import shutil
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import apsw
import pytest

from service.errors import (
    LogDamagedError,
    LogError,
    LogUnavailableError,
    LogUnsafeError,
)
from service.store.log import database, tables
from service.store.log.audit import audit_log
from service.store.log.database import PRAGMAS, open_database, refuse_unsafe_version
from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog
from tests.support.disk_faults import Disk, Fault
from tests.support.feedback_log_contract import feedback, forget, kinds

SAFE = {
    "journal_mode": "wal",  # one writer and its readers do not wait for each other
    "synchronous": 2,  # an acknowledged commit is on the disk
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "wal_autocheckpoint": 0,  # a commit never pays for a checkpoint
    "journal_size_limit": 64 << 20,
    "secure_delete": 1,  # what was forgotten is overwritten
    "cell_size_check": 1,  # overlapping cells of a page are reported when it is read
    "trusted_schema": 0,
    "mmap_size": 0,  # an error of the disk is an error and not the end of the process
    "cache_size": -32768,
}


@pytest.mark.parametrize("name", SAFE)
def test_a_connection_has_the_safe_settings(tmp_path: Path, name: str) -> None:
    """Every setting has the safe value in the connection itself."""
    database = open_database(tmp_path / "log.sqlite", tables.create_tables)
    assert database.pragma(name) == SAFE[name]
    database.close()


def test_every_setting_is_known_here() -> None:
    """The settings of the module are exactly those that are tested here."""
    assert [name for name, _, _ in PRAGMAS] == list(SAFE)


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


def test_another_programs_database_is_refused(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE t(x)")
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def test_another_format_is_refused(path: Path, log: SqliteLog) -> None:
    log.close()
    apsw.Connection(str(path)).pragma("user_version", 4)
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def make_older(path: Path, version: int) -> None:
    """Give a log the schema of an earlier release."""
    with closing(apsw.Connection(str(path))) as database:
        database.execute("ALTER TABLE events DROP COLUMN actor")
        database.pragma("user_version", version)


def schema_of(path: Path) -> tuple[int, tuple[str, ...]]:
    """Return the version of a log's schema, and the columns of its events."""
    with closing(apsw.Connection(str(path))) as database:
        columns = database.execute("SELECT name FROM pragma_table_info('events')").fetchall()
        return database.pragma("user_version"), tuple(name for (name,) in columns)


@pytest.mark.parametrize("version", [1, 2])
def test_a_log_of_an_earlier_release_is_upgraded_on_request_only(
    path: Path, log: SqliteLog, stream: Stream, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens and takes events as it is, so that release can use it too until the upgrade, and not afterwards."""
    columns = schema_of(path)[1]
    assert kinds(log.append([feedback(stream, "a"), feedback(stream, "b")])) == [1, 2]
    log.close()
    make_older(path, version)
    reopened = SqliteLog(path)
    drafts = [feedback(stream, name)._replace(actor=b"key:one") for name in "bcd"]
    assert kinds(reopened.append(drafts[:2])) == [2, 3]
    assert kinds(reopened.append([forget(stream, "f", "a")])) == [4]
    assert schema_of(path) == (version, columns[:-1])
    for is_older in (True, False):
        assert reopened.upgrade() is is_older
        assert schema_of(path) == (3, columns)
    assert kinds(reopened.append(drafts)) == [2, 3, 5]
    assert [event.actor for event in reopened.read_events(stream.number, 0, 9)] == [b"", b"", b"", b"", b"key:one"]
    assert [seq for _, (seq, _) in audit_log(reopened, 9)] == [5]
    reopened.check_file()
    monkeypatch.setattr(database, "READABLE_VERSIONS", {1, 2})
    with pytest.raises(LogUnsafeError, match="another release"):
        SqliteLog(path)


def test_a_log_that_another_process_upgrades_is_read_on(path: Path, log: SqliteLog, stream: Stream) -> None:
    """A command that has opened a log of an earlier release reads and writes actors once a start has upgraded it."""
    log.append([feedback(stream, "a")])
    log.close()
    make_older(path, 2)
    command, start = SqliteLog(path), SqliteLog(path)
    by_key = [feedback(stream, name)._replace(actor=b"key:one") for name in "bcd"]
    assert kinds(command.append(by_key[:1])) == [2]
    assert [event.actor for event in command.read_events(stream.number, 0, 9)] == [b"", b""]
    start.upgrade()
    assert kinds(start.append(by_key[1:2])) == [3]
    assert kinds(command.append(by_key)) == [2, 3, 4]
    for one in (command, start):
        assert [event.actor for event in one.read_events(stream.number, 0, 9)] == [b"", b"", b"key:one", b"key:one"]
        assert [seq for _, (seq, _) in audit_log(one, 9)] == [4]


def test_an_upgrade_that_fails_is_whole_or_nothing(path: Path, log: SqliteLog, stream: Stream) -> None:
    """The column and the version come in one transaction, whatever the disk does; a later start repeats it."""
    log.append([feedback(stream, "a")])
    after = schema_of(path)
    log.empty_wal()
    log.close()
    make_older(path, 2)
    before, disk, found = schema_of(path), Disk(), set()
    for at in count():
        copy = path.with_name(f"copy{at}")
        shutil.copyfile(path, copy)
        failing = SqliteLog(copy, vfs=disk.name)
        disk.fail(at, Fault.TORN)
        with suppress(LogError):
            failing.upgrade()
            break
        disk.heal()
        failing.close()
        found.add(schema_of(copy)[0])
        assert schema_of(copy) in {before, after}
        with closing(SqliteLog(copy)) as again:
            again.upgrade()
            assert schema_of(copy) == after
            assert [seq for _, (seq, _) in audit_log(again, 9)] == [1]
    assert 2 in found
    assert schema_of(copy) == after


def test_a_setting_that_does_not_hold_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PRAGMAS", (("synchronous", "normal", 2),))
    with pytest.raises(LogUnsafeError):
        SqliteLog(path)


def test_a_file_that_is_not_a_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"nothing that SQLite knows" * 400)
    with pytest.raises(LogDamagedError):
        SqliteLog(path)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError):
        SqliteLog(tmp_path / "missing" / "log.sqlite")


def test_a_write_that_waits_too_long_is_reported(path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 1)
    waiting = SqliteLog(path)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailableError):
        waiting.append([feedback(stream, "a")])
    other.execute("ROLLBACK")
    assert kinds(waiting.append([feedback(stream, "a")])) == [1]


def test_a_recovered_log_is_synced_first(
    path: Path, log: SqliteLog, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a log syncs the write-ahead log, which a killed process may have left unsynced."""
    log.append([feedback(stream, "a")])
    synced: list[Path] = []
    monkeypatch.setattr(database, "sync_file", synced.append)
    SqliteLog(path)
    assert synced == [Path(f"{path}-wal")]
