"""A machine of random histories in which a log, the log in memory and a plain list agree at every step.

The tests of a backend inherit `LogMachine`, and open, break and heal their log.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.errors import LogUnavailableError, OutcomeUnknownError
from service.store.log.admin_payloads import (
    dump_classes,
    dump_forget,
    dump_forget_ids,
    dump_seq,
    parse_forget,
    parse_forgotten_corrections,
    parse_seq,
)
from service.store.log.audit import audit_log
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, EventLocation, Kind, Outcome
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import Layout, Targets, encode_rows
from tests.support.memory_log import MemoryLog

GENESIS = bytes(32)
ONE_ROW = Layout(np.dtype("f4"), Targets.INDEX, weighted=False, rows=1, n_features=2, n_classes=3)
REMOVALS = {
    Kind.FORGET: "EventForgottenError",
    Kind.SKIP: "EventSkippedError",
    Kind.ROLLBACK: "EventRolledBackError",
}
ACTORS = (b"", b"key:one", b"x" * 255)
# Few enough that retries, conflicts and unknown ids happen often.
names = st.sampled_from([f"id{number}".encode() for number in range(12)])
values = st.integers(0, 1)
places = st.integers(0, 1)
seqs = st.integers(0, 30)


class Plain:
    """A log as lists: for each stream (kind, id, payload or None, actor) in order."""

    def __init__(self) -> None:
        self.streams: list[list[list]] = [[], []]

    def append(  # noqa: PLR0917  # the parts of an event
        self, at: int, kind: Kind, id_: bytes, payload: bytes, actor: bytes, ids: list[bytes] | None
    ) -> object:
        """Return stream, seq, duplicate and removal of an accepted event, or the name of the refusal."""
        stream = self.streams[at]
        if ids is not None:
            mine = {event[1]: seq for seq, event in enumerate(stream, 1) if event[0] == Kind.FEEDBACK}
            if not set(ids) <= mine.keys():
                return "UnknownIdError"
            seqs = [mine[id_] for id_ in ids]
            payload = dump_forget(seqs, corrections=self.corrections_of(stream, seqs))
        refusal = self.known(kind, id_, payload) or self.refusal(stream, kind, payload)
        if refusal is not None:
            return refusal
        stream.append([kind, id_, payload, actor])
        if kind == Kind.FORGET:
            for seq in (*parse_forget(payload), *parse_forgotten_corrections(payload)):
                stream[seq - 1][2] = None
        return (at, len(stream), False, None)

    def corrections_of(self, stream: list[list], seqs: list[int]) -> list[int]:
        """Return the seqs of the corrections of events, without those forgotten."""
        return [
            seq
            for seq, (kind, _, payload, _) in enumerate(stream, 1)
            if kind == Kind.CORRECT and payload is not None and corrected_seq(payload) in seqs
        ]

    def known(self, kind: Kind, id_: bytes, payload: bytes) -> object:
        """Return the place of an event that is repeated, or the name of the refusal, or None for a new id."""
        for number, events in enumerate(self.streams):
            for seq, event in enumerate(events, 1):
                if event[1] == id_:
                    if event[0] == kind == Kind.FORGET and parse_forget(event[2]) == parse_forget(payload):
                        return (number, seq, True, None)
                    if event[0] != kind or event[2] not in (None, payload):
                        return "IdConflictError"
                    return (number, seq, True, removal(events, seq))
        return None

    def refusal(self, stream: list[list], kind: Kind, payload: bytes) -> str | None:
        """Return the name of the refusal of a new event, or None."""
        seq = {Kind.CORRECT: corrected_seq, Kind.ROLLBACK: parse_seq, Kind.SKIP: parse_seq}.get(kind, len)(payload)
        is_feedback = 0 < seq <= len(stream) and stream[seq - 1][0] == Kind.FEEDBACK
        if (kind == Kind.ROLLBACK and seq > len(stream)) or (kind in {Kind.SKIP, Kind.CORRECT} and not is_feedback):
            return "UnknownSeqError"
        return REMOVALS.get(removal(stream, seq)) if kind == Kind.CORRECT else None


def corrected_seq(payload: bytes) -> int:
    """Return the seq of the event that a correction names."""
    return int.from_bytes(payload[12:20], "little")


def removal(events: list[list[Any]], seq: int) -> Kind | None:
    """Return the kind of event that has removed an event, by its definition."""
    kind, _, payload, _ = events[seq - 1]
    if kind in {Kind.FORGET, Kind.SKIP}:
        return None
    if payload is None:
        return Kind.FORGET
    if any(event[0] == Kind.SKIP and parse_seq(event[2]) == seq for event in events):
        return Kind.SKIP
    past, n = set(), len(events)
    while n:
        past.add(n)
        n = parse_seq(events[n - 1][2]) if events[n - 1][0] == Kind.ROLLBACK else n - 1
    return None if seq in past else Kind.ROLLBACK


class LogMachine(RuleBasedStateMachine):
    """Every rule appends the same to all three. The machine of a backend opens its log, lets it fail and heals it."""

    log: FeedbackLog

    @initialize()
    def begin(self) -> None:
        self.asked = 0
        self.plain, self.memory = Plain(), MemoryLog()
        self.log = self.open_first()
        for log in (self.memory, self.log):
            self.numbers = [log.open_stream("m", version, GENESIS, 3).number for version in (1, 2)]
            assert self.numbers == [1, 2]

    def open_first(self) -> FeedbackLog:
        """Return an empty log, which has never had a stream."""
        raise NotImplementedError

    def heal(self) -> None:
        """Let a log that has failed work again."""

    def end(self) -> None:
        """Remove the log."""

    def ask(self, at: int, kind: Kind, id_: bytes, payload: bytes, ids: list[bytes] | None = None) -> None:
        self.asked += 1
        actor = ACTORS[self.asked % len(ACTORS)]  # a retry often has another one
        expected = self.plain.append(at, kind, id_, payload, actor, ids)
        draft = Draft(self.numbers[at], kind, id_, payload, 0, actor=actor)
        for append in (self.memory.append, self.append):
            (outcome,) = append([draft])
            assert self.comparable_outcome(outcome) == expected

    def append(self, drafts: list[Draft]) -> list[Outcome]:
        return self.log.append(drafts)

    def comparable_outcome(self, outcome: Outcome) -> object:
        if isinstance(outcome, EventLocation):
            return (self.numbers.index(outcome.stream), *outcome[1:])
        return type(outcome).__name__

    @rule(at=places, id_=names, value=values)
    def feedback(self, at: int, id_: bytes, value: int) -> None:
        payload = encode_rows(np.full((1, 2), value, "f4"), np.array([value]), Targets.INDEX, 3)
        self.ask(at, Kind.FEEDBACK, id_, payload)

    @rule(at=places, id_=names, ids=st.lists(names, min_size=1, max_size=3))
    def forget(self, at: int, id_: bytes, ids: list[bytes]) -> None:
        self.ask(at, Kind.FORGET, b"f" + id_, dump_forget_ids(ids), ids)

    @rule(at=places, id_=names, seq=seqs, kind=st.sampled_from([Kind.ROLLBACK, Kind.SKIP]))
    def rollback_or_skip(self, at: int, id_: bytes, seq: int, kind: Kind) -> None:
        self.ask(at, kind, b"t" + id_, dump_seq(seq))

    @rule(at=places, id_=names, seq=seqs.filter(bool), value=values)
    def correct(self, at: int, id_: bytes, seq: int, value: int) -> None:
        self.ask(at, Kind.CORRECT, b"d" + id_, encode_correction(seq, ONE_ROW, Targets.INDEX, np.array([value])))

    @rule(at=places, id_=names)
    def classes(self, at: int, id_: bytes) -> None:
        self.ask(at, Kind.CLASSES, b"c" + id_, dump_classes(["x"]))

    def append_with_fault(self, at: int, id_: bytes, fail: Callable[[], object]) -> None:
        """Append feedback while the log fails, or not; a retry gets one seq in either case."""
        healthy = self.append

        def retried(drafts: list[Draft]) -> list[Outcome]:
            fail()
            try:
                return self.log.append(drafts)
            except (OutcomeUnknownError, LogUnavailableError):
                self.heal()
                # Written or not before, it is there once now; which of the two is not for the caller to know.
                return [
                    outcome._replace(duplicate=self.plain_says_duplicate)
                    if isinstance(outcome, EventLocation)
                    else outcome
                    for outcome in self.log.append(drafts)
                ]
            finally:
                self.heal()

        self.plain_says_duplicate = any(event[1] == id_ for events in self.plain.streams for event in events)
        self.append = retried  # type: ignore[method-assign]
        try:
            self.feedback(at=at, id_=id_, value=0)
        finally:
            self.append = healthy  # type: ignore[method-assign]

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "plain"):
            return
        for at, events in enumerate(self.plain.streams):
            number = self.numbers[at]
            assert self.memory.stream_state(number)[2:] == self.log.stream_state(number)[2:]
            for log in (self.memory, self.log):
                stored = log.read_events(number, 0, 999)
                assert [[event.kind, event.id, event.payload, event.actor] for event in stored] == events
                assert [event.seq for event in stored] == list(range(1, len(events) + 1))

    def teardown(self) -> None:
        if hasattr(self, "plain"):
            for log in (self.memory, self.log):
                last_seqs = {stream.number: seq for stream, (seq, _) in audit_log(log, 7)}
                assert list(last_seqs.values()) == [len(events) for events in self.plain.streams if events]
            self.end()
