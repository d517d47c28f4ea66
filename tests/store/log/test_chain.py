"""The chain of hashes: any change of an event is detected, and a missing one is named."""

import struct
from hashlib import sha256
from typing import Any

import pytest

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogDamagedError
from service.store.log.chain import Link, add_checksum, check_chain, check_continues, check_event, strip_checksum
from service.store.log.events import Position, hash_event, hash_payload

GENESIS = Position(0, b"g" * 32)


def links(count: int) -> list[Link]:
    """A chain of events; the second one's payload is forgotten, and the first one has no actor."""
    chain: list[Link] = []
    previous = GENESIS.hash
    for seq in range(1, count + 1):
        id_, payload, salt = f"evt-{seq}".encode(), bytes([seq] * 10), bytes(16)
        digest = hash_payload(salt, payload)
        actor = b"key:%d" % seq if seq > 1 else b""
        previous = hash_event(previous, seq, 1, id_, 1000 + seq, digest, actor)
        stored, seal = (None, digest) if seq == 2 else (payload, salt)
        chain.append((seq, 1, id_, 1000 + seq, stored, previous, actor, seal))
    return chain


def test_a_whole_chain_ends_at_its_last_event() -> None:
    """A chain of unchanged events gives the position of the last one; an empty chain gives its start."""
    chain = links(4)
    assert check_chain(GENESIS, chain) == Position(4, chain[-1][5])
    assert check_chain(GENESIS, []) == GENESIS
    assert check_chain(Position(2, chain[1][5]), chain[2:]) == Position(4, chain[-1][5])


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_event_is_named(missing: int) -> None:
    """The error names the seq of the event that is missing."""
    chain = [link for link in links(4) if link[0] != missing]
    with pytest.raises(LogDamagedError, match=f"has lost event {missing};"):
        check_chain(GENESIS, chain)


@pytest.mark.parametrize("field", range(1, 8))
@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_changed_event_is_named(seq: int, field: int) -> None:
    """A change of any field of an event, its seal included, is an error that names its seq."""
    chain = links(3)
    changed = list(chain[seq - 1])
    value = changed[field]
    if field == 4 and value is None:
        value = b"found again"
    else:
        value = value + 1 if isinstance(value, int) else bytes([(value or b"\0")[0] ^ 1]) + value[1:]
    changed[field] = value
    chain[seq - 1] = tuple(changed)
    with pytest.raises(LogDamagedError, match=f"event {seq} of the feedback log is damaged"):
        check_chain(GENESIS, chain)


def test_a_chain_continues_from_a_position_that_it_has() -> None:
    """Only what follows a position is returned, and what is wrong with it has a class of errors of its own."""
    chain = links(4)
    assert check_continues(GENESIS, chain, GENESIS.hash, 4) == chain
    for seq in range(1, 5):
        assert list(check_continues(Position(seq, chain[seq - 1][5]), chain[seq - 1 :], b"", 4)) == chain[seq:]
    with pytest.raises(LogForkedError):
        check_continues(GENESIS, chain, bytes(32), 4)
    with pytest.raises(LogForkedError):
        check_continues(Position(2, chain[2][5]), chain[1:], b"", 4)
    with pytest.raises(LogEndsEarlierError):
        check_continues(Position(5, bytes(32)), [], b"", 4)


@pytest.mark.parametrize("missing", [2, 3, 4])
def test_an_event_that_is_missing_within_a_stream_is_damage(missing: int) -> None:
    chain = links(5)
    with pytest.raises(LogDamagedError, match=f"has lost event {missing};") as caught:
        check_continues(Position(2, chain[1][5]), [link for link in chain[1:] if link[0] != missing], b"", 5)
    assert caught.type is LogDamagedError
    with pytest.raises(LogDamagedError, match="has lost event 2;"):
        check_continues(Position(2, chain[1][5]), [], b"", 5)


def test_the_hash_of_an_event_has_a_documented_form() -> None:
    """Without an actor it is the hash of earlier releases; with one, its length and the actor follow the digest."""
    previous, digest, actor = bytes(range(32)), bytes(range(32, 64)), b"key:k7m2q9xd"
    head = previous + struct.pack("<QHQH", 7, 1, 1_700_000_000_000, 5) + b"evt-1" + digest
    event = previous, 7, 1, b"evt-1", 1_700_000_000_000, digest
    assert hash_event(*event) == hash_event(*event, b"") == sha256(head).digest()
    assert hash_event(*event, actor) == sha256(head + b"\x0c" + actor).digest()


@pytest.mark.parametrize("actor", [None, 0, 1, "", "key:1", 0.0, b"x" * 256])
def test_an_actor_of_another_type_or_length_is_damage(actor: Any) -> None:
    """A damaged row can have any value in the column of the actor; none passes for another one."""
    chain = links(2)
    for at in range(2):
        damaged = list(chain)
        damaged[at] = (*chain[at][:6], actor, chain[at][7])
        with pytest.raises(LogDamagedError, match=f"event {at + 1} of the feedback log is damaged"):
            check_chain(GENESIS, damaged)


def test_one_event_is_checked_against_the_hash_before_it() -> None:
    """A single event passes with the right hash before it, and fails with another."""
    first, second = links(2)
    check_event(first[5], second)
    with pytest.raises(LogDamagedError):
        check_event(second[5], second)


def test_a_checksum_detects_every_flipped_bit() -> None:
    """Bytes with a checksum come back without it; any flipped bit, or a value of another type, is an error."""
    content = add_checksum(b"slice")
    assert strip_checksum(content) == b"slice"
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LogDamagedError):
            strip_checksum(bytes(flipped))
    with pytest.raises(LogDamagedError):
        strip_checksum("slice")
