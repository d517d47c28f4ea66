"""Admin payloads are canonical; any bytes parse to a value or raise PayloadError."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PayloadError
from service.store.log import admin_payloads as admin
from service.store.log.admin_payloads import (
    dump,
    dump_classes,
    dump_forget,
    dump_forget_ids,
    dump_seq,
    parse,
    parse_base,
    parse_classes,
    parse_forget,
    parse_forget_ids,
    parse_forgotten_bases,
    parse_forgotten_corrections,
    parse_seq,
)

PARSERS = [
    parse,
    parse_base,
    parse_classes,
    parse_forget,
    parse_forget_ids,
    parse_forgotten_bases,
    parse_forgotten_corrections,
    parse_seq,
]


def test_equal_calls_are_equal_bytes() -> None:
    assert dump({"b": 1, "a": [2]}) == dump({"a": [2], "b": 1}) == b'{"a":[2],"b":1}'


@given(st.lists(st.binary(), min_size=1), st.lists(st.integers(0, 2**40), min_size=1))
def test_values_are_written_and_read(ids: list[bytes], seqs: list[int]) -> None:
    assert parse_forget_ids(dump_forget_ids([id_ or b"x" for id_ in ids])) == tuple(id_ or b"x" for id_ in ids)
    assert parse_forget(dump_forget(seqs)) == tuple(sorted(set(seqs)))
    assert dump_forget([3, 1], [], [7, 5]) == b'{"corrections":[5,7],"seqs":[1,3]}'
    assert parse_forgotten_corrections(dump_forget([1], seqs, seqs[:1])) == tuple(seqs[:1])
    assert parse_forgotten_bases(dump_forget([1], seqs, seqs[:1])) == tuple(sorted(set(seqs)))
    assert parse_forgotten_bases(dump_forget([1])) == parse_forgotten_corrections(dump_forget([1])) == ()
    assert parse_seq(dump_seq(seqs[0])) == seqs[0]
    assert parse_classes(dump_classes(["é", "b"])) == ("é", "b")
    assert parse_base(dump({"seq": 3, "turns": 1})) == (3, 1)


FIELDS = st.sampled_from(["add", "ids", "seqs", "seq", "n_classes", "bases", "corrections"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
)


@pytest.mark.parametrize("parser", PARSERS)
@given(st.binary() | VALUES.map(admin.orjson.dumps))
def test_any_bytes_are_a_value_or_an_error(parser: Callable[[bytes], object], payload: bytes) -> None:
    with suppress(PayloadError):
        assert parser(payload) is not None


def test_a_payload_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "PAYLOAD_BYTES_MAX", 10)
    assert parse(b'{"a": 1}  ') == {"a": 1}
    with pytest.raises(PayloadError):
        parse(b'{"a": 1}   ')
