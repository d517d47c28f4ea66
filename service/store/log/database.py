"""An SQLite database that stores durably: the versions of SQLite, how it is opened, and what its errors mean.

SQLite 3.7.0 to 3.51.2 can damage a write-ahead log that two connections write and checkpoint at one moment. It is fixed
in 3.51.3, 3.50.7 and 3.44.6, and 3.52.0 was withdrawn. Every connection sets its pragmas and reads them back, because
builds differ in their defaults. A connection is never used after a fork.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import apsw

from service.errors import LogDamagedError, LogUnavailableError, LogUnsafeError
from service.store.filesystem import sync_file, sync_folder
from service.store.mount_types import refuse_unsafe_filesystem

APPLICATION_ID: Final = int.from_bytes(b"SFST")
# 1: the kinds 1 to 7. 2: CORRECT too; the tables are the same, but earlier releases do not know the kind. 3: events
# have actors.
USER_VERSION: Final = 3
READABLE_VERSIONS: Final = frozenset((1, 2, 3))
ACTORS_VERSION: Final = 3
BUSY_MS: Final = 5000
# The size with the most events in a page for the fewest bytes of log: see loadtest/appends.py.
PAGE_BYTES: Final = 4096
WAL_FRAME_BYTES: Final = PAGE_BYTES + 24
WAL_BYTES_KEPT: Final = 64 << 20

# Name, value to set, value to read back.
Pragma = tuple[str, str, str | int]
READ_PRAGMAS: Final[tuple[Pragma, ...]] = (
    ("cell_size_check", "on", 1),
    ("trusted_schema", "off", 0),
    ("mmap_size", "0", 0),  # an I/O error on mapped memory kills the process
    ("cache_size", "-32768", -32768),
)
PRAGMAS: Final[tuple[Pragma, ...]] = (
    ("journal_mode", "wal", "wal"),
    ("synchronous", "full", 2),
    ("fullfsync", "on", 1),  # macOS: a sync that reaches the disk
    ("checkpoint_fullfsync", "on", 1),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(WAL_BYTES_KEPT), WAL_BYTES_KEPT),
    ("secure_delete", "on", 1),
    *READ_PRAGMAS,
)


def refuse_unsafe_version(version: str) -> None:
    """Raise LogUnsafeError for an SQLite version, such as 3.46.1, that has the WAL-reset bug."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise LogUnsafeError("the SQLite library does not report its version; install the locked apsw")
    major, minor, patch = map(int, match.groups())
    fixed_since = {44: 6, 50: 7, 51: 3}
    is_safe = (major, minor) > (3, 52) or (major, minor, patch) >= (3, 52, 1)
    is_safe |= major == 3 and minor in fixed_since and patch >= fixed_since[minor]  # noqa: PLR2004  # SQLite 3
    if not is_safe:
        raise LogUnsafeError(
            f"SQLite {version} can damage its write-ahead log; install the locked apsw, which has its own"
        )


def open_database(
    path: Path, create_tables: Callable[[apsw.Connection], None], vfs: str | None = None
) -> apsw.Connection:
    """Open a database, create it if it is missing, and return once everything in it is on disk.

    Args:
        path: The file; its folder exists.
        create_tables: Creates the tables of a new database.
        vfs: Name of the VFS, for tests in which the disk fails.

    Raises:
        LogUnsafeError: This SQLite or this disk does not store durably, or the file belongs to another program.
        LogDamagedError: The file is no longer a database.
        LogUnavailableError: It cannot be opened now.
    """
    refuse_unsafe_version(apsw.sqlite_lib_version())
    refuse_unsafe_filesystem(path.parent)
    with translate_errors():
        database = apsw.Connection(str(path), vfs=vfs)
        try:
            _configure(database)
            _initialize(database, create_tables)
            sync_recovered_wal(path)
            sync_folder(path.parent)
        except BaseException:
            close_quietly(database)
            raise
    return database


def open_read_only(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open an existing database for reading, also in a directory in which nothing can be written.

    Other processes may write to it meanwhile.

    Args:
        path: The file.
        vfs: Name of the VFS, for tests in which the disk fails.

    Raises:
        LogUnsafeError: As for `open_database`.
        LogDamagedError: The file is no longer a database.
        LogUnavailableError: It cannot be opened now.
    """
    refuse_unsafe_version(apsw.sqlite_lib_version())
    refuse_unsafe_filesystem(path.parent)
    with translate_errors():
        uri = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if _is_immutable(path) else ''}"
        database = apsw.Connection(uri, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs)
        try:
            database.set_busy_timeout(BUSY_MS)
            database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _set_pragmas(database, READ_PRAGMAS)
            _check_identity(database)
        except BaseException:
            close_quietly(database)
            raise
    return database


def sync_recovered_wal(path: Path) -> None:
    """Sync what a recovery found in the write-ahead log.

    A process that is killed between a write and its sync leaves frames that the next one accepts as committed. They
    must be on disk before anything is answered from them. SQLite has no lock on that file that closing it would drop.
    """
    with suppress(FileNotFoundError):
        sync_file(Path(f"{path}-wal"))


def wal_size(path: Path) -> int:
    """Return the bytes of a database's write-ahead log file; its valid content can be less."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _is_immutable(path: Path) -> bool:
    """Return whether no process writes to a database: its directory is read-only, and it has no write-ahead log in use.

    A process that writes keeps both further files open. SQLite creates missing ones unless the database is immutable.

    Raises:
        LogUnavailableError: The directory is read-only, and lacks one of the two files of a write-ahead log in use.
    """
    if os.access(path.parent, os.W_OK, effective_ids=True):
        return False
    is_complete = all(Path(f"{path}{ending}").exists() for ending in ("-wal", "-shm"))
    if wal_size(path) and not is_complete:
        raise LogUnavailableError(
            "the data directory is read-only, and log.sqlite-shm is missing; copy the directory and use the copy"
        )
    return not is_complete


def _configure(database: apsw.Connection) -> None:
    database.set_busy_timeout(BUSY_MS)
    # The last connection to close would write the whole log back while a shutdown waits; the next start does that.
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    database.pragma("page_size", PAGE_BYTES)
    _set_pragmas(database, PRAGMAS)


def _set_pragmas(database: apsw.Connection, pragmas: Iterable[Pragma]) -> None:
    for name, value, expected in pragmas:
        database.execute(f"PRAGMA {name}={value}").fetchall()
        if database.pragma(name) != expected:
            raise LogUnsafeError(f"SQLite does not accept the setting {name}={value}; install the locked apsw")


def _initialize(database: apsw.Connection, create_tables: Callable[[apsw.Connection], None]) -> None:
    with transaction(database):
        identity = database.pragma("application_id"), database.pragma("user_version")
        if identity == (0, 0) and not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
            create_tables(database)
            database.pragma("application_id", APPLICATION_ID)
            database.pragma("user_version", USER_VERSION)
        else:
            _check_identity(database)


def _check_identity(database: apsw.Connection) -> None:
    if database.pragma("application_id") != APPLICATION_ID:
        raise LogUnsafeError("the file of the feedback log is another program's database; use another directory")
    if database.pragma("user_version") not in READABLE_VERSIONS:
        raise LogUnsafeError(
            "another release wrote the feedback log in a format that this release cannot read; use that release"
        )


@contextmanager
def transaction(database: apsw.Connection) -> Iterator[None]:
    """Run one write transaction: committed at the end, rolled back if an exception is raised."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # After some errors SQLite has rolled back already.
        with suppress(apsw.Error):
            database.execute("ROLLBACK")
        raise


@contextmanager
def read_transaction(database: apsw.Connection) -> Iterator[None]:
    """Let several reads see the database as of one moment."""
    database.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(apsw.Error):
            database.execute("ROLLBACK")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise a LogError instead of the driver's; disk errors (apsw.IOError, apsw.FullError) become "unavailable"."""
    try:
        yield
    # UnicodeDecodeError: an invalid text instead of bytes; every column that the log fills has another type.
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.ConstraintError, UnicodeDecodeError) as error:
        raise LogDamagedError("the feedback log's database is damaged; restore a backup") from error
    except (apsw.Error, OSError) as error:
        raise LogUnavailableError("the feedback log cannot be used now; try again") from error


def close_quietly(database: apsw.Connection) -> None:
    """Close a connection in any state; what it could not write has been acknowledged by no process."""
    with suppress(apsw.Error):
        database.close(force=True)
