"""Values of statements have PostgreSQL's binary format, and the keys of ids are those that every release finds."""

from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.adapt import Transformer

from service.store.log.postgres_tables import key_of
from service.store.log.postgres_values import pack_blobs, pack_integer, pack_integers, pack_keys

# The types of the arrays, in PostgreSQL's table of types.
BIGINT_ARRAY, BYTEA_ARRAY, UUID_ARRAY = 1016, 1001, 2951
bigints = st.integers(-(1 << 63), (1 << 63) - 1)


def load(oid: int, data: bytes) -> list[object]:
    """Return what the driver reads from an array."""
    values: list[object] = Transformer().get_loader(oid, pq.Format.BINARY).load(data)
    return values


@given(st.lists(bigints))
def test_integers_are_read_again(values: list[int]) -> None:
    assert load(BIGINT_ARRAY, pack_integers(values)) == values


@given(st.lists(st.none() | st.binary(max_size=300)))
def test_blobs_are_read_again(values: list[bytes | None]) -> None:
    assert load(BYTEA_ARRAY, pack_blobs(values)) == values


@given(st.lists(st.uuids()))
def test_keys_are_read_again(values: list[object]) -> None:
    assert load(UUID_ARRAY, pack_keys([value.bytes for value in values])) == values  # type: ignore[attr-defined]


def test_the_bytes_are_these() -> None:
    assert pack_integer(-2) == bytes.fromhex("fffffffffffffffe")
    assert pack_integers([1]) == bytes.fromhex("00000001 00000000 00000014 00000001 00000001 00000008 0000000000000001")
    assert pack_blobs([b"\0", None, b""]) == bytes.fromhex(
        "00000001 00000001 00000011 00000003 00000001 00000001 00 ffffffff 00000000"
    )


def test_the_key_of_an_id_is_this() -> None:
    """Another key would store an id twice; model and id do not run into each other."""
    secret = bytes(range(16))
    assert key_of(secret, ("iris", b"a\0b")).hex() == "3811812da9179518194648de65723bc2"
    assert key_of(secret, ("iris", b"a")) != key_of(secret, ("irisa", b""))
    assert key_of(secret, ("i", b"ris")) != key_of(secret, ("ir", b"is"))
    assert key_of(bytes(16), ("iris", b"a")) != key_of(secret, ("iris", b"a"))
