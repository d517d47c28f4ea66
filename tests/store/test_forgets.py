"""Forgetting by id, wherever among a model's versions it lies: all or nothing, and the same call twice is one."""

from pathlib import Path

import pytest

from service.errors import UnknownIdError
from service.store.feedback import Accepted, FeedbackLog, Stream
from service.store.forgets import forget_drafts
from service.store.sqlite import SqliteLog
from tests.contracts.feedback_log import GENESIS, classes, feedback, forget


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """A log with two versions of a model, and another model."""
    log = SqliteLog(tmp_path / "log.sqlite")
    for model, version in (("iris", 1), ("iris", 2), ("digits", 1)):
        stream = log.open_stream(model, version, GENESIS, 3)
        log.append([feedback(stream, f"{model} {version} {n}") for n in range(5)])
        log.append([classes(stream, f"{model} {version} class", "x")])
    return log


def forgotten(log: FeedbackLog, stream: Stream) -> list[int]:
    """The seqs whose payloads are gone."""
    return [event.seq for event in log.read(stream.number, 0, 99) if event.payload is None]


def test_ids_are_forgotten_where_they_lie(log: SqliteLog) -> None:
    """One event in each stream concerned, in one transaction; a retry finds them."""
    first, second, other = log.streams()
    ids = [b"iris 2 3", b"iris 1 0", b"iris 1 4", b"iris 1 0"]
    for duplicate in (False, True):
        outcomes = log.append(forget_drafts(log, "iris", ids, b"call", 7))
        assert outcomes == [Accepted(stream.number, 7, duplicate=duplicate) for stream in (first, second)]
    assert (forgotten(log, first), forgotten(log, second), forgotten(log, other)) == ([1, 5], [4], [])


def test_where_one_stream_has_all_the_call_is_its_event(log: SqliteLog) -> None:
    """With the id of the call, as if its version had been named."""
    (draft,) = forget_drafts(log, "iris", [b"iris 2 3"], b"call", 7)
    _, second, _ = log.streams()
    assert draft == forget(second, "call", "iris 2 3")._replace(time_ms=7)


def test_calls_of_other_names_are_other_events(log: SqliteLog) -> None:
    """The same ids may be forgotten by two calls, as in one version."""
    ids = [b"iris 2 3", b"iris 1 0"]
    log.append(forget_drafts(log, "iris", ids, b"one", 7))
    assert [outcome.seq for outcome in log.append(forget_drafts(log, "iris", ids, b"two", 7))] == [8, 8]


@pytest.mark.parametrize("unknown", [b"iris 3 0", b"digits 1 0", b"iris 1 class"])
def test_an_id_that_is_no_feedback_of_the_model_stops_all(log: SqliteLog, unknown: bytes) -> None:
    """In a sentence that repeats nothing of it."""
    with pytest.raises(UnknownIdError, match=r"^an id to forget names no feedback of this model$"):
        forget_drafts(log, "iris", [b"iris 1 0", unknown], b"call", 7)
