"""Reference definition of a stream's state: a lineage in plain Python, and every event folded by itself.

Nothing of the follower's incremental folding, checkpoints or refolding is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_tensors
from service.store.log.events import Event, Kind


class Chain(NamedTuple):
    """A lineage as a linked list: its last event, and the lineage before that event."""

    seq: int
    before: "Chain | None"


def lineage(events: Sequence[Event], n: int) -> list[int]:
    """Return E(n): the seqs that state(n) consists of, with forgotten and skipped events.

    Args:
        events: The events 1, 2, 3, … of one stream.
        n: The seq of the state.
    """
    lineages: list[Chain | None] = [None]
    for event in events[:n]:
        match event.kind:
            case Kind.ROLLBACK:
                lineages.append(lineages[orjson.loads(event.payload or b"")["seq"]])
            case Kind.FORGET | Kind.SKIP:
                lineages.append(lineages[-1])
            case _:
                lineages.append(Chain(event.seq, lineages[-1]))
    seqs, chain = [], lineages[n]
    while chain is not None:
        seqs.append(chain.seq)
        chain = chain.before
    return seqs[::-1]


def excluded_seqs(events: Sequence[Event]) -> set[int]:
    """Return the seqs that are forgotten or skipped, and so are part of no state."""
    excluded: set[int] = set()
    for event in events:
        if event.kind == Kind.FORGET:
            excluded.update(orjson.loads(event.payload or b"")["seqs"])
        elif event.kind == Kind.SKIP:
            excluded.add(orjson.loads(event.payload or b"")["seq"])
    return excluded


def fold_lineage(artifact: Artifact, events: Sequence[Event], n: int) -> EventFold:
    """Return state(n), folded from the artifact one event at a time."""
    fold, excluded = EventFold(artifact), excluded_seqs(events)
    for seq in lineage(events, n):
        if seq not in excluded:
            fold.fold_events([events[seq - 1]])
    return fold


def state_hash(fold: EventFold) -> str:
    """Return a hash of a fold's whole state: what it serves and everything else that it keeps."""
    fields, arrays = fold.checkpoint_contents()
    return hash_tensors(arrays.values()) + repr(fields)
