"""The event log's records and its interface: what is kept of every feedback and every admin call, and in which order.

A stream is the history of one model version: its events have the seq 1, 2, 3, … in the order of their commits. An event
is a kind, an id, a time, a payload and the hash that chains it to the event before:

    link    SHA-256(prev ‖ head ‖ id ‖ digest)     prev of the first event: the stream's genesis, 32 bytes
    head    <Q seq> <H kind> <Q time_ms> <H bytes of id>
    digest  SHA-256(salt ‖ payload)                 salt: 16 random bytes, deleted with the payload

    kind       payload                                                     it means
    FEEDBACK   rows and targets, the bytes that rows.py describes          these rows are learnt, in order
    CLASSES    {"add": [name, …]}                                          classes are added behind the others
    FORGET     {"seqs": [seq, …]} ascending; the draft has {"ids": [hex]}  these events were never learnt
    ROLLBACK   {"seq": s}                                                  the state is that of s again
    CONFIGURE  {name: value, …}, what the fold understands                 the rule, pause, resume, shadow
    SKIP       {"seq": s}                                                  feedback s cannot be learnt and never will be
    BASE       {"n_classes": K, …}, what the fold understands              a state to start from, after an upgrade

What always holds of a log, whatever its backend:
    (model, id) names one event for as long as the log lives, across the versions of a model; ids of rolled-back and
    forgotten events stay used, and only a purge of the stream frees them.
    A seq that was given is never given again, also where its event is forgotten.
    A forgotten event keeps everything but its payload and salt; the digest stays, so the chain still verifies.
    All drafts of one `append` are written in one transaction, each accepted or refused by itself.
"""

import struct
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from service.errors import LogFullError, RefusedError

ID_BYTES_MAX: Final = 128  # a URL, a UUID or a hash with a prefix; longer ids belong into the client's own table
GENESIS_BYTES: Final = 32
SALT_BYTES: Final = 16
SEQ_BITS: Final = 40  # stream and seq fit together into a signed 64-bit integer
SEQ_MAX: Final = (1 << SEQ_BITS) - 1
pack_head: Final = struct.Struct("<32sQHQH").pack


class Kind(IntEnum):
    """What an event says; the numbers are on disk."""

    FEEDBACK = 1
    CLASSES = 2
    FORGET = 3
    ROLLBACK = 4
    CONFIGURE = 5
    SKIP = 6
    BASE = 7


class Stream(NamedTuple):
    """One model version's history, as it was opened; immutable.

    Attributes:
        number: Its number in this log, from 1, never given again.
        model: The model's name.
        version: The version's number.
        genesis: 32 bytes that stand for all that binds the fold; the prev of the first event.
        n_classes: Number of classes at seq 0.
    """

    number: int
    model: str
    version: int
    genesis: bytes
    n_classes: int


class Position(NamedTuple):
    """A place in a stream's chain: the seq of an event and its hash; at seq 0 the genesis."""

    seq: int
    hash: bytes


class StreamState(NamedTuple):
    """Where a stream stands now.

    Attributes:
        seq: The last event's seq, 0 before the first.
        hash: Its hash, or the genesis.
        class_epoch: The seq of the last change of the class set, 0 before the first.
        n_classes: The number of classes now.
        epoch: The number of FORGET events.
    """

    seq: int
    hash: bytes
    class_epoch: int
    n_classes: int
    epoch: int


class Draft(NamedTuple):
    """An event that is to be appended.

    Attributes:
        stream: The stream's number.
        kind: What it says.
        id: 1 to 128 bytes that name it among all events of the model; a text id is its UTF-8.
        payload: Its bytes, as the table above says.
        time_ms: Milliseconds since 1970, for people; not part of what a retry must repeat.
        class_epoch: The class epoch that the draft was made for, or None to take any.
        if_seq: The last seq that the caller knows, or None to take any.
    """

    stream: int
    kind: Kind
    id: bytes
    payload: bytes
    time_ms: int
    class_epoch: int | None = None
    if_seq: int | None = None


class EventLocation(NamedTuple):
    """A draft that is on disk.

    Attributes:
        stream: Number of the stream that holds it: of another version where a retry came after a deploy.
        seq: Its seq there.
        duplicate: Whether an earlier append wrote it.
        forgotten: Whether it was forgotten since.
    """

    stream: int
    seq: int
    duplicate: bool = False
    forgotten: bool = False


Outcome = EventLocation | RefusedError | LogFullError


class Event(NamedTuple):
    """An event as it is stored; `payload` is None where it was forgotten. `kind` compares equal to a `Kind`."""

    seq: int
    kind: int
    id: bytes
    time_ms: int
    payload: bytes | None
    hash: bytes


def hash_payload(salt: bytes, payload: bytes) -> bytes:
    """What the chain holds of a payload, 32 bytes: it tells nothing of the payload once the salt is deleted."""
    return sha256(salt + payload).digest()


def hash_event(  # noqa: PLR0917  # the parts of one hash, in its order
    prev: bytes, seq: int, kind: int, id_: bytes, time_ms: int, payload_digest: bytes
) -> bytes:
    """The hash of an event, 32 bytes, from the one before it and everything that it holds."""
    return sha256(pack_head(prev, seq, kind, time_ms, len(id_)) + id_ + payload_digest).digest()
