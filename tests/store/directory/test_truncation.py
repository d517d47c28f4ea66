"""A log that lost acknowledged events is refused."""

import random
import shutil
from pathlib import Path

import pytest

from service.errors import LogDamagedError, LogError
from service.store.directory.ack_marks import AckMarks, read_marks
from service.store.directory.truncation import refuse_truncated_log
from service.store.log.events import EventLocation, Position
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS, feedback
from tests.support.memory_log import MemoryLog


def test_a_log_must_contain_every_position_that_was_reached() -> None:
    """A log must contain every position that was reached, and every stream."""
    log = MemoryLog()
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, "a"), feedback(stream, "b")])
    hashes = [event.hash for event in log.read_events(stream.number, 0, 9)]
    refuse_truncated_log(log, [(stream.number, Position(seq, hash_)) for seq, hash_ in enumerate([GENESIS, *hashes])])
    with pytest.raises(LogDamagedError, match="lost a stream"):
        refuse_truncated_log(log, [(stream.number + 1, Position(8, hashes[0]))])
    for reached in (Position(3, hashes[1]), Position(1, hashes[1])):
        with pytest.raises(LogDamagedError):
            refuse_truncated_log(log, [(stream.number, reached)])


@pytest.fixture(scope="module")
def acknowledged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """Return the files of a log with 150 events, half of them in the write-ahead log, with its mark; and the events."""
    folder = tmp_path_factory.mktemp("log")
    log = SqliteLog(folder / "log.sqlite", tail_events_max=20)
    stream = log.open_stream("iris", 1, GENESIS, 3)
    marks = AckMarks(folder / "marks", {stream.number})
    for batch in range(15):
        outcomes = log.append([feedback(stream, f"{batch}-{n}", batch) for n in range(10)])
        assert all(isinstance(outcome, EventLocation) for outcome in outcomes)
        marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
        if batch == 7:
            log.empty_wal()
    log.close()
    events = log.read_events(stream.number, 0, 999)
    log.close()
    return folder, events


def started(folder: Path) -> list:
    """Return the events that a service would serve from these files."""
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
    """After a flipped bit in any file the start is refused, or all events are intact."""
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
    """A truncated database or write-ahead log is refused."""
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
