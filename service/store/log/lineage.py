"""Which events a state is made of: the lineage E(n) of a stream, as its admin events decide it.

    E(0) = ()
    FEEDBACK, CLASSES, CONFIGURE n    E(n) = E(n-1) + (n)
    ROLLBACK n to s                   E(n) = E(s)
    FORGET n, SKIP n, BASE n          E(n) = E(n-1)

    state(n) = the fold of E(n) in order, without the events that were forgotten or skipped, whenever that was

E(n) is kept as ascending half-open segments (lo, hi], so that it stays short whatever the number of events.

**Bases.** A BASE n with seq s holds the state that E(s) had made by the fold of an earlier release. Where E(m) begins
with E(s), state(m) is that state and the fold of what comes behind s; so what is served does not jump when the fold
changes. Where an event of E(s) is forgotten or skipped later, the base holds what must not be: it counts for nothing
any more, and the state is that of an older base, or of the artifact, and of all events since. The newest BASE divides
the stream: states of the seqs before it were made by an earlier release, and this one cannot make them again.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from service.errors import UnknownSeqError
from service.store.log.admin_payloads import (
    fold_of_base,
    parse_base,
    parse_classes,
    parse_forget,
    parse_forgotten_bases,
    parse_seq,
)
from service.store.log.events import Event, Kind

Segments = tuple[tuple[int, int], ...]


class LineageChange(NamedTuple):
    """What one admin event does to the lineage and to the class set.

    Attributes:
        seq: Its seq.
        kind: Its kind.
        target: ROLLBACK: the seq to go back to; BASE: the seq up to which it stands for the events, 0 where it was
            forgotten.
        excluded: FORGET and SKIP: the seqs that are left out from then on.
        classes: CLASSES: the number of classes that are added.
        bases: FORGET: the seqs of the BASE events that are forgotten with the others.
        fold: BASE: the version of the fold that goes on from it.
        known_changes: BASE: how many of the stream's admin events its state knew of.
    """

    seq: int
    kind: int
    target: int = 0
    excluded: tuple[int, ...] = ()
    classes: int = 0
    bases: tuple[int, ...] = ()
    fold: int = 0
    known_changes: int = 0


def lineage_change(event: Event) -> LineageChange:
    """What an admin event does; raises PayloadError where its payload is none of its kind."""
    payload = event.payload or b""
    match event.kind:
        case Kind.ROLLBACK:
            return LineageChange(event.seq, event.kind, target=parse_seq(payload))
        case Kind.FORGET:
            return LineageChange(
                event.seq, event.kind, excluded=parse_forget(payload), bases=parse_forgotten_bases(payload)
            )
        case Kind.SKIP:
            return LineageChange(event.seq, event.kind, excluded=(parse_seq(payload),))
        case Kind.CLASSES:
            return LineageChange(event.seq, event.kind, classes=len(parse_classes(payload)))
        case Kind.BASE:
            target, known = (0, 0) if event.payload is None else parse_base(payload)
            return LineageChange(event.seq, event.kind, target=target, fold=fold_of_base(event.id), known_changes=known)
    return LineageChange(event.seq, event.kind)


class Lineage:
    """The lineage of one stream at every seq, from the admin events that are known so far.

    Args:
        changes: What its admin events do, by ascending seq; `add` takes further ones.
    """

    def __init__(self, turns: Iterable[LineageChange] = ()) -> None:
        self.changes: list[LineageChange] = []
        self.forgotten: set[int] = set()
        self.skipped: set[int] = set()
        self.bases: list[LineageChange] = []
        self.forgotten_bases: set[int] = set()  # the bases that were forgotten
        # For each turn the closed segments at its seq; the open one behind it runs on to any n.
        self._starts: list[int] = [0]
        self._closed: list[Segments] = [()]
        for turn in turns:
            self.add(turn)

    def add(self, turn: LineageChange) -> None:
        """Takes one more turn, of a greater seq than those before."""
        closed = self._after(turn)
        self.changes.append(turn)
        self._starts.append(turn.seq)
        self._closed.append(closed)
        if turn.kind == Kind.FORGET:
            self.forgotten.update(turn.excluded)
            self.forgotten_bases.update(turn.bases)
        elif turn.kind == Kind.BASE:
            self.bases.append(turn)
        elif turn.kind == Kind.SKIP:
            self.skipped.update(turn.excluded)

    def segments(self, n: int) -> Segments:
        """E(n) as ascending segments (lo, hi], forgotten and skipped events included.

        Raises:
            UnknownSeqError: n is negative.
        """
        if n < 0:
            raise UnknownSeqError("a seq is not negative")
        at = bisect_right(self._starts, n) - 1
        return _joined(self._closed[at], self._starts[at], n)

    def seqs(self, n: int) -> list[int]:
        """The seqs whose events are folded for state(n), in order."""
        out = self.forgotten | self.skipped
        return [seq for lo, hi in self.segments(n) for seq in range(lo + 1, hi + 1) if seq not in out]

    def contains(self, n: int, seq: int) -> bool:
        """Whether an event is in E(n), forgotten or not."""
        return segments_contain(self.segments(n), seq)

    def base_of_state(self, n: int) -> LineageChange | None:
        """The BASE event that state(n) is folded from, the newest that it can be; None where that is the artifact."""
        wanted = self.segments(n)
        for base in reversed(self.bases):
            held = self.segments(base.target)
            if segments_begin_with(wanted, held, base.target) and base.seq not in self.forgotten_bases:
                late = (one for turn in self.changes[base.known_changes :] for one in turn.excluded)
                if not any(segments_contain(held, one) for one in late):
                    return base
        return None

    def bases_containing(self, seqs: Iterable[int]) -> tuple[int, ...]:
        """The seqs of the BASE events whose states were made of any of these events."""
        wanted, found = set(seqs), []
        for base in self.bases:
            held = self.segments(base.target)
            out = {one for turn in self.changes[: base.known_changes] for one in turn.excluded}
            if base.seq not in self.forgotten_bases and any(segments_contain(held, seq) for seq in wanted - out):
                found.append(base.seq)
        return tuple(found)

    @property
    def newest_base_seq(self) -> int:
        """The seq of the newest BASE event: between 0 and it states were made by an earlier release; 0 without any."""
        return self.bases[-1].seq if self.bases else 0

    def class_set(self, n: int) -> tuple[int, ...]:
        """The seqs of the CLASSES events that the class set at n is made of; equal sets, equal answers."""
        return tuple(t.seq for t in self.changes if t.kind == Kind.CLASSES and t.seq <= n and self.contains(n, t.seq))

    def n_classes(self, n: int, at_start: int) -> int:
        """The number of classes at n, where the stream began with `at_start`."""
        members = set(self.class_set(n))
        return at_start + sum(turn.classes for turn in self.changes if turn.seq in members)

    def _after(self, turn: LineageChange) -> Segments:
        before = self.segments(turn.seq - 1)
        match turn.kind:
            case Kind.ROLLBACK:
                return self.segments(turn.target)
            case Kind.FORGET | Kind.SKIP | Kind.BASE:
                return before
        return _joined(before, turn.seq - 1, turn.seq)


def segments_contain(segments: Segments, seq: int) -> bool:
    """Whether an event is in one of the segments."""
    return any(lo < seq <= hi for lo, hi in segments)


def segments_begin_with(segments: Segments, held: Segments, seq: int) -> bool:
    """Whether segments begin with those of E(seq): what they have up to seq is all of it."""
    return held == tuple((lo, min(hi, seq)) for lo, hi in segments if lo < seq)


def segments_after(segments: Segments, seq: int) -> Segments:
    """The part of segments that comes behind a seq."""
    return tuple((max(lo, seq), hi) for lo, hi in segments if hi > seq)


def _joined(closed: Segments, lo: int, hi: int) -> Segments:
    """The segments with (lo, hi] behind them, joined to the last one where they meet."""
    if lo == hi:
        return closed
    if closed and closed[-1][1] == lo:
        return (*closed[:-1], (closed[-1][0], hi))
    return (*closed, (lo, hi))
