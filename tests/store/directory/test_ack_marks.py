"""Marks survive the process that writes them; torn ones are ignored, and damaged ones are refused."""

import os
import signal
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import LogDamagedError
from service.store.directory import ack_marks as module
from service.store.directory.ack_marks import AckMarks, delete_mark, read_marks
from service.store.directory.truncation import refuse_truncated_log
from service.store.log.events import Position
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS, feedback


def position(seq: int) -> Position:
    return Position(seq, bytes([seq % 256]) * 32)


def test_the_last_mark_of_each_stream_is_read(tmp_path: Path) -> None:
    """The last mark of each stream is read after many marks, also from a file that a second process continued."""
    path = tmp_path / "0"
    for start in (1, 4):
        marks = AckMarks(path, {1, 2, 3})
        for seq in range(start, start + 3):
            marks.write_mark(1, position(seq))
            marks.write_mark(3, position(2 * seq))
            assert sorted(read_marks(path)) == [(1, position(seq)), (3, position(2 * seq))]
        marks.close()


def test_marks_of_purged_streams_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDS_MAX", 2)
    marks = AckMarks(tmp_path / "0", {1, 2})
    marks.write_mark(1, position(1))
    marks.write_mark(2, position(1))
    with pytest.raises(LogDamagedError):
        marks.write_mark(3, position(1))
    AckMarks(tmp_path / "0", {2}).write_mark(3, position(5))
    assert sorted(read_marks(tmp_path / "0")) == [(2, position(1)), (3, position(5))]


def test_a_torn_mark_leaves_the_one_before(tmp_path: Path) -> None:
    """Any partial write of the newer half leaves the older mark readable."""
    path = tmp_path / "0"
    AckMarks(path, {1}).write_mark(1, position(1))
    for seq in (2, 3):
        before = path.read_bytes()
        AckMarks(path, {1}).write_mark(1, position(seq))
        after = path.read_bytes()
        changed = [at for at in range(len(before)) if before[at] != after[at]]
        for end in range(changed[0], changed[-1] + 1):
            path.write_bytes(after[:end] + before[end:])
            assert read_marks(path) == [(1, position(seq - 1))]
        path.write_bytes(after)
        assert read_marks(path) == [(1, position(seq))]


def test_damaged_marks_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "0"
    AckMarks(path, {1}).write_mark(1, position(1))
    content = bytearray(path.read_bytes())
    content[module.HEAD_BYTES + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(LogDamagedError):
        read_marks(path)
    for nothing in (b"", bytes(len(content)), content[:-1]):
        path.write_bytes(nothing)
        with pytest.raises(LogDamagedError):
            read_marks(path)


def test_marks_outlive_a_killed_process(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        marks = AckMarks(tmp_path / "0", {1})
        for seq in range(1, 100):
            marks.write_mark(1, position(seq))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read_marks(tmp_path / "0") == [(1, position(99))]


def test_a_lost_stream_is_distinguished_from_a_purged_one(tmp_path: Path) -> None:
    """Its row in the database is gone, and its events with it; a purge takes its marks along, of every worker."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path)
    streams = [log.open_stream("iris", version, GENESIS, 3) for version in (1, 2)]
    for slot in ("0", "1"):
        marks = AckMarks(tmp_path / slot, {1, 2})
        for stream in streams:
            log.append([feedback(stream, f"{slot}-{stream.version}")])
            marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
        marks.close()
    log.close()
    with closing(apsw.Connection(str(path))) as damage:
        damage.execute("DELETE FROM streams WHERE number = 1; DELETE FROM events WHERE position < 2 << 40")
    log = SqliteLog(path)
    for slot in ("0", "1"):
        with pytest.raises(LogDamagedError, match="lost a stream"):
            refuse_truncated_log(log, read_marks(tmp_path / slot))
        delete_mark(tmp_path / slot, 1)
        delete_mark(tmp_path / slot, 7)
        ((number, _),) = read_marks(tmp_path / slot)
        assert number == 2
        refuse_truncated_log(log, read_marks(tmp_path / slot))
    log.close()
