"""A token opens to its row for its model version until it expires; all other bytes give the same error."""

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
    FORMAT_2,
    HEAD_BYTES,
    INVALID_MESSAGE,
    TAG_BYTES,
    TokenKeys,
    TokenSealer,
    decode_token,
    issuer_of,
)
from tests.support.budgets import examples
from tests.support.format_1_tokens import seal_format_1

KEY, OTHER = bytes(range(32)), bytes(32)
GENESIS = bytes(range(32, 64))
NOW = 1_800_000_000_000
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "token.json").read_text())
HEAD = HEAD_BYTES[FORMAT_2]
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def make_sealer(*keys: bytes, now: int = NOW, **changes: Any) -> TokenSealer:
    """The sealer of one model version, at a fixed time."""
    fields = {"name": "iris", "version": 1, "genesis": GENESIS, "n_features": 4, "dtype": FLOAT32, "seconds": 60.0}
    fields |= changes
    return TokenSealer(TokenKeys(keys or (KEY,)), now_ms=lambda: now, **fields)


def rows(*values: float, dtype: np.dtype[Any] = FLOAT32) -> Any:
    return np.array([[value, -0.0, 3.4e38, 1e-45] for value in values], dtype)


def opened(sealer: TokenSealer, token: str) -> tuple[bytes, Any]:
    """The id and the row of a token's text."""
    return sealer.open_token(decode_token(token))


TOKEN = make_sealer().seal_rows(rows(1.5))[0]
OLD = seal_format_1(KEY, GENESIS, "iris", 1, rows(1.5).tobytes(), NOW)
both_formats = pytest.mark.parametrize("token", [OLD, TOKEN], ids=["format 1", "format 2"])


def refusal(ask: Callable[[], Any]) -> str:
    with pytest.raises(UnacceptableError) as caught:
        ask()
    return str(caught.value)


def test_golden_tokens_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats open to their row and id, and format 2 is issued."""
    fields = {name: GOLDEN[name] for name in ("name", "version", "n_features")}
    fields |= {"genesis": bytes.fromhex(GOLDEN["genesis"]), "dtype": np.dtype(GOLDEN["dtype"])}
    sealer = make_sealer(bytes.fromhex(GOLDEN["key"]), now=int(GOLDEN["id"].replace("-", "")[:12], 16), **fields)
    monkeypatch.setattr(module, "random_ids", lambda *_: [bytes.fromhex(GOLDEN["id"].replace("-", ""))])
    X = np.array([GOLDEN["row"]], np.dtype(GOLDEN["dtype"]).newbyteorder("<"))
    assert sealer.seal_rows(X) == [GOLDEN["tokens"]["2"]]
    for version, token in GOLDEN["tokens"].items():
        id_, row = opened(sealer, token)
        assert (id_.decode(), row.tolist()) == (GOLDEN["id"], X.tolist())
        assert issuer_of(decode_token(token)) == (None if version == "1" else GOLDEN["version"])


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 64, 785])
def test_a_token_opens_to_its_row(n_features: int, dtype: np.dtype[Any]) -> None:
    """The row has the same bits, for every length of the last base64 group."""
    tokens = make_sealer(n_features=n_features, dtype=dtype)
    X = np.random.default_rng(n_features).standard_normal((5, n_features)).astype(dtype)
    sealed = tokens.seal_rows(X)
    events = [opened(make_sealer(n_features=n_features, dtype=dtype), token) for token in sealed]
    assert np.concatenate([row for _, row in events]).tobytes() == X.tobytes()
    assert {row.dtype.name for _, row in events} == {dtype.name}
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in sealed)
    assert len({id_ for id_, _ in events}) == 5


def test_the_id_is_a_uuid_with_the_time_of_issue() -> None:
    """The version is 7 and the variant 10; ids of a later millisecond are greater."""
    ids = [opened(make_sealer(), token)[0] for token in make_sealer().seal_rows(rows(*range(100)))]
    (later,) = make_sealer(now=NOW + 1).seal_rows(rows(1))
    assert {len(id_) for id_ in ids} == {36}
    assert {int(id_[:8] + id_[9:13], 16) for id_ in ids} == {NOW}
    assert {(id_[14:15], id_[19:20] in b"89ab") for id_ in ids} == {(b"7", True)}
    assert max(ids) < opened(make_sealer(), later)[0]
    assert len(set(ids)) == 100
    assert len({id_[15:18] for id_ in ids}) > 90
    assert len({id_[20:] for id_ in ids}) == 100


def test_a_token_is_opaque_and_unique() -> None:
    """Equal rows give different tokens, which do not contain the bytes of the row."""
    X = rows(1.5, 1.5)
    first, second = make_sealer().seal_rows(X)
    raw = decode_token(first)
    assert first != second
    assert raw[HEAD:] != decode_token(second)[HEAD:]
    assert X[0].tobytes() not in raw
    assert raw[HEAD:-TAG_BYTES] != X[0].tobytes()


@both_formats
@pytest.mark.parametrize(
    "changes", [{"name": "digits"}, {"version": 2}, {"version": 11}, {"genesis": bytes(32)}, {"n_features": 3},
                {"keys": (OTHER,)}]
)  # fmt: skip
def test_a_token_of_another_stream_is_rejected(token: str, changes: dict[str, Any]) -> None:
    """A token of another model, version, artifact or service gives the same error."""
    sealer = make_sealer(*changes.get("keys", ()), **{name: one for name, one in changes.items() if name != "keys"})
    assert refusal(lambda: opened(sealer, token)) == INVALID_MESSAGE


def test_the_named_version_is_authenticated() -> None:
    """A token that is altered to name another version opens for neither."""
    raw = bytearray(decode_token(TOKEN))
    assert issuer_of(bytes(raw)) == 1
    raw[module.VERSION_AT] = 2
    assert issuer_of(bytes(raw)) == 2
    for version in (1, 2):
        assert refusal(lambda v=version: make_sealer(version=v).open_token(bytes(raw))) == INVALID_MESSAGE  # type: ignore[misc]


def test_formats_are_not_confused() -> None:
    """The bytes of one format do not open as the other."""
    for token in (OLD, TOKEN):
        raw = bytearray(decode_token(token))
        raw[0] ^= 3
        assert refusal(lambda raw=raw: make_sealer().open_token(bytes(raw))) == INVALID_MESSAGE  # type: ignore[misc]
    old, new = decode_token(OLD), decode_token(TOKEN)
    for raw in (b"\x02" + old[1:5] + bytes([1, *bytes(7)]) + old[5:], b"\x01" + new[1:5] + new[13:]):
        assert refusal(lambda raw=raw: make_sealer().open_token(bytes(raw))) == INVALID_MESSAGE  # type: ignore[misc]


def test_keys_can_be_rotated() -> None:
    """The first key encrypts and all decrypt; a token of a removed key is rejected."""
    new = make_sealer(OTHER, KEY).seal_rows(rows(2.0))[0]
    assert opened(make_sealer(OTHER, KEY), TOKEN)[1].tolist() == rows(1.5).tolist()
    assert opened(make_sealer(OTHER), new)[1].tolist() == rows(2.0).tolist()
    assert refusal(lambda: opened(make_sealer(KEY), new)) == INVALID_MESSAGE
    assert refusal(lambda: opened(make_sealer(OTHER), TOKEN)) == INVALID_MESSAGE


@both_formats
def test_a_token_expires(token: str) -> None:
    """A token expires after its time, and one from a clock that is ahead is valid."""
    assert opened(make_sealer(now=NOW + 60_000), token)
    assert opened(make_sealer(now=NOW - 3_600_000), token)
    assert refusal(lambda: opened(make_sealer(now=NOW + 60_001), token)) == EXPIRED_MESSAGE
    # The error does not reveal whether a forged token is too old.
    forged = token[:-2] + ("A" if token[-2] != "A" else "Q") + token[-1]
    assert refusal(lambda: opened(make_sealer(now=NOW + 60_001), forged)) == INVALID_MESSAGE


@pytest.mark.parametrize("text", ["", "x", "=", TOKEN + "=", TOKEN + "A", " " + TOKEN, TOKEN[1:], TOKEN[:-1], TOKEN * 2,
                                  "é" * len(TOKEN), "\0" * len(TOKEN), "\ud800" * len(TOKEN), "A" * len(TOKEN),
                                  "+" * len(TOKEN), "=" * len(TOKEN), "\n" * len(TOKEN)], ids=range(16))  # fmt: skip
def test_an_invalid_text_is_rejected(text: str) -> None:
    assert refusal(lambda: opened(make_sealer(), text)) == INVALID_MESSAGE


@pytest.mark.parametrize("n_features", [4, 5, 6])
def test_every_changed_character_is_detected(n_features: int) -> None:
    """This includes the unused bits of the last character and the other alphabet of base64."""
    tokens = make_sealer(n_features=n_features)
    (token,) = tokens.seal_rows(np.ones((1, n_features), np.float32))
    for at in range(len(token)):
        for character in "A_-+/=9z\n":
            changed = token[:at] + character + token[at + 1 :]
            if changed != token:
                assert refusal(lambda changed=changed: opened(tokens, changed)) == INVALID_MESSAGE  # type: ignore[misc]
    for character in CHARACTERS:
        if character != token[-1]:
            assert refusal(lambda c=character: opened(tokens, token[:-1] + c)) == INVALID_MESSAGE  # type: ignore[misc]


def test_the_other_alphabet_is_rejected() -> None:
    """A token with + or / instead of - and _ is rejected."""
    tokens = make_sealer()
    both = next(token for token in tokens.seal_rows(rows(*[1.0] * 500)) if "-" in token and "_" in token)
    assert opened(tokens, both)
    for other in (both.replace("-", "+"), both.replace("_", "/")):
        assert refusal(lambda other=other: opened(tokens, other)) == INVALID_MESSAGE  # type: ignore[misc]


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(max_size=80) | st.binary(min_size=53, max_size=61), st.sampled_from([b"", b"\x01", b"\x02"]))
def test_any_bytes_give_the_same_error(data: bytes, start: bytes) -> None:
    """Some of the bytes start as a token of either format does, with the id of the key."""
    raw = start + decode_token(TOKEN)[1:5] + data[5:] if start else data
    assert refusal(lambda: make_sealer().open_token(raw)) == INVALID_MESSAGE
    assert decode_token(module.encode_token(raw)) == raw


@settings(deadline=None, max_examples=examples(300))
@given(st.sampled_from([OLD, TOKEN]), st.data())
def test_every_flipped_bit_is_detected(token: str, data: st.DataObject) -> None:
    """A token with one bit or some bits flipped gives the same error."""
    raw = bytearray(decode_token(token))
    bits = data.draw(st.sets(st.integers(0, 8 * len(raw) - 1), min_size=1, max_size=3))
    for bit in bits:
        raw[bit // 8] ^= 1 << bit % 8
    assert refusal(lambda: make_sealer().open_token(bytes(raw))) == INVALID_MESSAGE


@settings(deadline=None, max_examples=examples(300))
@given(st.text(max_size=90) | st.text(st.sampled_from(CHARACTERS), min_size=len(TOKEN), max_size=len(TOKEN)))
def test_any_text_gives_the_same_error(text: str) -> None:
    assert refusal(lambda: opened(make_sealer(), text)) == INVALID_MESSAGE
