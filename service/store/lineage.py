"""Which events a state is made of: the lineage E(n) of a stream, as its admin events decide it.

    E(0) = ()
    FEEDBACK, CLASSES, CONFIGURE n    E(n) = E(n-1) + (n)
    ROLLBACK n to s                   E(n) = E(s)
    FORGET n, SKIP n                  E(n) = E(n-1)
    BASE n                            E(n) = (n): it holds what came before

    state(n) = the fold of E(n) in order, without the events that were forgotten or skipped, whenever that was

E(n) is kept as ascending half-open segments (lo, hi], so that it stays short whatever the number of events.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from service.errors import UnknownSeqError
from service.store.admin import parse_base, parse_classes, parse_forget, parse_seq
from service.store.feedback import Event, Kind

Segments = tuple[tuple[int, int], ...]


class Turn(NamedTuple):
    """What one admin event does to the lineage and to the class set.

    Attributes:
        seq: Its seq.
        kind: Its kind.
        target: ROLLBACK: the seq to go back to.
        out: FORGET and SKIP: the seqs that are left out from then on.
        classes: CLASSES: the number of classes that are added; BASE: the number there is.
    """

    seq: int
    kind: int
    target: int = 0
    out: tuple[int, ...] = ()
    classes: int = 0


def turn_of(event: Event) -> Turn:
    """What an admin event does; raises PayloadError where its payload is none of its kind."""
    payload = event.payload or b""
    match event.kind:
        case Kind.ROLLBACK:
            return Turn(event.seq, event.kind, target=parse_seq(payload))
        case Kind.FORGET:
            return Turn(event.seq, event.kind, out=parse_forget(payload))
        case Kind.SKIP:
            return Turn(event.seq, event.kind, out=(parse_seq(payload),))
        case Kind.CLASSES:
            return Turn(event.seq, event.kind, classes=len(parse_classes(payload)))
        case Kind.BASE:
            return Turn(event.seq, event.kind, classes=parse_base(payload))
    return Turn(event.seq, event.kind)


class Lineage:
    """The lineage of one stream at every seq, from the admin events that are known so far.

    Args:
        turns: What its admin events do, by ascending seq; `add` takes further ones.
    """

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self.turns: list[Turn] = []
        self.forgotten: set[int] = set()
        self.skipped: set[int] = set()
        # For each turn the closed segments at its seq; the open one behind it runs on to any n.
        self._starts: list[int] = [0]
        self._closed: list[Segments] = [()]
        for turn in turns:
            self.add(turn)

    def add(self, turn: Turn) -> None:
        """Takes one more turn, of a greater seq than those before."""
        closed = self._after(turn)
        self.turns.append(turn)
        self._starts.append(turn.seq)
        self._closed.append(closed)
        if turn.kind == Kind.FORGET:
            self.forgotten.update(turn.out)
        elif turn.kind == Kind.SKIP:
            self.skipped.update(turn.out)

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

    def holds(self, n: int, seq: int) -> bool:
        """Whether an event is in E(n), forgotten or not."""
        return any(lo < seq <= hi for lo, hi in self.segments(n))

    def class_set(self, n: int) -> tuple[int, ...]:
        """The seqs of the BASE and CLASSES events that the class set at n is made of; equal sets, equal answers."""
        kinds = (Kind.CLASSES, Kind.BASE)
        return tuple(t.seq for t in self.turns if t.kind in kinds and t.seq <= n and self.holds(n, t.seq))

    def n_classes(self, n: int, at_start: int) -> int:
        """The number of classes at n, where the stream began with `at_start`."""
        members = set(self.class_set(n))
        count = at_start
        for turn in self.turns:
            if turn.seq in members:
                count = turn.classes if turn.kind == Kind.BASE else count + turn.classes
        return count

    def _after(self, turn: Turn) -> Segments:
        before = self.segments(turn.seq - 1)
        match turn.kind:
            case Kind.ROLLBACK:
                return self.segments(turn.target)
            case Kind.FORGET | Kind.SKIP:
                return before
            case Kind.BASE:
                return ((turn.seq - 1, turn.seq),)
        return _joined(before, turn.seq - 1, turn.seq)


def _joined(closed: Segments, lo: int, hi: int) -> Segments:
    """The segments with (lo, hi] behind them, joined to the last one where they meet."""
    if lo == hi:
        return closed
    if closed and closed[-1][1] == lo:
        return (*closed[:-1], (closed[-1][0], hi))
    return (*closed, (lo, hi))
