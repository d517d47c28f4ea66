"""Marks: they outlive the process that writes them, and a log that was cut behind one is refused."""

import os
import random
import shutil
import signal
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import LogDamagedError, LogError
from service.store.directory import ack_marks as module
from service.store.directory.ack_marks import AckMarks, delete_mark, read_marks
from service.store.directory.truncation import refuse_truncated_log
from service.store.log.events import EventLocation, Position
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS, feedback
from tests.support.memory_log import MemoryLog


def position(seq: int) -> Position:
    return Position(seq, bytes([seq % 256]) * 32)


def test_the_last_mark_of_each_stream_is_read(tmp_path: Path) -> None:
    """Over many marks, and by a successor that goes on with the file."""
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
    """Whatever part of the later half was written when the process died, which may be a successor of the first."""
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


def test_damaged_marks_are_told(tmp_path: Path) -> None:
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


def test_a_log_must_hold_what_was_reached() -> None:
    """Its very event; a stream that had no event yet is passed over, and one that is not there is missed."""
    log = MemoryLog()
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, "a"), feedback(stream, "b")])
    hashes = [event.hash for event in log.read_events(stream.number, 0, 9)]
    refuse_truncated_log(log, [(stream.number, Position(seq, hash_)) for seq, hash_ in enumerate([GENESIS, *hashes])])
    with pytest.raises(LogDamagedError, match="lost a stream"):
        refuse_truncated_log(log, [(stream.number + 1, position(8))])
    for reached in (Position(3, hashes[1]), Position(1, hashes[1])):
        with pytest.raises(LogDamagedError):
            refuse_truncated_log(log, [(stream.number, reached)])


def test_a_stream_that_is_lost_is_told_from_one_that_was_purged(tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def acknowledged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """The files of a log with 150 events, half of them in the write-ahead log, and with its mark; and the events."""
    folder = tmp_path_factory.mktemp("log")
    log = SqliteLog(folder / "log.sqlite", tail_events_max=20)
    stream = log.open_stream("iris", 1, GENESIS, 3)
    marks = AckMarks(folder / "marks", {stream.number})
    for turn in range(15):
        outcomes = log.append([feedback(stream, f"{turn}-{n}", turn) for n in range(10)])
        assert all(isinstance(outcome, EventLocation) for outcome in outcomes)
        marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
        if turn == 7:
            log.empty_wal()
    log.close()
    events = log.read_events(stream.number, 0, 999)
    log.close()
    return folder, events


def started(folder: Path) -> list:
    """What a service that starts on these files would serve."""
    log = SqliteLog(folder / "log.sqlite")
    try:
        refuse_truncated_log(log, read_marks(folder / "marks"))
        (stream,) = log.list_streams()
        for _ in log.verify_chain(stream.number, Position(0, stream.genesis), 64):
            pass
        return log.read_events(stream.number, 0, 999)
    finally:
        log.close()


def damaged(folder: Path, tmp_path: Path, name: str, content: bytes) -> Path:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in ("log.sqlite", "log.sqlite-wal", "marks"):
        (copy / file).write_bytes((folder / file).read_bytes())
    (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize("name", ["log.sqlite", "log.sqlite-wal", "marks"])
def test_flipped_bits_are_refused_or_harmless(acknowledged: tuple[Path, list], tmp_path: Path, name: str) -> None:
    """Any bit of any file: the start refuses with a known error, or everything is as it was."""
    folder, events = acknowledged
    assert started(damaged(folder, tmp_path, "marks", (folder / "marks").read_bytes())) == events
    content = (folder / name).read_bytes()
    used = content.rstrip(b"\0") if name == "marks" else content
    seeded = random.Random(name)
    refused = 0
    for _ in range(120):
        at = seeded.randrange(len(used))
        flipped = content[:at] + bytes([content[at] ^ 1 << seeded.randrange(8)]) + content[at + 1 :]
        try:
            assert started(damaged(folder, tmp_path, name, flipped)) == events
        except LogError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", ["log.sqlite", "log.sqlite-wal"])
def test_a_cut_tail_is_refused(acknowledged: tuple[Path, list], tmp_path: Path, name: str) -> None:
    """Of the write-ahead log, which ends earlier without complaint, as of the database."""
    folder, events = acknowledged
    content = (folder / name).read_bytes()
    seeded = random.Random(7)
    for length in [0, *(seeded.randrange(len(content)) for _ in range(30))]:
        copy = damaged(folder, tmp_path, name, content[:length])
        try:
            assert started(copy) == events
        except (LogError, ValueError):
            continue
        # Nothing but unused frames behind the last commit may be missing.
        assert length > len(content) * 0.9
