"""Feedback is refused above the limits of disk and write-ahead log."""

from pathlib import Path

import apsw

from service.errors import (
    LogFullError,
)
from service.store.log.events import EventLocation, Stream
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import feedback, forget, kinds


def test_a_full_disk_takes_admin_calls_only(path: Path, log: SqliteLog, stream: Stream) -> None:
    log.append([feedback(stream, "a")])
    full = SqliteLog(path, reserve_bytes=1 << 62)
    assert kinds(full.append([feedback(stream, "b"), forget(stream, "f", "a")])) == [LogFullError, 2]


def test_feedback_waits_where_the_write_ahead_log_cannot_shrink(path: Path, stream: Stream) -> None:
    """Feedback is refused while a reader keeps the write-ahead log from shrinking, and accepted afterwards."""
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
