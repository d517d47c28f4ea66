"""Random batches of all kinds have the same outcomes and events in memory and in PostgreSQL, in each way to append."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.store.log import postgres_append
from service.store.log.admin_payloads import base_id, dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, EventLocation, Kind, Outcome, Position
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.budgets import examples
from tests.support.feedback_log_contract import GENESIS
from tests.support.memory_log import MemoryLog
from tests.support.postgres_servers import PostgresCluster

MODELS = (("m", 1), ("m", 2), ("n", 1))
PAYLOADS = (
    b"",
    *(encode_rows(np.full((1, 2), value, "f4"), np.array([1]), Targets.INDEX, 3) for value in (0, 1)),
    encode_rows(np.ones((700, 2), "f4"), np.ones(700, int), Targets.INDEX, 3),
)
ROW = parse_layout(PAYLOADS[1])
# Few enough that retries, conflicts and unknown ids happen often.
ids = st.sampled_from([*[b"a", b"b", b"a\0", b"\0", bytes(range(128, 256)), b"x" * 128] * 3, b"x" * 129, b""])
seqs = st.integers(0, 12)
contents = st.one_of(
    *[st.tuples(st.just(Kind.FEEDBACK), st.sampled_from(PAYLOADS))] * 5,
    st.tuples(st.just(Kind.FORGET), st.lists(ids, min_size=1, max_size=3).map(dump_forget_ids)),
    st.tuples(st.sampled_from([Kind.ROLLBACK, Kind.SKIP]), seqs.map(dump_seq)),
    st.tuples(st.just(Kind.CLASSES), st.sampled_from(["x", "y"]).map(lambda name: dump_classes([name]))),
    st.tuples(st.just(Kind.CONFIGURE), st.just(b'{"paused":true}')),
    st.tuples(st.just(Kind.BASE), seqs.map(lambda seq: dump({"seq": seq, "turns": 0}))),
    st.tuples(
        st.just(Kind.CORRECT),
        seqs.filter(bool).map(lambda seq: encode_correction(seq, ROW, Targets.INDEX, np.array([2]))),
    ),
)


class Planned(NamedTuple):
    """A draft, with the index of its stream instead of the number."""

    at: int
    id: bytes
    content: tuple[Kind, bytes]
    class_epoch: int | None
    if_seq: int | None
    actor: bytes

    def draft(self, numbers: Sequence[int]) -> Draft:
        """Return the draft for streams with these numbers, of which the last is unknown."""
        kind, payload = self.content
        id_ = base_id(1, len(self.id)) if kind == Kind.BASE else self.id
        return Draft(numbers[self.at], kind, id_, payload, 7, self.class_epoch, self.if_seq, self.actor)


plans = st.builds(
    Planned,
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    ids,
    contents,
    st.sampled_from([None, None, None, 0, 3]),
    st.sampled_from([None, None, None, 0, 2]),
    st.sampled_from([b"", b"key:one", b"x" * 256]),
)
feedback_plans = plans.map(lambda plan: plan._replace(at=0, content=(Kind.FEEDBACK, PAYLOADS[1])))
batches = st.one_of(st.lists(plans, max_size=4), st.lists(feedback_plans, max_size=4))
# A number purges that stream.
histories = st.lists(st.one_of(*[batches] * 9, st.integers(0, 2)), min_size=1, max_size=20)


def comparable(outcomes: Sequence[Outcome], numbers: Sequence[int]) -> list[object]:
    """Return outcomes with the indexes of streams, and errors by their types."""
    return [
        (numbers.index(outcome.stream), *outcome[1:]) if isinstance(outcome, EventLocation) else type(outcome)
        for outcome in outcomes
    ]


def run(log: FeedbackLog, history: Sequence[Any]) -> list[object]:
    """Run a history, and return all that a reader sees."""
    seen: list[object] = []

    def open_streams() -> list[int]:
        numbers = [log.open_stream(*model, GENESIS, 3).number for model in MODELS]
        return [*numbers, max(numbers) + 100]

    numbers = open_streams()
    for step in history:
        if isinstance(step, int):
            log.purge_stream(numbers[step])
            numbers = open_streams()
        else:
            outcomes = log.append([plan.draft(numbers) for plan in step])
            seen.append(comparable(outcomes, numbers))
            for outcome in outcomes:
                if isinstance(outcome, EventLocation):
                    stream, end = log.position_after_append(outcome.stream)
                    assert stream.number == outcome.stream
                    assert end.seq == log.stream_state(stream.number).seq
    for number in numbers[:-1]:
        events = log.read_events(number, 0, 999)
        seen.append([event._replace(hash=b"") for event in events])
        seen.append(log.stream_state(number)._replace(hash=b""))
        seen.append(log.current_lineage(number).segments(999))
        previews = log.read_previews(number, 999, 999)
        assert [preview.seq for preview in previews] == [event.seq for event in events][::-1]
        reached = list(log.verify_chain(number, Position(0, GENESIS), 5))
        assert not events or reached[-1] == Position(events[-1].seq, events[-1].hash)
    for model in ("m", "n"):
        found = log.find_ids(model, [b"a", b"b", b"a\0", b"\0", b"never"])
        seen.append({id_: comparable([place], numbers) for id_, place in found.items()})
    return seen


@pytest.fixture
def databases(postgres_server: PostgresCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses of two databases; an optimistic append that fails is tried again the next time."""
    monkeypatch.setattr(postgres_append, "LOCKED_SECONDS", 0.0)
    addresses = [postgres_server.make_database(create_schema) for _ in range(2)]
    yield addresses
    for address in addresses:
        postgres_server.drop_database(address)


def test_each_way_decides_the_same(postgres_server: PostgresCluster, databases: list[str]) -> None:
    logs = [
        PostgresLog(address, copies=1, optimistic=ahead)
        for address, ahead in zip(databases, (True, False), strict=True)
    ]

    @given(histories)
    @settings(max_examples=examples(160), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def decides_the_same(history: list[Any]) -> None:
        expected = run(MemoryLog(), history)
        for log, address in zip(logs, databases, strict=True):
            postgres_server.execute("TRUNCATE streams, events", database=address.rpartition("/")[2])
            assert run(log, history) == expected

    decides_the_same()
    for log in logs:
        log.close()
