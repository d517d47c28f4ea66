"""The index of ids finds every event, wherever its id is stored."""

from pathlib import Path

import apsw
import pytest

from service.errors import (
    LogDamagedError,
)
from service.store.log.events import EventLocation, Stream
from service.store.log.sqlite import SqliteLog
from tests.support.feedback_log_contract import GENESIS, feedback, kinds


def test_ids_are_found_in_every_part_of_the_index(path: Path) -> None:
    """Ids are found in the tail, in slices, in another process's slices, and by a new object."""
    first, second = (SqliteLog(path, tail_events_max=50) for _ in range(2))
    stream = first.open_stream("iris", 1, GENESIS, 3)
    for batch in range(12):
        writer = (first, second)[batch % 2]
        writer.append([feedback(stream, f"{batch}-{n}") for n in range(20)])
    ids = [f"{batch}-{n}".encode() for batch in range(12) for n in range(20)]
    expected = {id_: EventLocation(stream.number, seq, duplicate=True) for seq, id_ in enumerate(ids, 1)}
    for log in (first, second, SqliteLog(path, tail_events_max=50)):
        assert log.find_ids("iris", ids) == expected
    # The log's calls hide where an id is stored; the table shows it.
    with first._connection.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ids").get >= 240 - 50 - 20
        assert connection.execute("SELECT count(DISTINCT position) = count(*) FROM ids").get == 1


def test_equal_keys_do_not_make_equal_ids(path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids with equal keys are distinguished by their events."""
    monkeypatch.setattr("service.store.log.id_index.IdIndex.hash_names", lambda _, names: [7] * len(names))
    log = SqliteLog(path, tail_events_max=2)
    for _ in range(2):
        outcomes = [log.append([feedback(stream, str(n))])[0] for n in range(10)]
        assert kinds(outcomes) == list(range(1, 11))


def test_an_impossible_slice_is_damage(path: Path, log: SqliteLog, stream: Stream) -> None:
    log.close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO slices VALUES(3, x'00')")
    with pytest.raises(LogDamagedError):
        SqliteLog(path).append([feedback(stream, "a")])
    connection.execute("DELETE FROM facts")
    with pytest.raises(LogDamagedError):
        SqliteLog(path)
