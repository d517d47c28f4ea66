"""The lineage of a stream equals its literal definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PayloadError, UnknownSeqError
from service.store.log.admin_payloads import base_id, dump, dump_classes, dump_forget, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Event, Kind
from service.store.log.feedback_payload import Layout, Targets
from service.store.log.lineage import Lineage, LineageChange, lineage_change

ONE_ROW = Layout(np.dtype("f4"), Targets.INDEX, weighted=False, rows=1, n_features=2, n_classes=3)
CORRECTION = encode_correction(3, ONE_ROW, Targets.INDEX, np.array([1]))


@st.composite
def histories(draw: st.DrawFn) -> list[LineageChange | None]:
    """Return the effect of each event, in order of seq; None for feedback."""
    history: list[LineageChange | None] = []
    for seq in range(1, draw(st.integers(0, 25)) + 1):
        kind = draw(st.sampled_from([*Kind, Kind.FEEDBACK, Kind.FEEDBACK, Kind.FEEDBACK]))
        past = st.integers(0, seq - 1)
        out = tuple(sorted(draw(st.sets(past.filter(bool), min_size=1)))) if seq > 1 else ()
        corrections = tuple(
            one.seq
            for one in history
            if one is not None and one.kind == Kind.CORRECT and one.target in out and not is_forgotten(history, one.seq)
        )
        history.append(
            {
                Kind.FEEDBACK: None,
                Kind.ROLLBACK: LineageChange(seq, kind, target=draw(past)),
                Kind.FORGET: LineageChange(seq, kind, excluded=out, corrections=corrections),
                Kind.SKIP: LineageChange(seq, kind, excluded=out[:1]),
                Kind.CLASSES: LineageChange(seq, kind, classes=draw(st.integers(1, 3))),
                Kind.BASE: LineageChange(
                    seq,
                    kind,
                    target=draw(past),
                    fold=seq,
                    known_changes=draw(st.integers(0, sum(change is not None for change in history))),
                ),
                Kind.CONFIGURE: LineageChange(seq, kind),
                Kind.CORRECT: LineageChange(seq, kind, target=draw(past)),
            }[kind]
        )
    return history


def is_forgotten(history: list[LineageChange | None], correction: int) -> bool:
    """Return whether a FORGET of a history forgets a CORRECT event."""
    return any(change is not None and correction in change.corrections for change in history)


def is_member(change: LineageChange | None) -> bool:
    """Whether an event is a member of the lineage at its own seq."""
    return change is None or change.kind in {Kind.CLASSES, Kind.CONFIGURE, Kind.CORRECT}


def plain(history: list[LineageChange | None]) -> list[list[int]]:
    """Return E(n) for every n according to the definition."""
    E: list[list[int]] = [[]]
    for seq, change in enumerate(history, 1):
        if is_member(change):
            E.append([*E[-1], seq])
        elif change.kind == Kind.ROLLBACK:
            E.append(E[change.target])
        else:
            E.append(E[-1])
    return E


@given(histories())
def test_segments_are_the_definition(history: list[LineageChange | None]) -> None:
    """The segments equal the definition at every seq, and are ascending and as few as possible."""
    changes = [change for change in history if change is not None]
    lineage = Lineage(changes)
    out = {seq for change in changes for seq in change.excluded}
    for n, members in enumerate(plain(history)):
        segments = lineage.segments(n)
        assert [seq for lo, hi in segments for seq in range(lo + 1, hi + 1)] == members
        assert all(first[1] < second[0] for first, second in pairwise(segments))
        assert lineage.seqs(n) == [seq for seq in members if seq not in out]
        assert [seq for seq in range(len(history) + 2) if lineage.contains(n, seq)] == members


@given(histories())
def test_events_are_undone_by_rollbacks(history: list[LineageChange | None]) -> None:
    """An event is undone at n if the events that led to state(n) do not include it; of members of E(n) that is all."""
    lineage = Lineage(change for change in history if change is not None)
    for n in range(len(history) + 1):
        led, at = set(), n
        while at:
            led.add(at)
            change = history[at - 1]
            at = change.target if change is not None and change.kind == Kind.ROLLBACK else at - 1
        assert {seq for seq in range(1, n + 1) if not lineage.is_undone(n, seq)} == led
        assert [seq for seq in sorted(led) if is_member(history[seq - 1])] == plain(history)[n]


@given(histories())
def test_classes_are_those_of_the_lineage(history: list[LineageChange | None]) -> None:
    lineage = Lineage(change for change in history if change is not None)
    for n, members in enumerate(plain(history)):
        count, names = 3, []
        for seq in members:
            change = history[seq - 1]
            if change is not None and change.kind == Kind.CLASSES:
                count += change.classes
                names.append(seq)
        assert (lineage.n_classes(n, 3), lineage.class_set(n)) == (count, tuple(names))


@given(histories())
def test_the_last_correction_of_the_lineage_counts(history: list[LineageChange | None]) -> None:
    """A rollback to before a CORRECT undoes it, and an earlier one counts again."""
    changes = [change for change in history if change is not None]
    lineage, corrections = Lineage(changes), [one for one in changes if one.kind == Kind.CORRECT and one.target]
    for n, members in enumerate(plain(history)):
        assert lineage.corrections(n) == {one.target: one.seq for one in corrections if one.seq in members}
        assert lineage.epoch(n) == sum(one.kind == Kind.FORGET and one.seq <= n for one in changes)
        assert lineage.is_admin_event(n) == (n in {one.seq for one in changes})
        of_event = [one.seq for one in corrections if one.target == n + 1 and not is_forgotten(history, one.seq)]
        assert lineage.corrections_of([n + 1]) == tuple(of_event)


@given(histories())
def test_a_fold_continues_if_nothing_later_changes_what_is_folded(history: list[LineageChange | None]) -> None:
    """State(n) continues state(c) if E(n) begins with E(c), whose events have the same labels in both."""
    lineage, E = Lineage(change for change in history if change is not None), plain(history)
    for n, members in enumerate(E):
        base = lineage.base_of_state(n)
        start = 0 if base is None else base.target
        for c in range(n + 1):
            labels = [{seq: by for seq, by in lineage.corrections(m).items() if start < seq <= c} for m in (n, c)]
            expected = E[c] == [seq for seq in members if seq <= c] and labels[0] == labels[1]
            assert lineage.continues(n, c) == expected


@given(histories())
def test_a_state_begins_with_its_newest_valid_base(history: list[LineageChange | None]) -> None:
    """A state uses the newest base whose events begin its lineage, and of which none was excluded since."""
    changes = [change for change in history if change is not None]
    lineage, E = Lineage(changes), plain(history)
    bases = [change for change in changes if change.kind == Kind.BASE]
    for n, members in enumerate(E):
        whole = [
            base
            for base in bases
            if E[base.target] == [seq for seq in members if seq <= base.target]
            and not {seq for change in changes[base.known_changes :] for seq in change.excluded} & set(E[base.target])
        ]
        assert lineage.base_of_state(n) == (whole[-1] if whole else None)
    for seq in range(1, len(history) + 1):
        made_of = [base.seq for base in bases if seq in E[base.target]]
        out = {base.seq for base in bases if any(seq in change.excluded for change in changes[: base.known_changes])}
        assert list(lineage.bases_containing([seq])) == [base for base in made_of if base not in out]
    assert lineage.newest_base_seq == max((base.seq for base in bases), default=0)


def test_a_forgotten_base_is_not_used() -> None:
    """An older base is used again after the newer one is forgotten."""
    bases = [
        LineageChange(4, Kind.BASE, target=2, fold=2),
        LineageChange(8, Kind.BASE, target=6, fold=3, known_changes=1),
    ]
    lineage = Lineage(bases)
    assert [lineage.base_of_state(n) for n in (1, 2, 5, 6, 9)] == [None, bases[0], bases[0], bases[1], bases[1]]
    lineage.add(LineageChange(10, Kind.FORGET, excluded=(5,), bases=(8,)))
    assert [lineage.base_of_state(n) for n in (5, 6, 11)] == [bases[0]] * 3
    assert lineage.bases_containing([5]) == ()
    assert lineage.bases_containing([1]) == (4,)


def test_the_example_of_the_design() -> None:
    """After a rollback from 100 to 40, the state at 101 is that at 40, and later events continue it."""
    lineage = Lineage([LineageChange(101, Kind.ROLLBACK, target=40)])
    assert lineage.segments(100) == ((0, 100),)
    assert lineage.segments(101) == lineage.segments(40) == ((0, 40),)
    assert lineage.segments(103) == ((0, 40), (101, 103))
    with pytest.raises(UnknownSeqError):
        lineage.segments(-1)


@pytest.mark.parametrize(
    ("kind", "payload", "change"),
    [
        (Kind.ROLLBACK, dump_seq(3), LineageChange(9, Kind.ROLLBACK, target=3)),
        (Kind.SKIP, dump_seq(3), LineageChange(9, Kind.SKIP, excluded=(3,))),
        (Kind.FORGET, dump_forget([5, 3, 5]), LineageChange(9, Kind.FORGET, excluded=(3, 5))),
        (Kind.FORGET, dump_forget([5], [8]), LineageChange(9, Kind.FORGET, excluded=(5,), bases=(8,))),
        (Kind.FORGET, dump_forget([5], [], [7]), LineageChange(9, Kind.FORGET, excluded=(5,), corrections=(7,))),
        (Kind.CORRECT, CORRECTION, LineageChange(9, Kind.CORRECT, target=3)),
        (Kind.CLASSES, dump_classes(["a", "b"]), LineageChange(9, Kind.CLASSES, classes=2)),
        (Kind.CONFIGURE, dump({}), LineageChange(9, Kind.CONFIGURE)),
    ],
)
def test_events_become_lineage_changes(kind: Kind, payload: bytes, change: LineageChange) -> None:
    assert lineage_change(Event(9, kind, b"x", 0, payload, b"")) == change


def test_a_base_becomes_a_lineage_change() -> None:
    """The fold version of a forgotten base stays known."""
    payload = dump({"seq": 5, "turns": 2, "x": None})
    assert lineage_change(Event(9, Kind.BASE, base_id(7, 3), 0, payload, b"")) == LineageChange(
        9, Kind.BASE, target=5, fold=3, known_changes=2
    )
    assert lineage_change(Event(9, Kind.BASE, base_id(7, 3), 0, None, b"")) == LineageChange(9, Kind.BASE, fold=3)
    with pytest.raises(PayloadError):
        lineage_change(Event(9, Kind.BASE, b"base 7 3", 0, payload, b""))
