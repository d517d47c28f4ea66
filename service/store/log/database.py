"""An SQLite database that keeps what it acknowledges: which SQLite, how it is opened, and what its errors mean.

SQLite 3.7.0 to 3.51.2 can damage a write-ahead log that two connections write and checkpoint at one moment; the cure is
in 3.51.3, 3.50.7 and 3.44.6, and 3.52.0 was withdrawn. Every connection sets its pragmas and reads them back, because
builds differ in their defaults. A connection is never carried over a fork.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from service.errors import LogDamagedError, LogUnavailableError, LogUnsafeError
from service.store.filesystem import refuse_unsafe_filesystem, sync_file, sync_folder

APPLICATION_ID: Final = int.from_bytes(b"SFST")
USER_VERSION: Final = 1
BUSY_MS: Final = 5000
# The most events a page for the fewest bytes of log: see loadtest/appends.py.
PAGE_BYTES: Final = 4096
WAL_FRAME_BYTES: Final = PAGE_BYTES + 24
WAL_BYTES_KEPT: Final = 64 << 20

# Name, value to set, value to read back.
PRAGMAS: Final = (
    ("journal_mode", "wal", "wal"),
    ("synchronous", "full", 2),
    ("fullfsync", "on", 1),  # macOS: a sync that reaches the disk
    ("checkpoint_fullfsync", "on", 1),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(WAL_BYTES_KEPT), WAL_BYTES_KEPT),
    ("secure_delete", "on", 1),
    ("cell_size_check", "on", 1),
    ("trusted_schema", "off", 0),
    ("mmap_size", "0", 0),  # an I/O error on mapped memory kills the process
    ("cache_size", "-32768", -32768),
)


def refuse_unsafe_version(version: str) -> None:
    """Raises LogUnsafeError for an SQLite version, such as 3.46.1, that has the WAL-reset bug."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise LogUnsafeError("the SQLite library does not tell its version")
    major, minor, patch = map(int, match.groups())
    cured = {44: 6, 50: 7, 51: 3}
    safe = (major, minor) > (3, 52) or (major, minor, patch) >= (3, 52, 1)
    if not safe and not (major == 3 and minor in cured and patch >= cured[minor]):  # noqa: PLR2004  # SQLite 3
        raise LogUnsafeError(
            f"SQLite {version} can damage its write-ahead log; install the locked apsw, which has its own"
        )


def open_database(path: Path, make: Callable[[apsw.Connection], None], vfs: str | None = None) -> apsw.Connection:
    """Opens a database, or makes it, and does not return before everything in it is on disk.

    Args:
        path: The file; its folder exists.
        make: Makes the tables of a new database.
        vfs: Name of the VFS, for tests that let the disk fail.

    Raises:
        LogUnsafeError: This SQLite or this disk keeps no promise, or the file is another program's.
        LogDamagedError: The file is no database any more.
        LogUnavailableError: It cannot be opened now.
    """
    refuse_unsafe_version(apsw.sqlite_lib_version())
    refuse_unsafe_filesystem(path.parent)
    with translate_errors():
        database = apsw.Connection(str(path), vfs=vfs)
        try:
            _configure(database)
            _create(database, make)
            sync_recovered_wal(path)
            sync_folder(path.parent)
        except BaseException:
            close_quietly(database)
            raise
    return database


def sync_recovered_wal(path: Path) -> None:
    """Syncs what a recovery found in the write-ahead log.

    A process that is killed between a write and its sync leaves frames that the next one takes for committed. They must
    be on disk before anything is answered from them. SQLite holds no lock on that file that closing it would drop.
    """
    with suppress(FileNotFoundError):
        sync_file(Path(f"{path}-wal"))


def wal_size(path: Path) -> int:
    """The bytes of a database's write-ahead log file; what it holds can be less."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _configure(database: apsw.Connection) -> None:
    database.set_busy_timeout(BUSY_MS)
    # The last connection to close would write the whole log back while a shutdown waits; the next start does that.
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    database.pragma("page_size", PAGE_BYTES)
    for name, value, expected in PRAGMAS:
        database.execute(f"PRAGMA {name}={value}").fetchall()
        if database.pragma(name) != expected:
            raise LogUnsafeError(f"SQLite does not take the setting {name}={value}")


def _create(database: apsw.Connection, make: Callable[[apsw.Connection], None]) -> None:
    with transaction(database):
        identity = database.pragma("application_id"), database.pragma("user_version")
        if identity == (0, 0) and not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
            make(database)
            database.pragma("application_id", APPLICATION_ID)
            database.pragma("user_version", USER_VERSION)
        elif identity[0] != APPLICATION_ID:
            raise LogUnsafeError("the file of the feedback log is another program's database")
        elif identity[1] != USER_VERSION:
            raise LogUnsafeError("the feedback log was written by another release, whose format this one does not know")


@contextmanager
def transaction(database: apsw.Connection) -> Iterator[None]:
    """One write transaction: committed at the end, rolled back where anything is raised."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself after some errors.
        with suppress(apsw.Error):
            database.execute("ROLLBACK")
        raise


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises a LogError in place of the driver's; disk errors (apsw.IOError, apsw.FullError) become "unavailable"."""
    try:
        yield
    # A text that is none stands where bytes were written: every column that the log fills is of another type.
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.ConstraintError, UnicodeDecodeError) as error:
        raise LogDamagedError("the feedback log's database is damaged; restore a backup") from error
    except (apsw.Error, OSError) as error:
        raise LogUnavailableError("the feedback log cannot be used now; try again") from error


def close_quietly(database: apsw.Connection) -> None:
    """Closes a connection whatever state it is in; what it could not write is not acknowledged by anyone."""
    with suppress(apsw.Error):
        database.close(force=True)
