"""The timeline of a stream: the events that its history is made of, in order, those that rollbacks removed included.

A state is folded from the events of its lineage alone (store/log/lineage.py). A history shows how each row was answered
when it came, so it keeps the rows that a rollback removed. It is made in one pass over all events:

    run 1    from the start to the first rollback
    run 2    from the state that this rollback returned to, over the events after it, to the next rollback
    ...      until the end, in the lineage of the last event

Each run is folded from the state of its start, which the run before has passed. Forgotten and skipped events are in no
run. An event has the labels of its last correction from the first run on, as if it had never had others. So a history
is a function of what the log contains, not of what it has contained.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from service.store.log.lineage import Lineage, segments_contain


class Run(NamedTuple):
    """Events that are folded one after another.

    Attributes:
        start: The seq whose state the run continues from: `lo`, or what the rollback at `lo` returned to.
        lo: The seq before its first event.
        hi: The seq of its last event.
    """

    start: int
    lo: int
    hi: int


def runs_between(lineage: Lineage, since: int, end: int) -> list[Run] | None:
    """Return the runs of the events (since, end], or None if one of them starts before `since`."""
    runs, start, lo = [], since, since
    for rollback in lineage.rollbacks:
        if since < rollback.seq <= end:
            runs.append(Run(start, lo, rollback.seq))
            start, lo = rollback.target, rollback.seq
            if start < since:
                return None
    return [*runs, Run(start, lo, end)]


def cut_runs(runs: list[Run], origin: int) -> list[Run]:
    """Return the runs, cut where the history begins and at every state that a later run starts from."""
    cuts = sorted({run.start for run in runs} | {origin})
    pieces = []
    for start, lo, hi in runs:
        ends = [*(cut for cut in cuts if lo < cut < hi), hi]
        pieces.append(Run(start, lo, ends[0]))
        pieces += [Run(begin, begin, end) for begin, end in pairwise(ends)]
    return pieces


def timeline_corrections(lineage: Lineage, end: int) -> Mapping[int, int]:
    """Return the corrected events up to `end`, each with the seq of the CORRECT whose labels it has in the timeline.

    An event of the lineage of `end` has the labels that it has there. One that a rollback removed has those from just
    before that rollback.
    """
    corrections = lineage.corrections(end)
    live = lineage.segments(end)
    for rollback in reversed(lineage.rollbacks):
        if rollback.seq <= end:
            removed = lineage.corrections(rollback.seq - 1)
            later = {seq: correct for seq, correct in removed.items() if not segments_contain(live, seq)}
            corrections = later | corrections
    return corrections
