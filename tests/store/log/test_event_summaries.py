"""Summaries of events: rows, labels, contents and removals, without features."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.log.admin_payloads import base_id, dump
from service.store.log.correction_payload import encode_correction
from service.store.log.event_summaries import EventSummary, forgotten_stretches, summarize_before, summarize_seqs
from service.store.log.events import PREVIEW_BYTES_MAX, Draft, Kind, Stream
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.lineage import Lineage, LineageChange
from tests.support.feedback_log_contract import classes, correction, feedback, forget, rollback
from tests.support.memory_log import MemoryLog


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def stream(log: MemoryLog) -> Stream:
    return log.open_stream("iris", 1, bytes(32), 3)


def add(log: MemoryLog, *drafts: Draft) -> None:
    for draft in drafts:
        (outcome,) = log.append([draft])
        assert not isinstance(outcome, Exception), outcome


def by_seq(log: MemoryLog, stream: Stream) -> dict[int, EventSummary]:
    return {one.seq: one for one in summarize_before(log, stream.number, 99, 99)}


def of_targets(stream: Stream, name: str, targets: object, kind: Targets, features: int = 4) -> Draft:
    """Return a draft of feedback with these targets."""
    array = np.asarray(targets)
    return feedback(stream, name)._replace(payload=encode_rows(np.ones((len(array), features), "f4"), array, kind, 3))


def test_the_label_is_that_of_the_only_row(log: MemoryLog, stream: Stream) -> None:
    """A distribution has its likeliest class, the first of equals; several rows, a set and a long event have none."""
    add(
        log,
        of_targets(stream, "index", [2], Targets.INDEX),
        of_targets(stream, "two rows", [1, 1], Targets.INDEX),
        of_targets(stream, "distribution", np.array([[0.2, 0.4, 0.4]], "f4"), Targets.DISTRIBUTION),
        of_targets(stream, "set", np.array([[0, 1, 0]], "u1"), Targets.SET),
        of_targets(stream, "long", [2], Targets.INDEX, PREVIEW_BYTES_MAX // 4),
    )
    found = by_seq(log, stream)
    assert {found[seq].id: (found[seq].rows, found[seq].label) for seq in sorted(found)} == {
        "index": (1, 2), "two rows": (2, None), "distribution": (1, 1), "set": (1, None), "long": (1, None),
    }  # fmt: skip
    assert {(one.kind, one.detail, one.removed, one.actor) for one in found.values()} == {
        (Kind.FEEDBACK, None, None, None)
    }


def test_a_correction_counts_as_long_as_it_is_part_of_the_state(log: MemoryLog, stream: Stream) -> None:
    """Of several the last one counts; a rollback undoes it, and one that does not fit the event changes nothing."""
    add(log, feedback(stream, "a"), correction(stream, "to 2", 1, 2), correction(stream, "to 0", 1, 0))
    found = by_seq(log, stream)
    assert [found[seq].label for seq in (1, 2, 3)] == [0, 2, 0]
    assert (found[3].rows, found[3].detail) == (1, {"seq": 1})
    add(log, rollback(stream, "r", 2))
    assert by_seq(log, stream)[1].label == 2
    assert by_seq(log, stream)[3].removed == "rolled_back"
    add(log, rollback(stream, "s", 1))
    assert by_seq(log, stream)[1].label == 1
    unfit = parse_layout(encode_rows(np.ones((1, 4), "f8"), np.array([0]), Targets.INDEX, 3))
    payload = encode_correction(1, unfit, Targets.INDEX, np.array([0]))
    add(log, Draft(stream.number, Kind.CORRECT, b"unfit", payload, 1))
    assert by_seq(log, stream)[1].label == 1


def test_a_correction_of_several_rows_has_no_label(log: MemoryLog, stream: Stream) -> None:
    """It has as many rows as its event."""
    two = of_targets(stream, "two rows", [1, 1], Targets.INDEX)
    new = encode_correction(1, parse_layout(two.payload), Targets.INDEX, np.array([2, 2]))
    add(log, two, Draft(stream.number, Kind.CORRECT, b"fix", new, 1))
    assert [(one.rows, one.label) for one in by_seq(log, stream).values()] == [(2, None), (2, None)]


def test_admin_events_have_their_contents(log: MemoryLog, stream: Stream) -> None:
    """Each kind has what it changes; a list of forgotten events is only counted."""
    number = stream.number
    add(
        log,
        *(feedback(stream, name) for name in "abc"),
        forget(stream, "forget", "a", "b"),
        rollback(stream, "rollback", 3),
        classes(stream, "classes", "x", "ü"),
        Draft(number, Kind.CONFIGURE, b"configure", dump({"paused": True}), 7, actor=b"key:one"),
        Draft(number, Kind.SKIP, b"skip", dump({"seq": 3}), 8),
        Draft(number, Kind.BASE, base_id(1, 99), dump({"seq": 0, "turns": 5, "state": "x" * PREVIEW_BYTES_MAX}), 9),
        classes(stream, "long", *(f"{n:>4}" * 63 for n in range(300))),
    )
    found = by_seq(log, stream)
    assert [found[seq].detail for seq in range(1, 11)] == [
        None, None, None, {"count": 2}, {"seq": 3}, {"add": ["x", "ü"]}, {"paused": True}, {"seq": 3},
        {"seq": 0, "fold": 99}, None,
    ]  # fmt: skip
    assert [found[seq].removed for seq in range(1, 6)] == ["forgotten", "forgotten", "skipped", None, None]
    assert (found[7].actor, found[7].time_ms, found[9].id) == ("key:one", 7, "\\xffbase 1 99")


def test_of_a_forgotten_event_nothing_is_left_but_its_name(log: MemoryLog, stream: Stream) -> None:
    """Neither the event nor its correction has a label, rows or a content."""
    add(log, feedback(stream, "a"), correction(stream, "c", 1, 2), forget(stream, "f", "a"))
    found = by_seq(log, stream)
    for seq in (1, 2):
        assert found[seq][5:] == ("forgotten", None, None, None)


def test_summaries_of_single_events_are_those_of_the_list(log: MemoryLog, stream: Stream) -> None:
    """A seq that does not exist is left out, and the events of another stream do not count."""
    other = log.open_stream("iris", 2, bytes(32), 3)
    add(log, feedback(other, "o"), feedback(stream, "a"), classes(stream, "c", "x"), correction(stream, "t", 1, 0))
    assert summarize_seqs(log, stream.number, [0, 1, 3, 3, 4, 99]) == {
        seq: one for seq, one in by_seq(log, stream).items() if seq != 2
    }
    assert summarize_seqs(log, other.number, [2]) == {}
    only_admin = summarize_before(log, stream.number, 3, 9, admin_only=True)
    assert [one.kind for one in only_admin] == [Kind.CLASSES]


@given(st.sets(st.integers(1, 40)), st.integers(1, 20))
def test_stretches_hold_the_forgotten_events(forgotten: set[int], limit: int) -> None:
    """Each stretch is as long as possible; of too many the last ones are left."""
    lineage = Lineage([LineageChange(50, Kind.FORGET, excluded=tuple(forgotten))] if forgotten else [])
    stretches = forgotten_stretches(lineage, 40)
    assert [seq for first, last in stretches for seq in range(first, last + 1)] == sorted(forgotten)
    assert all(after > last + 1 for (_, last), (after, _) in pairwise(stretches))
    assert forgotten_stretches(lineage, limit) == stretches[-limit:]
