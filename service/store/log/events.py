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
from collections.abc import Iterator, Sequence
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Protocol

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


class Accepted(NamedTuple):
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


Outcome = Accepted | RefusedError | LogFullError


class Event(NamedTuple):
    """An event as it is stored; `payload` is None where it was forgotten. `kind` compares equal to a `Kind`."""

    seq: int
    kind: int
    id: bytes
    time_ms: int
    payload: bytes | None
    hash: bytes


class FeedbackLog(Protocol):
    """What every backend does. One thread at a time uses one object; several processes may each have their own.

    All methods raise a `LogError` where the log cannot do it now; `append` says which in its own words.
    """

    def open_stream(self, model: str, version: int, genesis: bytes, n_classes: int) -> Stream:
        """The stream of a model version, made where there is none.

        Returns:
            The stream as it was first opened: its genesis differs from the argument where the version's files do.
        """

    def streams(self) -> list[Stream]:
        """All streams, by number."""

    def state(self, stream: int) -> StreamState:
        """Where a stream stands. Raises StreamGoneError where it was purged."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Writes drafts in one transaction, and returns when it is on disk.

        Returns:
            For each draft, in order, what became of it: `Accepted`, or an error that says why it was refused alone. It
            is LogFullError for feedback where the disk is too full, while admin calls still fit.

        Raises:
            LogUnavailableError: It cannot be opened, or another process held it for too long; nothing was written.
            OutcomeUnknownError: The disk failed; drafts may be written or not. A retry with the same ids tells.
        """

    def reached(self, stream: int) -> tuple[Stream, Position]:
        """A stream that an outcome of the last `append` names, and where it stands since then; from memory."""

    def read(self, stream: int, after: int, limit: int) -> list[Event]:
        """The events with after < seq, at most `limit` of them, by seq. No read lasts beyond the call."""

    def payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """The payloads of the events behind a position, None where one was forgotten: what a long fold needs, in bulk.

        Returns:
            The payloads, and the position of the last of their events: the chain from `since` up to there is checked.

        Raises:
            LogDamagedError: An event is missing or is not what was written.
        """

    def admin(self, stream: int) -> list[Event]:
        """Every event that is no FEEDBACK, by seq; each is held against the hash of the one before it.

        Raises:
            LogDamagedError: One is not what was written.
        """

    def find(self, model: str, ids: Sequence[bytes]) -> dict[bytes, Accepted]:
        """Where the events with these ids are; ids that no event of the model has are left out."""

    def verify(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """Checks the chain behind a position that is known to be good, and yields after each `rows` events.

        Yields:
            The position up to which the chain holds; a later call may go on from there.

        Raises:
            LogDamagedError: An event is missing or is not what was written.
        """

    def purge(self, stream: int) -> None:
        """Deletes a stream with its events and ids; its number is not given again."""

    def backup(self, path: Path) -> None:
        """Writes a whole copy of the log, as of one moment, to a file that does not exist."""

    def close(self) -> None:
        """Lets go of files; the object cannot be used any more."""


def digest(salt: bytes, payload: bytes) -> bytes:
    """What the chain holds of a payload, 32 bytes: it tells nothing of the payload once the salt is deleted."""
    return sha256(salt + payload).digest()


def link(  # noqa: PLR0917  # the parts of one hash, in its order
    prev: bytes, seq: int, kind: int, id_: bytes, time_ms: int, payload_digest: bytes
) -> bytes:
    """The hash of an event, 32 bytes, from the one before it and everything that it holds."""
    return sha256(pack_head(prev, seq, kind, time_ms, len(id_)) + id_ + payload_digest).digest()
