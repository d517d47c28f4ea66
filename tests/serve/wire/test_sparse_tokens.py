"""A token of format 3 opens to its sparse row for its model version; all other bytes give the same error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.serve.wire import feedback_tokens as module
from service.serve.wire.feedback_tokens import (
    EXPIRED_MESSAGE,
    FORMAT_3,
    HEAD_BYTES,
    INVALID_MESSAGE,
    TAG_BYTES,
    SparseTokenSealer,
    TokenKeys,
    TokenSealer,
    decode_token,
    encode_token,
    issuer_of,
)
from service.softmax.sparse_rows import SparseRows, check_sparse_rows, join_rows
from tests.support.budgets import examples
from tests.support.row_events import bits_of, sparse_rows

KEY, OTHER = bytes(range(32)), bytes(32)
GENESIS = bytes(range(32, 64))
NOW = 1_800_000_000_000
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sparse_token.json").read_text())
HEAD = HEAD_BYTES[FORMAT_3]
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
COLUMNS = 6


def make_sealer(*keys: bytes, now: int = NOW, kind: Any = SparseTokenSealer, **changes: Any) -> Any:
    """The sealer of one model version, at a fixed time."""
    fields = {"name": "mail", "version": 1, "genesis": GENESIS, "n_features": COLUMNS, "dtype": FLOAT32, "seconds": 60}
    return kind(TokenKeys(keys or (KEY,)), now_ms=lambda: now, **(fields | changes))


def row_of(columns: list[int], values: list[float], dtype: np.dtype[Any] = FLOAT32) -> SparseRows:
    return SparseRows(np.array([len(columns)]), np.array(columns, np.int32), np.array(values, dtype))


ROW = row_of([1, 5], [1.5, -0.0])
TOKEN = make_sealer().seal_rows(ROW)[0]
RAW = decode_token(TOKEN)


def refusal(ask: Callable[[], Any]) -> str:
    with pytest.raises(UnacceptableError) as caught:
        ask()
    return str(caught.value)


def test_the_golden_token_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens to its row and id, and is issued for them."""
    fields = {name: GOLDEN[name] for name in ("name", "version", "n_features")}
    fields |= {"genesis": bytes.fromhex(GOLDEN["genesis"]), "dtype": np.dtype(GOLDEN["dtype"])}
    id_ = GOLDEN["id"].replace("-", "")
    sealer = make_sealer(bytes.fromhex(GOLDEN["key"]), now=int(id_[:12], 16), **fields)
    monkeypatch.setattr(module, "random_ids", lambda *_: [bytes.fromhex(id_)])
    row = row_of(GOLDEN["columns"], GOLDEN["values"], np.dtype(GOLDEN["dtype"]))
    assert sealer.seal_rows(row) == [GOLDEN["token"]]
    opened_id, opened = sealer.open_token(decode_token(GOLDEN["token"]))
    assert (opened_id.decode(), bits_of(opened)) == (GOLDEN["id"], bits_of(row))
    assert issuer_of(decode_token(GOLDEN["token"])) == GOLDEN["version"]


@settings(deadline=None, max_examples=examples(200))
@given(st.data(), st.sampled_from([FLOAT32, FLOAT64]), st.integers(1, 4))
def test_tokens_open_to_their_rows(data: st.DataObject, dtype: np.dtype[Any], count: int) -> None:
    """The rows have the same bits, and kernels can read them."""
    rows = data.draw(sparse_rows(count, COLUMNS, dtype))
    tokens = make_sealer(dtype=dtype).seal_rows(rows)
    opened = [make_sealer(dtype=dtype).open_token(decode_token(token)) for token in tokens]
    assert bits_of(join_rows([row for _, row in opened])) == bits_of(rows)
    assert len({id_ for id_, _ in opened}) == count
    for _, row in opened:
        check_sparse_rows(row, COLUMNS)
        assert row.values.dtype == dtype
        assert all(part.flags.carray for part in row)


def test_a_token_is_opaque_and_unique() -> None:
    """Equal rows give different tokens, which do not contain the bytes of the row."""
    row = row_of([1, 2, 3, 4], [1.5] * 4)
    (first,), (second,) = make_sealer().seal_rows(row), make_sealer().seal_rows(row)
    raw = decode_token(first)
    assert raw[HEAD:] != decode_token(second)[HEAD:]
    assert row.columns.tobytes() not in raw
    assert row.values.tobytes() not in raw


@pytest.mark.parametrize("entries", [0, 1, 30, 65_536])
def test_the_length_is_that_of_the_entries(entries: int) -> None:
    """A row of as many entries as the default limit allows has a token of 699,111 characters."""
    row = row_of(list(range(entries)), [1.0] * entries)
    (token,) = make_sealer(n_features=1 << 18).seal_rows(row)
    assert len(decode_token(token)) == HEAD + 8 * entries + TAG_BYTES
    assert entries != 65_536 or len(token) == 699_111
    assert bits_of(make_sealer(n_features=1 << 18).open_token(decode_token(token))[1]) == bits_of(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "spam"},
        {"version": 2},
        {"genesis": bytes(32)},
        {"n_features": 1},
        {"dtype": FLOAT64},
        {"keys": (OTHER,)},
    ],
    ids=str,
)
def test_a_token_of_another_stream_is_rejected(changes: dict[str, Any]) -> None:
    """A token of another model, version, artifact or service gives the same error."""
    sealer = make_sealer(*changes.get("keys", ()), **{name: one for name, one in changes.items() if name != "keys"})
    assert refusal(lambda: sealer.open_token(RAW)) == INVALID_MESSAGE


def test_formats_are_not_confused() -> None:
    """No token opens in another format, though the number of bytes would fit."""
    dense = decode_token(make_sealer(kind=TokenSealer, n_features=4).seal_rows(np.ones((1, 4), np.float32))[0])
    assert len(dense) == len(RAW)
    for kind, n_features in ((TokenSealer, 4), (SparseTokenSealer, COLUMNS)):
        own = RAW if kind is SparseTokenSealer else dense
        sealer = make_sealer(kind=kind, n_features=n_features)
        assert sealer.open_token(own)
        for token in (dense, RAW):
            for version in range(5):
                altered = bytes([version]) + token[1:]
                if altered != own:
                    assert refusal(lambda s=sealer, t=altered: s.open_token(t)) == INVALID_MESSAGE  # type: ignore[misc]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_format_names_its_issuer(version: int) -> None:
    """Only format 1 names none."""
    assert issuer_of(bytes([version]) + RAW[1:]) == (None if version == 1 else 1)


def test_keys_can_be_rotated() -> None:
    """The first key encrypts and all decrypt; a token of a removed key is rejected."""
    (new,) = make_sealer(OTHER, KEY).seal_rows(ROW)
    assert bits_of(make_sealer(OTHER, KEY).open_token(RAW)[1]) == bits_of(ROW)
    assert bits_of(make_sealer(OTHER).open_token(decode_token(new))[1]) == bits_of(ROW)
    assert refusal(lambda: make_sealer(KEY).open_token(decode_token(new))) == INVALID_MESSAGE


def test_a_token_expires() -> None:
    assert make_sealer(now=NOW + 60_000).open_token(RAW)
    assert refusal(lambda: make_sealer(now=NOW + 60_001).open_token(RAW)) == EXPIRED_MESSAGE


def test_every_changed_byte_is_detected() -> None:
    """A changed byte, a missing entry, and bytes between or after the others give the same error."""
    altered = [RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :] for at in range(len(RAW)) for flip in (1, 0x80)]
    altered += [RAW[:at] + RAW[at + 8 :] for at in range(len(RAW) - 7)]
    altered += [RAW[:at] + bytes(8) + RAW[at:] for at in range(len(RAW) + 1)]
    altered += [RAW[:size] for size in range(len(RAW))]
    for token in altered:
        assert refusal(lambda token=token: make_sealer().open_token(token)) == INVALID_MESSAGE  # type: ignore[misc]


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(max_size=90), st.booleans())
def test_any_bytes_give_the_same_error(data: bytes, is_similar: bool) -> None:  # noqa: FBT001  # hypothesis draws it
    """Some of the bytes start as a token does, with the id of the key."""
    raw = RAW[:13] + data if is_similar else data
    assert refusal(lambda: make_sealer().open_token(raw)) == INVALID_MESSAGE
    assert decode_token(encode_token(raw)) == raw
