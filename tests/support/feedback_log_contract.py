"""The conformance suite of feedback logs: the tests of a backend inherit `FeedbackLogTests` and create the log."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import (
    ClassesChangedError,
    ClassesMaxError,
    EarlierReleaseError,
    EventForgottenError,
    EventRolledBackError,
    EventSkippedError,
    IdConflictError,
    LogDamagedError,
    PayloadError,
    SeqMovedError,
    StreamGoneError,
    UnknownIdError,
    UnknownSeqError,
)
from service.store.log.admin_payloads import base_id, dump, dump_classes, dump_forget, dump_forget_ids, dump_seq
from service.store.log.append_rules import CLASSES_MAX
from service.store.log.correction_payload import encode_correction
from service.store.log.events import (
    ACTOR_BYTES_MAX,
    COMMAND,
    ID_BYTES_MAX,
    PREVIEW_BYTES_MAX,
    PREVIEW_START_BYTES,
    Draft,
    EventLocation,
    Kind,
    Outcome,
    Position,
    Stream,
    StreamState,
)
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout

GENESIS = bytes(range(32))
NOW = 1_700_000_000_000


def payload(value: float = 0.0) -> bytes:
    """Return a payload of feedback with one row whose features are all `value`."""
    return encode_rows(np.full((1, 4), value, "f4"), np.array([1]), Targets.INDEX, 3)


def feedback(stream: Stream, name: str, value: float = 0.0, **expected: int) -> Draft:
    """Return a draft of feedback with this id."""
    return Draft(stream.number, Kind.FEEDBACK, name.encode(), payload(value), NOW, **expected)


def admin(stream: Stream, name: str, kind: Kind, content: bytes, **expected: int) -> Draft:
    """Return a draft of an admin call with this id."""
    return Draft(stream.number, kind, name.encode(), content, NOW, **expected)


def forget(stream: Stream, name: str, *ids: str) -> Draft:
    """Return a draft that forgets the events with these ids."""
    return admin(stream, name, Kind.FORGET, dump_forget_ids([id_.encode() for id_ in ids]))


def rollback(stream: Stream, name: str, seq: int) -> Draft:
    """Return a draft that rolls back to a seq."""
    return admin(stream, name, Kind.ROLLBACK, dump_seq(seq))


def correction(stream: Stream, name: str, seq: int, label: int = 0) -> Draft:
    """Return a draft that gives an event of `feedback` another label."""
    event = parse_layout(payload())
    return admin(stream, name, Kind.CORRECT, encode_correction(seq, event, Targets.INDEX, np.array([label])))


def classes(stream: Stream, name: str, *names: str) -> Draft:
    """Return a draft that adds classes."""
    return admin(stream, name, Kind.CLASSES, dump_classes(names))


def kinds(outcomes: list[Outcome]) -> list[object]:
    """Return the seq of each accepted draft, and the type of each refusal."""
    return [outcome.seq if isinstance(outcome, EventLocation) else type(outcome) for outcome in outcomes]


class FeedbackLogTests:
    """The suite. `log` is a new log; `reopen` returns another object for the same events."""

    def make_log(self, folder: Path) -> FeedbackLog:
        """Return an empty log that may store files in the folder."""
        raise NotImplementedError

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        """Return the log as a process that starts now sees it."""
        raise NotImplementedError

    @pytest.fixture
    def log(self, tmp_path: Path) -> FeedbackLog:
        return self.make_log(tmp_path)

    @pytest.fixture
    def stream(self, log: FeedbackLog) -> Stream:
        return log.open_stream("iris", 1, GENESIS, 3)

    # Streams

    def test_a_stream_is_made_once(self, log: FeedbackLog) -> None:
        """Opening a stream again returns the same stream, with the genesis that it began with."""
        first = log.open_stream("iris", 1, GENESIS, 3)
        assert first == Stream(first.number, "iris", 1, GENESIS, 3)
        assert log.open_stream("iris", 1, bytes(32), 5) == first
        second = log.open_stream("iris", 2, GENESIS, 3)
        third = log.open_stream("digits", 1, GENESIS, 10)
        assert len({first.number, second.number, third.number}) == 3
        assert sorted(log.list_streams()) == sorted([first, second, third])

    def test_a_new_stream_starts_at_its_genesis(self, log: FeedbackLog, stream: Stream) -> None:
        assert log.stream_state(stream.number) == StreamState(0, GENESIS, 0, 3, 0)
        assert log.read_events(stream.number, 0, 10) == []
        assert log.read_admin_events(stream.number) == []
        assert list(log.verify_chain(stream.number, Position(0, GENESIS), 10)) == []

    def test_an_unknown_stream_is_reported(self, log: FeedbackLog, stream: Stream) -> None:
        unknown = stream._replace(number=stream.number + 1)
        for ask in (log.stream_state, log.read_admin_events, log.purge_stream):
            with pytest.raises(StreamGoneError):
                ask(unknown.number)
        with pytest.raises(StreamGoneError):
            log.read_events(unknown.number, 0, 1)
        with pytest.raises(StreamGoneError):
            log.read_payloads(unknown.number, Position(0, GENESIS), 1)
        outcomes = log.append([feedback(unknown, "a"), feedback(stream, "a"), forget(unknown, "f", "a")])
        assert kinds(outcomes) == [StreamGoneError, 1, StreamGoneError]

    # Appending and reading

    def test_where_the_streams_of_an_append_stand_is_known(self, log: FeedbackLog, stream: Stream) -> None:
        """The position after an append is known, even for a stream that only had a duplicate."""
        other = log.open_stream("iris", 2, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(stream, "b")])
        outcomes = log.append([feedback(other, "b"), feedback(other, "c")])
        assert [type(outcome) is EventLocation and outcome.stream for outcome in outcomes] == [
            stream.number,
            other.number,
        ]
        for one in (stream, other):
            state = log.stream_state(one.number)
            assert log.position_after_append(one.number) == (one, Position(state.seq, state.hash))

    def test_events_are_numbered_in_order(self, log: FeedbackLog, stream: Stream) -> None:
        """Each stream counts its seqs over all batches, and every event is stored completely."""
        other = log.open_stream("iris", 2, GENESIS, 3)
        assert kinds(log.append([feedback(stream, "a"), feedback(other, "b"), feedback(stream, "c")])) == [1, 1, 2]
        assert log.append([feedback(stream, "d", 2.0)]) == [EventLocation(stream.number, 3)]
        events = log.read_events(stream.number, 0, 10)
        assert [(e.seq, e.kind, e.id, e.time_ms) for e in events] == [
            (1, Kind.FEEDBACK, b"a", NOW),
            (2, Kind.FEEDBACK, b"c", NOW),
            (3, Kind.FEEDBACK, b"d", NOW),
        ]
        assert events[2].payload == payload(2.0)
        assert log.stream_state(stream.number) == StreamState(3, events[2].hash, 0, 3, 0)
        assert log.append([]) == []

    def test_reading_continues_from_any_seq(self, log: FeedbackLog, stream: Stream) -> None:
        log.append([feedback(stream, str(n)) for n in range(10)])
        seqs = [
            [e.seq for e in log.read_events(stream.number, after, limit)] for after, limit in ((0, 3), (3, 4), (8, 9))
        ]
        assert seqs == [[1, 2, 3], [4, 5, 6, 7], [9, 10]]
        assert log.read_events(stream.number, 10, 5) == []
        places = [Position(0, GENESIS), *(Position(e.seq, e.hash) for e in log.read_events(stream.number, 0, 10))]
        for after, limit in ((0, 3), (3, 4), (8, 9), (10, 5)):
            events = log.read_events(stream.number, after, limit)
            expected = [event.payload for event in events], places[after + len(events)]
            assert log.read_payloads(stream.number, places[after], limit) == expected
        with pytest.raises(LogDamagedError, match="event 4 "):
            log.read_payloads(stream.number, Position(3, GENESIS), 2)

    def test_checked_reads_continue_from_any_position(self, log: FeedbackLog, stream: Stream) -> None:
        """A checked read returns what an unchecked one does, with the payloads of forgotten events missing."""
        log.append([feedback(stream, name) for name in "abcde"])
        log.append([forget(stream, "f", "b"), feedback(stream, "g")])
        events = log.read_events(stream.number, 0, 100)
        for after, limit in ((0, 3), (0, 100), (1, 1), (2, 2), (6, 100), (7, 100)):
            since = Position(after, events[after - 1].hash if after else GENESIS)
            assert log.read_checked(stream.number, since, limit) == events[after : after + limit]

    def test_a_checked_read_knows_a_fork(self, log: FeedbackLog, stream: Stream) -> None:
        """A log that has another event at the position, or another genesis, or that ends before, is not read on."""
        log.append([feedback(stream, name) for name in "abc"])
        empty = log.open_stream("iris", 2, GENESIS, 3).number
        for number, since in ((stream.number, 0), (stream.number, 1), (stream.number, 3), (empty, 0)):
            with pytest.raises(LogForkedError):
                log.read_checked(number, Position(since, bytes(32)), 10)
        for number, since in ((stream.number, 4), (stream.number, 100), (empty, 1)):
            with pytest.raises(LogEndsEarlierError):
                log.read_checked(number, Position(since, bytes(32)), 10)
        with pytest.raises(StreamGoneError):
            log.read_checked(empty + 1, Position(0, GENESIS), 10)
        with pytest.raises(StreamGoneError):
            log.read_checked(empty + 1, Position(2, GENESIS), 10)

    def test_streams_that_move_are_named(self, log: FeedbackLog, stream: Stream, tmp_path: Path) -> None:
        """Each look names the streams of all commits since the last one, those of other objects too, or none."""
        other = self.reader(log, tmp_path)
        other.moved_streams()
        for number in (stream.number, log.open_stream("iris", 2, GENESIS, 3).number):
            log.append([feedback(stream._replace(number=number), f"{number}")])
            moved = other.moved_streams()
            assert moved is None or number in moved

    def test_maintenance_changes_no_event(self, log: FeedbackLog, stream: Stream) -> None:
        log.append([feedback(stream, "a"), feedback(stream, "b"), forget(stream, "f", "a")])
        events = log.read_events(stream.number, 0, 9)
        assert not log.begin()
        log.tidy()
        log.erase_forgotten()
        assert log.read_events(stream.number, 0, 9) == events
        assert kinds(log.append([feedback(stream, "b"), feedback(stream, "c")])) == [2, 4]

    def test_streams_do_not_mix(self, log: FeedbackLog) -> None:
        """A read ends at the end of its stream, even if another stream follows."""
        first, second = (log.open_stream("m", version, GENESIS, 3) for version in (1, 2))
        log.append([feedback(first, "a"), feedback(second, "b"), classes(second, "c", "x")])
        assert [e.id for e in log.read_events(first.number, 0, 99)] == [b"a"]
        assert len(log.read_payloads(first.number, Position(0, GENESIS), 99)[0]) == 1
        assert log.read_admin_events(first.number) == []
        assert [e.id for e in log.read_admin_events(second.number)] == [b"c"]
        assert (log.last_admin_seq(first.number), log.last_admin_seq(second.number)) == (0, 2)
        log.append([classes(second, "d", "y"), feedback(second, "e")])
        assert log.last_admin_seq(second.number) == 3

    @pytest.mark.parametrize("id_", [b"\0", b"x" * ID_BYTES_MAX, bytes(range(128, 256))])
    def test_ids_are_any_bytes(self, log: FeedbackLog, stream: Stream, id_: bytes) -> None:
        draft = feedback(stream, "")._replace(id=id_)
        assert kinds(log.append([draft, draft])) == [1, 1]
        assert log.read_events(stream.number, 0, 9)[0].id == id_

    @pytest.mark.parametrize("id_", [b"", b"x" * (ID_BYTES_MAX + 1)])
    def test_ids_have_a_length(self, log: FeedbackLog, stream: Stream, id_: bytes) -> None:
        draft = feedback(stream, "")._replace(id=id_)
        assert kinds(log.append([draft, feedback(stream, "a")])) == [PayloadError, 1]

    # Previews

    def test_previews_are_the_events_without_long_payloads(
        self, log: FeedbackLog, stream: Stream, tmp_path: Path
    ) -> None:
        """They come newest first, of any part of the stream; of a long payload only the start is read."""
        long = encode_rows(np.ones((1, PREVIEW_BYTES_MAX // 4), "f4"), np.array([1]), Targets.INDEX, 3)
        other = log.open_stream("iris", 2, GENESIS, 3)
        log.append([feedback(stream, "a")._replace(actor=b"key:one"), classes(stream, "c", "x"), feedback(other, "o")])
        log.append([feedback(stream, "b")._replace(payload=long), feedback(stream, "d"), forget(stream, "f", "a")])
        for reader in (log, self.reopen(log, tmp_path)):
            events = reader.read_events(stream.number, 0, 9)[::-1]
            previews = reader.read_previews(stream.number, 99, 9)
            assert [one[:5] for one in previews] == [(*event[:4], event.actor) for event in events]
            sizes = [None if event.payload is None else len(event.payload) for event in events]
            assert [one.size for one in previews] == sizes
            payloads = [b"" if event.payload is None else event.payload for event in events]
            payloads[2] = long[:PREVIEW_START_BYTES]
            assert [one.payload for one in previews] == payloads
            for before in range(8):
                for limit in range(1, 4):
                    wanted = [one for one in previews if one.seq < before]
                    assert reader.read_previews(stream.number, before, limit) == wanted[:limit]
                    wanted = [one for one in wanted if one.kind != Kind.FEEDBACK]
                    assert reader.read_previews(stream.number, before, limit, admin_only=True) == wanted[:limit]
        with pytest.raises(StreamGoneError):
            log.read_previews(99, 9, 9)

    def test_the_current_lineage_has_every_change(self, log: FeedbackLog, stream: Stream, tmp_path: Path) -> None:
        """It is that of all admin events at each time, those of other processes included."""
        other = self.reopen(log, tmp_path)
        drafts = [
            *(feedback(stream, name) for name in "abc"), forget(stream, "f", "a"), rollback(stream, "r", 2),
            correction(stream, "t", 2), classes(stream, "k", "x"), forget(stream, "g", "b"),
        ]  # fmt: skip
        for draft in drafts:
            log.append([draft])
            expected = read_lineage(log, stream.number)
            for reader in (log, other):
                lineage = reader.current_lineage(stream.number)
                assert [(one.seq, one.kind) for one in lineage.changes] == [one[:2] for one in expected.changes]
                assert lineage.segments(9) == expected.segments(9)
                assert lineage.forgotten == expected.forgotten
                assert lineage.forgotten_corrections == expected.forgotten_corrections
        with pytest.raises(StreamGoneError):
            log.current_lineage(99)

    # Actors

    def test_events_name_their_actors(self, log: FeedbackLog, stream: Stream, tmp_path: Path) -> None:
        """Each event has the actor of its draft, whatever its kind; an event without one has an empty actor."""
        actors = [b"key:k7m2q9xd", b"", b"jwt:" + b"0" * (ACTOR_BYTES_MAX - 4), COMMAND]
        drafts = [feedback(stream, "a"), feedback(stream, "b"), classes(stream, "c", "x"), rollback(stream, "r", 1)]
        by_actor = [draft._replace(actor=actor) for draft, actor in zip(drafts, actors, strict=True)]
        assert kinds(log.append(by_actor)) == [1, 2, 3, 4]
        for reader in (log, self.reopen(log, tmp_path)):
            assert [event.actor for event in reader.read_events(stream.number, 0, 9)] == actors
            assert [event.actor for event in reader.read_admin_events(stream.number)] == actors[2:]
            assert list(reader.verify_chain(stream.number, Position(0, GENESIS), 9))[-1].seq == 4

    def test_a_retry_keeps_the_first_actor(self, log: FeedbackLog, stream: Stream) -> None:
        """The same content from another actor is a duplicate, and other content a conflict."""
        first = feedback(stream, "a")._replace(actor=b"key:one")
        assert kinds(log.append([first])) == [1]
        for actor in (b"key:two", b"", b"key:one"):
            retry = first._replace(actor=actor)
            assert log.append([retry]) == [EventLocation(stream.number, 1, duplicate=True)]
            assert kinds(log.append([retry._replace(payload=payload(1.0))])) == [IdConflictError]
        assert [event.actor for event in log.read_events(stream.number, 0, 9)] == [b"key:one"]

    def test_forgotten_events_keep_their_actors(self, log: FeedbackLog, stream: Stream) -> None:
        """Forgetting deletes rows, not the names of keys, and the chain still verifies."""
        log.append([feedback(stream, "a")._replace(actor=b"key:one"), feedback(stream, "b")])
        log.append([forget(stream, "f", "a", "b")._replace(actor=b"key:two")])
        events = log.read_events(stream.number, 0, 9)
        assert [(event.actor, event.payload is None) for event in events] == [
            (b"key:one", True),
            (b"", True),
            (b"key:two", False),
        ]
        assert list(log.verify_chain(stream.number, Position(0, GENESIS), 9))[-1].seq == 3

    def test_actors_have_a_length(self, log: FeedbackLog, stream: Stream) -> None:
        """A longer actor is refused alone."""
        draft = feedback(stream, "a")._replace(actor=b"x" * (ACTOR_BYTES_MAX + 1))
        assert kinds(log.append([draft, feedback(stream, "b")])) == [PayloadError, 1]

    # Ids

    def test_a_retry_gets_its_seq_again(self, log: FeedbackLog, stream: Stream) -> None:
        """A retry in the same or a later batch, at any time, writes nothing."""
        late = feedback(stream, "a")._replace(time_ms=NOW + 1)
        again = EventLocation(stream.number, 1, duplicate=True)
        assert log.append([feedback(stream, "a"), late]) == [EventLocation(stream.number, 1), again]
        assert log.append([feedback(stream, "b"), late]) == [EventLocation(stream.number, 2), again]
        assert len(log.read_events(stream.number, 0, 9)) == 2

    def test_an_id_means_one_payload(self, log: FeedbackLog, stream: Stream) -> None:
        """Another payload or another kind with the same id is refused, and the first event stays."""
        log.append([feedback(stream, "a", 1.0)])
        assert kinds(log.append([feedback(stream, "a", 2.0), feedback(stream, "b")])) == [IdConflictError, 2]
        assert kinds(log.append([classes(stream, "a", "x")])) == [IdConflictError]
        assert log.read_events(stream.number, 0, 1)[0].payload == payload(1.0)

    def test_an_id_is_known_across_versions(self, log: FeedbackLog, stream: Stream) -> None:
        """A retry after a deployment returns the seq in the old version; other models have separate ids."""
        newer = log.open_stream("iris", 2, GENESIS, 3)
        other = log.open_stream("digits", 1, GENESIS, 3)
        log.append([feedback(stream, "first"), feedback(stream, "a")])
        assert log.append([feedback(newer, "a")]) == [EventLocation(stream.number, 2, duplicate=True)]
        assert kinds(log.append([feedback(newer, "a", 3.0), feedback(other, "a", 3.0)])) == [IdConflictError, 1]

    def test_a_retry_after_new_classes_is_a_duplicate(self, log: FeedbackLog, stream: Stream) -> None:
        """The payload of the retry has the number of classes of now; in another stream an index has another meaning."""
        newer = log.open_stream("iris", 2, GENESIS, 4)
        log.append([feedback(stream, "a"), classes(stream, "c", "x")])
        again, other = (encode_rows(np.zeros((1, 4), "f4"), np.array([label]), Targets.INDEX, 4) for label in (1, 2))
        draft = feedback(stream, "a")._replace(payload=again)
        assert log.append([draft]) == [EventLocation(stream.number, 1, duplicate=True)]
        assert kinds(log.append([draft._replace(payload=other), draft._replace(stream=newer.number)])) == [
            IdConflictError,
            IdConflictError,
        ]

    def test_ids_are_found(self, log: FeedbackLog, stream: Stream) -> None:
        newer = log.open_stream("iris", 2, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(newer, "b"), forget(stream, "f", "a")])
        assert log.find_ids("iris", [b"a", b"b", b"c"]) == {
            b"a": EventLocation(stream.number, 1, duplicate=True, removed_by=Kind.FORGET),
            b"b": EventLocation(newer.number, 1, duplicate=True),
        }
        assert log.find_ids("digits", [b"a"]) == {}

    # What a draft may expect

    def test_the_last_seq_may_be_required(self, log: FeedbackLog, stream: Stream) -> None:
        outcomes = log.append([feedback(stream, "a", if_seq=0), feedback(stream, "b", if_seq=0)])
        assert kinds(outcomes) == [1, SeqMovedError]
        assert kinds(log.append([feedback(stream, "b", if_seq=1)])) == [2]

    def test_the_class_epoch_may_be_required(self, log: FeedbackLog, stream: Stream) -> None:
        """The class epoch changes with the class set, and a retry of an accepted event ignores it."""
        early = feedback(stream, "a", class_epoch=0)
        assert kinds(log.append([early, classes(stream, "c", "x", "y"), feedback(stream, "b", class_epoch=0)])) == [
            1,
            2,
            ClassesChangedError,
        ]
        assert log.stream_state(stream.number)[2:] == (2, 5, 0)
        assert kinds(log.append([early, feedback(stream, "b", class_epoch=2)])) == [1, 3]

    # Admin calls

    def test_forgetting_takes_the_payload_and_nothing_else(self, log: FeedbackLog, stream: Stream) -> None:
        """A forgotten event keeps its position, id, time and hash, and its id stays used."""
        log.append([feedback(stream, "a", 1.0), feedback(stream, "b", 2.0)])
        before = log.read_events(stream.number, 0, 2)
        assert kinds(log.append([forget(stream, "f", "a", "a")])) == [3]
        first, second, third = log.read_events(stream.number, 0, 9)
        assert (first, second) == (before[0]._replace(payload=None), before[1])
        assert third.payload == dump_forget([1])
        payloads, reached = log.read_payloads(stream.number, Position(0, GENESIS), 9)
        assert (payloads, reached) == ([None, before[1].payload, third.payload], Position(3, third.hash))
        assert log.stream_state(stream.number).epoch == 1
        known = EventLocation(stream.number, 1, duplicate=True, removed_by=Kind.FORGET)
        assert log.append([feedback(stream, "a", 1.0), feedback(stream, "a", 9.0)]) == [known, known]
        assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 2)] == [2, 3]

    def test_a_batch_can_forget_its_own_events(self, log: FeedbackLog, stream: Stream) -> None:
        drafts = [feedback(stream, "a"), forget(stream, "f", "a"), feedback(stream, "a", 5.0)]
        assert log.append(drafts) == [
            EventLocation(stream.number, 1),
            EventLocation(stream.number, 2),
            EventLocation(stream.number, 1, duplicate=True, removed_by=Kind.FORGET),
        ]
        assert log.read_events(stream.number, 0, 1)[0].payload is None
        assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 9)] == [2]

    def test_a_forget_can_be_retried(self, log: FeedbackLog, stream: Stream) -> None:
        """A FORGET with the same ids in any order is the same event; with other ids it is a conflict."""
        log.append([feedback(stream, "a"), feedback(stream, "b"), forget(stream, "f", "a", "b")])
        assert log.append([forget(stream, "f", "b", "a")]) == [EventLocation(stream.number, 3, duplicate=True)]
        assert kinds(log.append([forget(stream, "f", "a")])) == [IdConflictError]
        assert kinds(log.append([forget(stream, "g", "a")])) == [4]

    def test_only_known_feedback_is_forgotten(self, log: FeedbackLog, stream: Stream) -> None:
        """One unknown id refuses the whole call: of another version, of an admin call, or of no event."""
        newer = log.open_stream("iris", 2, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(newer, "b"), classes(stream, "c", "x")])
        for ids in (("a", "b"), ("a", "c"), ("a", "never")):
            assert kinds(log.append([forget(stream, "f", *ids)])) == [UnknownIdError]
        assert log.read_events(stream.number, 0, 1)[0].payload == payload()

    def test_a_rollback_stays_within_the_past(self, log: FeedbackLog, stream: Stream) -> None:
        log.append([feedback(stream, "a"), feedback(stream, "b")])
        assert kinds(log.append([rollback(stream, "r", 3), rollback(stream, "r", 1)])) == [UnknownSeqError, 3]
        assert kinds(log.append([rollback(stream, "s", 3), rollback(stream, "t", 0)])) == [4, 5]
        assert kinds(log.append([feedback(stream, "a")])) == [1]

    def test_a_retry_reports_what_removed_its_event(self, log: FeedbackLog, stream: Stream) -> None:
        """A rolled-back event is part of the state again after a rollback to its seq or a later one."""
        newer = log.open_stream("iris", 2, GENESIS, 3)
        pause = admin(stream, "p", Kind.CONFIGURE, b'{"paused":true}')
        drafts = [feedback(stream, "a"), feedback(stream, "b"), classes(stream, "c", "x"), pause]
        log.append([*drafts, admin(stream, "s", Kind.SKIP, dump_seq(1))])

        def removals() -> list[Kind | None]:
            ids = [draft.id for draft in drafts]
            found = log.find_ids("iris", ids)
            outcomes = log.append([draft._replace(stream=newer.number) for draft in drafts])
            assert outcomes == [found[id_] for id_ in ids]
            return [found[id_].removed_by for id_ in ids]

        assert removals() == [Kind.SKIP, None, None, None]
        back, forth = rollback(stream, "back", 1), rollback(stream, "forth", 3)
        log.append([back])
        assert removals() == [Kind.SKIP, Kind.ROLLBACK, Kind.ROLLBACK, Kind.ROLLBACK]
        assert log.append([back]) == [EventLocation(stream.number, 6, duplicate=True)]
        log.append([forth])
        assert removals() == [Kind.SKIP, None, None, Kind.ROLLBACK]
        assert log.append([back, forth]) == [
            EventLocation(stream.number, 6, duplicate=True, removed_by=Kind.ROLLBACK),
            EventLocation(stream.number, 7, duplicate=True),
        ]
        log.append([forget(stream, "f", "b", "a"), rollback(stream, "start", 0)])
        assert removals() == [Kind.FORGET, Kind.FORGET, Kind.ROLLBACK, Kind.ROLLBACK]
        assert log.append([forget(stream, "f", "b", "a")]) == [EventLocation(stream.number, 8, duplicate=True)]

    def test_a_rollback_takes_classes_back(self, log: FeedbackLog, stream: Stream) -> None:
        """A rollback restores the class set of its target, and changes the class epoch only with the set."""
        log.append([feedback(stream, "a"), classes(stream, "c", "x"), rollback(stream, "r", 2)])
        assert log.stream_state(stream.number)[2:4] == (2, 4)
        log.append([rollback(stream, "s", 1)])
        assert log.stream_state(stream.number)[2:4] == (4, 3)
        log.append([rollback(stream, "t", 3)])
        assert log.stream_state(stream.number)[2:4] == (5, 4)

    def test_a_stream_has_no_more_classes_than_any_may_have(self, log: FeedbackLog, stream: Stream) -> None:
        """Classes beyond the limit are refused, and a retry of accepted classes is a duplicate."""
        many = [f"x{k}" for k in range(CLASSES_MAX - 4)]
        drafts = [classes(stream, "a", *many), classes(stream, "b", "y", "z"), classes(stream, "c", "y")]
        assert kinds(log.append(drafts)) == [1, ClassesMaxError, 2]
        assert kinds(log.append([classes(stream, "d", "z"), drafts[2]])) == [ClassesMaxError, 2]
        assert log.stream_state(stream.number)[2:4] == (2, CLASSES_MAX)
        assert kinds(log.append([rollback(stream, "r", 0), classes(stream, "d", "z")])) == [3, 4]

    def test_a_base_divides_a_stream(self, log: FeedbackLog, stream: Stream) -> None:
        """A BASE changes no class; no rollback leads to a state before it, except the artifact."""
        base = Draft(stream.number, Kind.BASE, base_id(1, 2), dump({"seq": 2, "turns": 1}), 0)
        drafts = [feedback(stream, "a"), classes(stream, "c", "x"), base, classes(stream, "d", "y")]
        assert kinds(log.append(drafts)) == [1, 2, 3, 4]
        assert log.stream_state(stream.number)[2:4] == (4, 5)
        backs = [rollback(stream, f"r{seq}", seq) for seq in (1, 2, 3, 0)]
        assert kinds(log.append(backs)) == [EarlierReleaseError, EarlierReleaseError, 5, 6]
        assert log.stream_state(stream.number)[2:4] == (6, 3)
        assert kinds(log.append([base])) == [3]

    def test_forgetting_an_event_forgets_the_bases_that_include_it(self, log: FeedbackLog, stream: Stream) -> None:
        """Forgetting an event forgets the BASE that includes it; the same call again is a duplicate."""
        base = Draft(stream.number, Kind.BASE, base_id(1, 2), dump({"seq": 2, "turns": 0}), 0)
        log.append([feedback(stream, "a"), feedback(stream, "b"), feedback(stream, "c"), base, feedback(stream, "d")])
        assert kinds(log.append([forget(stream, "f", "c", "d")])) == [6]
        assert [event.seq for event in log.read_events(stream.number, 0, 9) if event.payload is None] == [3, 5]
        assert kinds(log.append([forget(stream, "g", "b")])) == [7]
        assert [event.seq for event in log.read_events(stream.number, 0, 9) if event.payload is None] == [2, 3, 4, 5]
        assert [event.payload for event in log.read_admin_events(stream.number)][2] == dump_forget([2], [4])
        assert log.append([forget(stream, "g", "b")]) == [EventLocation(stream.number, 7, duplicate=True)]
        assert list(log.verify_chain(stream.number, Position(0, GENESIS), 9))

    def test_a_base_is_neither_skipped_nor_forgotten(self, log: FeedbackLog, stream: Stream) -> None:
        """The refusal says what leads past it: a rollback to the trained model, or a FORGET of what it was made of."""
        base = Draft(stream.number, Kind.BASE, base_id(1, 2), dump({"seq": 2, "turns": 0}), 0)
        log.append([feedback(stream, "a"), feedback(stream, "b"), base, feedback(stream, "c")])
        skip = admin(stream, "s", Kind.SKIP, dump_seq(3))
        name = admin(stream, "f", Kind.FORGET, dump_forget_ids([base.id]))
        skipped, forgotten, back = log.append([skip, name, rollback(stream, "r", 0)])
        assert isinstance(skipped, UnknownSeqError)
        assert "a rollback to 0, the model as it was trained" in str(skipped)
        assert isinstance(forgotten, UnknownIdError)
        assert "name the feedback that it was made of" in str(forgotten)
        assert back == EventLocation(stream.number, 5)

    def test_feedback_can_be_skipped(self, log: FeedbackLog, stream: Stream) -> None:
        def skip(name: str, seq: int) -> Draft:
            return admin(stream, name, Kind.SKIP, dump_seq(seq))

        log.append([feedback(stream, "a"), classes(stream, "c", "x")])
        drafts = [skip("s", 1), skip("t", 2), skip("u", 4), skip("v", 0)]
        assert kinds(log.append(drafts)) == [3, UnknownSeqError, UnknownSeqError, UnknownSeqError]

    def test_feedback_can_be_corrected(self, log: FeedbackLog, stream: Stream) -> None:
        """A correction leaves the event as it was posted; admin events and seqs to come have no labels."""
        log.append([feedback(stream, "a"), classes(stream, "c", "x")])
        drafts = [correction(stream, name, seq) for name, seq in (("d", 1), ("e", 1), ("f", 2), ("g", 5), ("h", 9))]
        assert kinds(log.append(drafts)) == [3, 4, UnknownSeqError, UnknownSeqError, UnknownSeqError]
        assert log.read_events(stream.number, 0, 1)[0].payload == payload()
        assert kinds(log.append([feedback(stream, "a"), drafts[0], correction(stream, "d", 1, 2)])) == [
            1,
            3,
            IdConflictError,
        ]
        assert log.stream_state(stream.number)[2:] == (2, 4, 0)

    def test_corrections_of_a_batch_require_the_seq_before_the_first(self, log: FeedbackLog, stream: Stream) -> None:
        log.append([feedback(stream, name) for name in "abc"])
        for if_seq in (1, 2, 4):
            drafts = [correction(stream, name, 1)._replace(if_seq=if_seq) for name in "xyz"]
            assert kinds(log.append(drafts)) == [SeqMovedError] * 3
        drafts = [correction(stream, name, 1)._replace(if_seq=3) for name in "xyz"]
        assert kinds(log.append([*drafts, feedback(stream, "d", if_seq=3)])) == [4, 5, 6, SeqMovedError]
        assert kinds(log.append(drafts)) == [4, 5, 6]

    def test_only_feedback_of_the_state_is_corrected(self, log: FeedbackLog, stream: Stream) -> None:
        """An event that was forgotten, skipped or rolled back has no labels to correct, also in the same append."""
        skip = admin(stream, "s", Kind.SKIP, dump_seq(2))
        drafts = [feedback(stream, name) for name in "abcd"]
        outcomes = log.append(
            [*drafts, forget(stream, "f", "a"), skip, rollback(stream, "r", 3), feedback(stream, "e")]
        )
        assert kinds(outcomes) == list(range(1, 9))
        refusals = [EventForgottenError, EventSkippedError, 9, EventRolledBackError, 10]
        assert kinds(log.append([correction(stream, f"x{seq}", seq) for seq in (1, 2, 3, 4, 8)])) == refusals
        assert kinds(log.append([rollback(stream, "t", 4), correction(stream, "x4", 4)])) == [11, 12]
        assert kinds(log.append([rollback(stream, "u", 3), correction(stream, "x5", 4)])) == [13, EventRolledBackError]

    def test_forgetting_an_event_forgets_its_corrections(self, log: FeedbackLog, stream: Stream) -> None:
        """The labels of all its corrections go with it, also of those that were rolled back; the chain is intact."""
        log.append(
            [feedback(stream, "a"), feedback(stream, "b"), correction(stream, "x", 1), correction(stream, "y", 2)]
        )
        log.append([correction(stream, "z", 1, 2), rollback(stream, "r", 3)])
        drafts = [correction(stream, "w", 1, 1), forget(stream, "f", "a"), correction(stream, "v", 1)]
        assert kinds(log.append(drafts)) == [7, 8, EventForgottenError]
        events = log.read_events(stream.number, 0, 9)
        assert [event.seq for event in events if event.payload is None] == [1, 3, 5, 7]
        assert events[-1].payload == dump_forget([1], [], [3, 5, 7])
        assert kinds(log.append([forget(stream, "f", "a"), correction(stream, "x", 1, 2)])) == [8, 3]
        assert kinds(log.append([forget(stream, "g", "a"), forget(stream, "h", "b")])) == [9, 10]
        stored = [event.payload for event in log.read_admin_events(stream.number)]
        assert stored[-2:] == [dump_forget([1]), dump_forget([2], [], [4])]
        assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 99)] == [10]

    def test_settings_of_the_fold_are_events(self, log: FeedbackLog, stream: Stream) -> None:
        content = dump({"rule": "sgd"})
        assert kinds(log.append([admin(stream, "x", Kind.CONFIGURE, content)])) == [1]
        assert [(e.seq, e.kind, e.payload) for e in log.read_admin_events(stream.number)] == [
            (1, Kind.CONFIGURE, content)
        ]

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.FEEDBACK])
    def test_an_admin_payload_is_an_object(self, log: FeedbackLog, stream: Stream, kind: Kind) -> None:
        outcomes = log.append([admin(stream, "x", kind, content) for content in (b"", b"[]", b"{", b"\xff")])
        assert kinds(outcomes) == [PayloadError] * 4
        assert log.stream_state(stream.number).seq == 0

    @pytest.mark.parametrize("kind", [Kind.CLASSES, Kind.FORGET, Kind.ROLLBACK, Kind.SKIP, Kind.BASE, Kind.CORRECT])
    def test_an_admin_payload_must_be_valid(self, log: FeedbackLog, stream: Stream, kind: Kind) -> None:
        """A refused call leaves nothing: the next event gets the next seq."""
        assert kinds(log.append([admin(stream, "x", kind, b"{}"), feedback(stream, "x")])) == [PayloadError, 1]
        assert log.stream_state(stream.number)[2:] == (0, 3, 0)

    # The chain

    def test_the_chain_verifies_from_any_position(self, log: FeedbackLog, stream: Stream) -> None:
        log.append([feedback(stream, str(n), n) for n in range(10)])
        events = log.read_events(stream.number, 0, 10)
        for after in range(10):
            since = Position(after, events[after - 1].hash if after else GENESIS)
            positions = list(log.verify_chain(stream.number, since, 4))
            assert positions[-1] == Position(10, events[-1].hash)
            assert [p.hash for p in positions] == [events[p.seq - 1].hash for p in positions]

    def test_equal_events_have_unequal_hashes(self, log: FeedbackLog) -> None:
        """Equal payloads have different hashes, so that a forgotten row cannot be guessed."""
        streams = [log.open_stream(model, 1, GENESIS, 3) for model in ("m", "n")]
        log.append([feedback(stream, "a") for stream in streams])
        assert len({log.stream_state(stream.number).hash for stream in streams}) == 2

    # Purging and reopening

    def test_a_purged_stream_is_gone(self, log: FeedbackLog, stream: Stream) -> None:
        """A purge frees the ids of a stream but not its number, and leaves other streams unchanged."""
        other = log.open_stream("iris", 2, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(other, "b"), classes(stream, "c", "x")])
        log.purge_stream(stream.number)
        assert log.list_streams() == [other]
        assert log.find_ids("iris", [b"a", b"b"]) == {b"b": EventLocation(other.number, 1, duplicate=True)}
        assert kinds(log.append([feedback(stream, "z")])) == [StreamGoneError]
        again = log.open_stream("iris", 1, GENESIS, 3)
        assert again.number not in {stream.number, other.number}
        assert log.read_events(again.number, 0, 9) == []
        assert kinds(log.append([feedback(again, "a", 4.0), feedback(other, "b")])) == [1, 1]

    def test_everything_is_there_after_reopening(self, log: FeedbackLog, stream: Stream, tmp_path: Path) -> None:
        log.append([feedback(stream, "a"), classes(stream, "c", "x"), forget(stream, "f", "a"), feedback(stream, "b")])
        state, events = log.stream_state(stream.number), log.read_events(stream.number, 0, 9)
        again = self.reopen(log, tmp_path)
        assert again.open_stream("iris", 1, GENESIS, 3) == stream
        assert again.stream_state(stream.number) == state
        assert again.read_events(stream.number, 0, 9) == events
        assert kinds(again.append([feedback(stream, "b"), feedback(stream, "a"), feedback(stream, "d")])) == [4, 1, 5]
        assert [seq for seq, _ in again.verify_chain(stream.number, Position(0, GENESIS), 9)] == [5]

    # Races

    def test_racing_appenders_agree_on_one_order(self, log: FeedbackLog, stream: Stream, tmp_path: Path) -> None:
        """Threads append own and shared ids at once: no seq is used twice, and no id is stored twice."""
        reported: dict[str, set[int]] = {}
        lock = threading.Lock()

        def post(number: int) -> None:
            own = self.racer(log, tmp_path)
            for batch in range(20):
                names = [f"{number}-{batch}", f"shared-{batch}"]
                for name, outcome in zip(names, own.append([feedback(stream, name) for name in names]), strict=True):
                    assert isinstance(outcome, EventLocation)
                    with lock:
                        reported.setdefault(name, set()).add(outcome.seq)

        run_all([lambda number=number: post(number) for number in range(4)])
        events = log.read_events(stream.number, 0, 1000)
        assert [e.seq for e in events] == list(range(1, 101))
        assert {e.id.decode(): {e.seq} for e in events} == reported
        assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 1000)] == [100]

    def reader(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        """Return another object that reads the log while `log` is used."""
        return self.racer(log, folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # for those that make one
        """Return the log object for a racing thread: a separate one if the backend needs one per thread."""
        return log


def run_all(calls: list[Callable[[], None]]) -> None:
    """Run every call in a thread of its own, and raise the first exception."""
    failures: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as failure:  # noqa: BLE001  # raised again in the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
