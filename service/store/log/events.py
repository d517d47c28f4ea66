"""The records of the feedback log: streams, events, drafts and outcomes, and the hashes that chain events.

A stream is the history of one model version: its events have the seqs 1, 2, 3, … in the order of their commits. An
event is a kind, an id, a time, a payload and the hash that chains it to the event before:

    hash    SHA-256(previous hash ‖ head ‖ id ‖ digest)    before the first event: the stream's genesis, 32 bytes
            if the event has an actor, <B bytes of actor> actor follows the digest
    head    <Q seq> <H kind> <Q time_ms> <H bytes of id>
    digest  SHA-256(salt ‖ payload)                         salt: 16 random bytes, deleted with the payload

    kind       payload                                                        meaning
    FEEDBACK   rows and targets, in the format of feedback_payload.py         these rows are learned, in order
    CLASSES    {"add": [name, …]}                                             classes are added after the others
    FORGET     {"seqs": [seq, …]} ascending; the draft has {"ids": [hex]}     these events were never learned
    ROLLBACK   {"seq": s}                                                     the state is that of s again
    CONFIGURE  {name: value, …}, interpreted by the fold                      the rule, pause, resume, shadow
    SKIP       {"seq": s}                                                     feedback s cannot be learned, and never is
    BASE       {"n_classes": K, …}, interpreted by the fold                   a state to start from, after an upgrade
    CORRECT    a seq and targets, in the format of correction_payload.py      that feedback has these labels from now on

The actor names who sent the event: the id of a key, a keyed hash of another identity, or COMMAND. An event has none
if the service was open to everybody or an earlier release wrote it; a BASE has none. The fold never reads it.
"""

import struct
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from service.errors import LogFullError, RefusedError

ACTOR_BYTES_MAX: Final = 255  # the hash has its length as one byte
COMMAND: Final = b"command"  # the actor of what a person appends with a command of `softstep`
ID_BYTES_MAX: Final = 128  # a URL, a UUID or a hash with a prefix; longer ids belong into the client's own table
GENESIS_BYTES: Final = 32
SALT_BYTES: Final = 16
# A list of 200 events reads at most 13 MB of payloads, yet an event of one row is seldom larger.
PREVIEW_BYTES_MAX: Final = 64 << 10
PREVIEW_START_BYTES: Final = 64  # more than the head of any payload
SEQ_BITS: Final = 40  # stream and seq together fit into a signed 64-bit integer
SEQ_MAX: Final = (1 << SEQ_BITS) - 1
pack_head: Final = struct.Struct("<32sQHQH").pack
pack_actor_size: Final = struct.Struct("<B").pack


class Kind(IntEnum):
    """The kind of an event; the numbers are on disk."""

    FEEDBACK = 1
    CLASSES = 2
    FORGET = 3
    ROLLBACK = 4
    CONFIGURE = 5
    SKIP = 6
    BASE = 7
    CORRECT = 8


class Stream(NamedTuple):
    """The history of one model version, as it was opened; immutable.

    Attributes:
        number: Its number in this log, from 1, never reused.
        model: The model's name.
        version: The version's number.
        genesis: 32 bytes that stand for everything that determines the fold; the hash before the first event.
        n_classes: Number of classes at seq 0.
    """

    number: int
    model: str
    version: int
    genesis: bytes
    n_classes: int


class Position(NamedTuple):
    """A position in a stream's chain: the seq of an event and its hash; at seq 0 the genesis."""

    seq: int
    hash: bytes


class StreamState(NamedTuple):
    """The state of a stream now.

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
    """An event to append.

    Attributes:
        stream: The stream's number.
        kind: The kind of event.
        id: 1 to 128 bytes that name it among all events of the model; of a text id, its UTF-8.
        payload: Its bytes, as the table above describes them.
        time_ms: Milliseconds since 1970, for people; a retry may have another time.
        class_epoch: The class epoch that the draft was made for, or None for any.
        if_seq: The last seq that the caller knows, or None for any.
        actor: Who sends it, at most 255 bytes of ASCII, or nothing; a retry may have another one.
    """

    stream: int
    kind: Kind
    id: bytes
    payload: bytes
    time_ms: int
    class_epoch: int | None = None
    if_seq: int | None = None
    actor: bytes = b""


class EventLocation(NamedTuple):
    """The location of an event that is on disk.

    Attributes:
        stream: Number of the stream that contains it: another version's, if a retry came after a deployment.
        seq: Its seq there.
        duplicate: Whether an earlier append wrote it.
        removed_by: The kind of event that has removed it from the state since (removals.py), or None.
    """

    stream: int
    seq: int
    duplicate: bool = False
    removed_by: Kind | None = None


Outcome = EventLocation | RefusedError | LogFullError


class Event(NamedTuple):
    """A stored event; `payload` is None if it was forgotten, `actor` is empty if it has none.

    `kind` compares equal to a `Kind`.
    """

    seq: int
    kind: int
    id: bytes
    time_ms: int
    payload: bytes | None
    hash: bytes
    actor: bytes = b""


class EventPreview(NamedTuple):
    """A stored event with no more than the start of a long payload.

    Attributes:
        seq: As in Event.
        kind: As in Event.
        id: As in Event.
        time_ms: As in Event.
        actor: As in Event.
        size: The bytes of its payload; None if it was forgotten.
        payload: The payload if it has at most PREVIEW_BYTES_MAX bytes, and its first PREVIEW_START_BYTES otherwise.
    """

    seq: int
    kind: int
    id: bytes
    time_ms: int
    actor: bytes
    size: int | None
    payload: bytes


def hash_payload(salt: bytes, payload: bytes) -> bytes:
    """Return the digest of a payload, 32 bytes; it reveals nothing of the payload once the salt is deleted."""
    return sha256(salt + payload).digest()


def hash_event(  # noqa: PLR0917  # the parts of one hash, in its order
    previous: bytes, seq: int, kind: int, id_: bytes, time_ms: int, payload_digest: bytes, actor: bytes = b""
) -> bytes:
    """Return the hash of an event, 32 bytes, from the one before it and everything that the event contains."""
    hashed = pack_head(previous, seq, kind, time_ms, len(id_)) + id_ + payload_digest
    if actor != b"":  # not `if actor`: other empty values are damage
        hashed += pack_actor_size(len(actor)) + actor
    return sha256(hashed).digest()
