"""Reference definition of a stream's state: a lineage in plain Python, and every event folded by itself.

Nothing of the follower's incremental folding, checkpoints or refolding is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_tensors
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Draft, Event, Kind


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
    """Return state(n), folded from the artifact one event at a time, each with its last labels."""
    fold, excluded = EventFold(artifact), excluded_seqs(events)
    members = [events[seq - 1] for seq in lineage(events, n) if seq not in excluded]
    corrections = {corrected_seq(event): event.payload for event in members if event.kind == Kind.CORRECT}
    for event in members:
        correction = corrections.get(event.seq)
        if correction is not None and event.payload is not None:
            fold.fold_events([event._replace(payload=correct_payload(event.payload, correction))])
        else:
            fold.fold_events([event])
    return fold


def corrected_seq(event: Event | Draft) -> int:
    """Return the seq of the event that a CORRECT event corrects, 0 if it was forgotten."""
    return int.from_bytes((event.payload or bytes(20))[12:20], "little")


def state_hash(fold: EventFold) -> str:
    """Return a hash of a fold's whole state: what it serves and everything else that it keeps."""
    fields, arrays = fold.checkpoint_contents()
    return hash_tensors(arrays.values()) + repr(fields)
