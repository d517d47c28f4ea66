"""The SQLite backend passes the conformance suite, and its copies, purges and processes work."""

import os
import struct
from pathlib import Path

import pytest

from service.errors import (
    LogDamagedError,
    LogUnavailableError,
)
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import EventLocation, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import (
    GENESIS,
    FeedbackLogTests,
    admin,
    feedback,
    forget,
    kinds,
    rollback,
)
from tests.support.read_only import read_only, shared_folder


class TestSqliteLog(FeedbackLogTests):
    """Every racing thread has a connection of its own."""

    tail = 65_536

    def make_log(self, folder: Path) -> FeedbackLog:
        return SqliteLog(folder / "log.sqlite", tail_events_max=self.tail)

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        log.close()
        return self.make_log(folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it opens the file again
        return self.make_log(folder)


class TestSqliteLogWithAShortTail(TestSqliteLog):
    """A slice of the index is written after every few ids."""

    tail = 3


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
    """An interrupted purge is finished in pieces, and nothing of the stream is left."""
    monkeypatch.setattr("service.store.log.sqlite.PURGE_EVENTS", 3)
    log.append([feedback(stream, str(n)) for n in range(10)])
    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "finish_purges", lambda _: None)
        log.purge_stream(stream.number)
    assert log.list_streams() == []
    log.finish_purges()
    # The log's calls hide what a purge left; the tables show it.
    with log._connection.connection() as connection:
        assert connection.execute("SELECT count(*) FROM events").get == 0
        assert connection.execute("SELECT count(*) FROM streams").get == 0


def test_a_purge_by_another_process_is_noticed(path: Path, log: SqliteLog, stream: Stream) -> None:
    """Ids of a stream that another process purged name nothing any more."""
    log.append([feedback(stream, "a"), feedback(stream, "b")])
    SqliteLog(path).purge_stream(stream.number)
    again = log.open_stream("iris", 1, GENESIS, 3)
    assert kinds(log.append([feedback(again, "a", 9.0), feedback(again, "a", 9.0), feedback(stream, "c")]))[:2] == [
        1,
        1,
    ]
    assert log.find_ids("iris", [b"b"]) == {}


def test_removals_of_other_processes_are_known(path: Path, log: SqliteLog, stream: Stream) -> None:
    """A retry reports what another connection's admin events have done since, and reads only those that are new."""
    other = SqliteLog(path)
    known = feedback(stream, "a")
    log.append([known, feedback(stream, "b"), admin(stream, "pause", Kind.CONFIGURE, b'{"paused":true}')])

    def removal() -> Kind | None:
        (outcome,) = log.append([known])
        assert isinstance(outcome, EventLocation)
        assert log.find_ids("iris", [known.id]) == {known.id: outcome}
        return outcome.removed_by

    assert removal() is None
    for name, change, expected in (
        ("back", rollback(stream, "back", 0), Kind.ROLLBACK),
        ("forth", rollback(stream, "forth", 2), None),
        ("skip", admin(stream, "skip", Kind.SKIP, dump_seq(1)), Kind.SKIP),
        ("forget", forget(stream, "forget", "a"), Kind.FORGET),
    ):
        other.append([change, feedback(stream, f"after {name}")])
        assert removal() == expected, name
    other.close()


def test_racing_processes_agree_on_one_order(path: Path, log: SqliteLog, stream: Stream) -> None:
    """Processes that append own and shared ids agree on the seqs, and every event is stored once."""

    def post(number: int) -> str:
        own = SqliteLog(path, tail_events_max=16)
        names = [name for batch in range(30) for name in (f"{number}-{batch}", f"shared-{batch}")]
        outcomes = [own.append([feedback(stream, name)])[0] for name in names]
        return " ".join(f"{name}={seq}" for name, seq in zip(names, kinds(outcomes), strict=True))

    reported = {pair for text in in_children([lambda n=n: post(n) for n in range(3)]) for pair in text.split()}
    events = log.read_events(stream.number, 0, 1000)
    assert reported == {f"{event.id.decode()}={event.seq}" for event in events}
    assert [event.seq for event in events] == list(range(1, 121))
    assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 1000)] == [120]


def in_children(calls: list) -> list[str]:
    """Run each call in a forked process, and return the results."""
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


def test_a_batch_that_fails_leaves_nothing(log: SqliteLog, stream: Stream) -> None:
    """An invalid draft fails the whole batch, and the next batch gets the next seqs."""
    log.append([feedback(stream, "a")])
    with pytest.raises(struct.error):
        log.append([feedback(stream, "b"), feedback(stream, "c")._replace(time_ms=-1)])
    assert kinds(log.append([feedback(stream, "c"), feedback(stream, "b")])) == [2, 3]
    assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 9)] == [3]


def test_a_gap_is_not_served(log: SqliteLog, stream: Stream) -> None:
    log.append([feedback(stream, str(n)) for n in range(5)])
    # No public call damages a log; the test changes rows as a faulty disk would.
    with log._connection.write_transaction() as connection:
        connection.execute("DELETE FROM events WHERE position & 7 = 3")
    with pytest.raises(LogDamagedError):
        log.read_events(stream.number, 0, 9)
    with pytest.raises(LogDamagedError):
        log.read_payloads(stream.number, Position(0, GENESIS), 9)
    assert len(log.read_payloads(stream.number, Position(0, GENESIS), 2)[0]) == 2
    with pytest.raises(LogDamagedError):
        list(log.verify_chain(stream.number, Position(0, GENESIS), 9))


def test_a_log_is_read_in_a_read_only_folder() -> None:
    """All reads work beside a writer, after it, and without the files of a write-ahead log; every write is refused."""
    with shared_folder() as folder:
        path = folder / "log.sqlite"
        log = SqliteLog(path)
        stream = log.open_stream("iris", 1, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(stream, "b"), forget(stream, "f", "a")])
        expected = read_everything(log, stream)
        with read_only(folder):
            reader = SqliteLog(path, read_only=True)
            assert read_everything(reader, stream) == expected
            with pytest.raises(LogUnavailableError):
                reader.append([feedback(stream, "c")])
        log.append([feedback(stream, "c")])
        with read_only(folder):
            assert reader.stream_state(stream.number).seq == 4
            assert reader.find_ids("iris", [b"c"]) == {b"c": EventLocation(stream.number, 4, duplicate=True)}
        reader.close()
        log.close()
        names = {"log.sqlite", "log.sqlite-wal", "log.sqlite-shm"}
        assert {file.name for file in folder.iterdir()} == names
        (folder / "log.sqlite-shm").unlink()
        with read_only(folder), pytest.raises(LogUnavailableError, match=r"log\.sqlite-shm is missing"):
            SqliteLog(path, read_only=True)
        log.empty_wal()
        log.close()
        for name in ("log.sqlite-shm", "log.sqlite-wal"):
            (folder / name).unlink()
            with read_only(folder):
                reader = SqliteLog(path, read_only=True)
                assert reader.stream_state(stream.number).seq == 4
                reader.close()
        assert [file.name for file in folder.iterdir()] == ["log.sqlite"]


def read_everything(log: SqliteLog, stream: Stream) -> list[object]:
    """Return the results of the reads."""
    start = Position(0, GENESIS)
    return [
        log.list_streams(),
        log.stream_state(stream.number),
        log.read_events(stream.number, 0, 9),
        log.read_payloads(stream.number, start, 9),
        log.read_admin_events(stream.number),
        log.find_ids("iris", [b"a", b"b", b"f", b"unknown"]),
        list(log.verify_chain(stream.number, start, 9)),
    ]
