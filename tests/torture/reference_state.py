"""What a stream's state is, from its definition: plain lists, every event by itself, nothing remembered."""

from collections.abc import Sequence

import orjson

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.hashing import hash_tensors
from service.store.log.events import Event, Kind


def lineage(events: Sequence[Event], n: int) -> list[int]:
    """E(n): the seqs that state(n) is made of, forgotten and skipped ones included; `events` are 1, 2, 3, …"""
    held: list[list[int]] = [[]]
    for event in events[:n]:
        match event.kind:
            case Kind.ROLLBACK:
                held.append(held[orjson.loads(event.payload or b"")["seq"]])
            case Kind.FORGET | Kind.SKIP:
                held.append(held[-1])
            case _:
                held.append([*held[-1], event.seq])
    return held[n]


def out(events: Sequence[Event]) -> set[int]:
    """The seqs that no state holds any more."""
    gone: set[int] = set()
    for event in events:
        if event.kind == Kind.FORGET:
            gone.update(orjson.loads(event.payload or b"")["seqs"])
        elif event.kind == Kind.SKIP:
            gone.add(orjson.loads(event.payload or b"")["seq"])
    return gone


def state(artifact: Artifact, events: Sequence[Event], n: int) -> EventFold:
    """state(n)."""
    fold, gone = EventFold(artifact), out(events)
    for seq in lineage(events, n):
        if seq not in gone:
            fold.fold_events([events[seq - 1]])
    return fold


def weights_of(fold: EventFold) -> str:
    """The hash of what a fold serves, with everything else that it keeps."""
    fields, arrays = fold.checkpoint_contents()
    return hash_tensors(arrays.values()) + repr(fields)
