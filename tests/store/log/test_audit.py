"""The audit derives everything from a log's events again, and reports every difference."""

from pathlib import Path

import pytest

from service.errors import LogDamagedError
from service.store.log import tables
from service.store.log.audit import audit_log
from service.store.log.events import SEQ_BITS, Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS, classes, correction, feedback, forget, rollback
from tests.support.memory_log import MemoryLog


def filled(log: FeedbackLog) -> Stream:
    """Return a stream with every kind of event, next to a second stream."""
    stream, other = (log.open_stream("iris", version, GENESIS, 3) for version in (1, 2))
    actors = {7: b"key:one", 3: b"key:two"}
    log.append([feedback(stream, str(n))._replace(actor=actors.get(n, b"")) for n in range(20)])
    log.append([classes(stream, "c", "x"), correction(stream, "d", 4), correction(stream, "e", 6)])
    log.append(
        [forget(stream, "f", "3", "4")._replace(actor=b"command"), rollback(stream, "r", 21), feedback(other, "o")]
    )
    return stream


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    return SqliteLog(tmp_path / "log.sqlite", tail_events_max=4)


def test_a_whole_log_passes(log: SqliteLog) -> None:
    """A valid log of any backend passes, and the audit yields the progress of each stream."""
    for checked_log in (log, MemoryLog()):
        stream = filled(checked_log)
        progress = [(checked.number, seq) for checked, (seq, _) in audit_log(checked_log, 10)]
        assert progress == [(stream.number, 10), (stream.number, 20), (stream.number, 25), (stream.number + 1, 1)]
    log.check_file()


def damage(log: SqliteLog, statement: str) -> None:
    filled(log)
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = x'00' WHERE position & 255 = 7",
        "UPDATE events SET payload = x'00' WHERE position & 255 = 4",
        "UPDATE events SET time_ms = time_ms + 1 WHERE position & 255 = 7",
        "UPDATE events SET id = x'00' WHERE position & 255 = 7",
        "UPDATE events SET seal = x'00' WHERE position & 255 = 4",
        "UPDATE events SET hash = x'00' WHERE position & 255 = 7",
        "UPDATE events SET actor = x'6b' WHERE position & 255 = 7",
        "UPDATE events SET actor = x'6b65793a74776f' WHERE position & 255 = 8",
        "UPDATE events SET actor = x'' WHERE position & 255 = 8",
        "UPDATE events SET actor = zeroblob(256) WHERE position & 255 = 8",
        "UPDATE events SET actor = x'' WHERE position & 255 = 24",
        "DELETE FROM events WHERE position & 255 = 7",
        "DELETE FROM events WHERE position & 255 = 21",
        "UPDATE events SET payload = x'00' WHERE position & 255 = 22",
        "UPDATE events SET payload = x'00' WHERE position & 255 = 23",
        "UPDATE events SET payload = NULL WHERE position & 255 = 23",
        "DELETE FROM ids",
        "UPDATE ids SET key = key + 1",
    ],
)
def test_changed_tables_are_reported(log: SqliteLog, statement: str) -> None:
    """The audit detects each kind of damage by the chain, by the ids, or by the stream's state."""
    damage(log, statement)
    with pytest.raises(LogDamagedError):
        for _ in audit_log(log, 10):
            pass


def test_rows_lost_without_a_forget_are_reported(log: SqliteLog) -> None:
    """Lost rows are reported, which the chain does not cover."""
    stream = filled(log)
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        tables.forget_payload(connection, stream.number << SEQ_BITS | 9)
    list(log.verify_chain(stream.number, Position(0, GENESIS), 10))
    with pytest.raises(LogDamagedError, match="nothing forgot"):
        list(audit_log(log, 10))


def test_forgotten_rows_that_reappear_are_reported(log: SqliteLog) -> None:
    """Rows that reappear after a FORGET are reported, although the chain is intact."""
    stream = filled(log)
    position = stream.number << SEQ_BITS | 9
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        (row,) = tables.read_rows(connection, [position])
    log.append([forget(stream, "g", "8")])
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        connection.execute("UPDATE events SET payload = ?, seal = ? WHERE position = ?", (row[4], row[7], position))
    list(log.verify_chain(stream.number, Position(0, GENESIS), 10))
    with pytest.raises(LogDamagedError, match="still has its rows"):
        list(audit_log(log, 10))


def test_events_forgotten_during_an_audit_are_not_damage(log: SqliteLog) -> None:
    stream = filled(log)
    audited = audit_log(log, 10)
    next(audited)
    log.append([forget(stream, "g", "12")])
    assert [seq for _, (seq, _) in audited][-1] == 1


def test_a_wrong_stream_state_is_reported(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(log)
    state = log.stream_state
    for wrong in ({"class_epoch": 2}, {"n_classes": 9}, {"epoch": 0}):
        monkeypatch.setattr(log, "stream_state", lambda stream, wrong=wrong: state(stream)._replace(**wrong))
        with pytest.raises(LogDamagedError):
            list(audit_log(log, 10))


def test_pages_that_do_not_fit_are_reported(log: SqliteLog) -> None:
    """SQLite's own check detects a missing entry of an index."""
    filled(log)
    log.empty_wal()
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        connection.execute("PRAGMA writable_schema=on")
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'admin_events'").get
    log.close()
    content = bytearray(log.path.read_bytes())
    content[(page - 1) * 4096 + 3 : (page - 1) * 4096 + 5] = b"\0\1"  # the number of its entries
    log.path.write_bytes(content)
    with pytest.raises(LogDamagedError):
        log.check_file()


def test_verification_continues_where_it_stopped(log: SqliteLog) -> None:
    stream = filled(log)
    positions = [position for checked, position in audit_log(log, 10) if checked == stream]
    assert list(log.verify_chain(stream.number, positions[1], 10)) == positions[2:]
    with pytest.raises(LogDamagedError):
        list(log.verify_chain(stream.number, Position(positions[1].seq, bytes(32)), 10))
