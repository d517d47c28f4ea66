"""A token opens to its row for its model version until it expires; all other bytes give the same error."""

import base64
import json
import os
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
    HEAD_BYTES,
    INVALID_MESSAGE,
    TAG_BYTES,
    TokenKeys,
    TokenSealer,
)

KEY, OTHER = bytes(range(32)), bytes(32)
GENESIS = bytes(range(32, 64))
NOW = 1_800_000_000_000
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "token.json").read_text())
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def make_sealer(*keys: bytes, now: int = NOW, **changes: Any) -> TokenSealer:
    """The sealer of one model version, at a fixed time."""
    fields = {"name": "iris", "version": 1, "genesis": GENESIS, "n_features": 4, "dtype": FLOAT32, "seconds": 60.0}
    fields |= changes
    return TokenSealer(TokenKeys(keys or (KEY,)), now_ms=lambda: now, **fields)


def rows(*values: float, dtype: np.dtype[Any] = FLOAT32) -> Any:
    return np.array([[value, -0.0, 3.4e38, 1e-45] for value in values], dtype)


TOKEN = make_sealer().seal_rows(rows(1.5))[0]


def refusal(ask: Callable[[], Any]) -> str:
    with pytest.raises(UnacceptableError) as caught:
        ask()
    return str(caught.value)


def test_the_golden_token_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas of different releases can open each other's tokens."""
    fields = {name: GOLDEN[name] for name in ("name", "version", "n_features")}
    fields |= {"genesis": bytes.fromhex(GOLDEN["genesis"]), "dtype": np.dtype(GOLDEN["dtype"])}
    tokens = make_sealer(bytes.fromhex(GOLDEN["key"]), now=int(GOLDEN["id"].replace("-", "")[:12], 16), **fields)
    monkeypatch.setattr(module, "random_ids", lambda *_: [bytes.fromhex(GOLDEN["id"].replace("-", ""))])
    X = np.array([GOLDEN["row"]], np.dtype(GOLDEN["dtype"]).newbyteorder("<"))
    assert tokens.seal_rows(X) == [GOLDEN["token"]]
    id_, row = tokens.open_token(GOLDEN["token"])
    assert (id_.decode(), row.tolist()) == (GOLDEN["id"], X.tolist())


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 64, 785])
def test_a_token_opens_to_its_row(n_features: int, dtype: np.dtype[Any]) -> None:
    """The row has the same bits, for every length of the last base64 group."""
    tokens = make_sealer(n_features=n_features, dtype=dtype)
    X = np.random.default_rng(n_features).standard_normal((5, n_features)).astype(dtype)
    sealed = tokens.seal_rows(X)
    opened = [make_sealer(n_features=n_features, dtype=dtype).open_token(token) for token in sealed]
    assert np.concatenate([row for _, row in opened]).tobytes() == X.tobytes()
    assert {row.dtype.name for _, row in opened} == {dtype.name}
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in sealed)
    assert len({id_ for id_, _ in opened}) == 5


def test_the_id_is_a_uuid_with_the_time_of_issue() -> None:
    """The version is 7 and the variant 10; ids of a later millisecond are greater."""
    ids = [make_sealer().open_token(token)[0] for token in make_sealer().seal_rows(rows(*range(100)))]
    (later,) = make_sealer(now=NOW + 1).seal_rows(rows(1))
    assert {len(id_) for id_ in ids} == {36}
    assert {int(id_[:8] + id_[9:13], 16) for id_ in ids} == {NOW}
    assert {(id_[14:15], id_[19:20] in b"89ab") for id_ in ids} == {(b"7", True)}
    assert max(ids) < make_sealer().open_token(later)[0]
    assert len(set(ids)) == 100
    assert len({id_[15:18] for id_ in ids}) > 90
    assert len({id_[20:] for id_ in ids}) == 100


def test_a_token_is_opaque_and_unique() -> None:
    """Equal rows give different tokens, which do not contain the bytes of the row."""
    X = rows(1.5, 1.5)
    first, second = make_sealer().seal_rows(X)
    raw = base64.urlsafe_b64decode(first + "==")
    assert first != second
    assert raw[HEAD_BYTES:] != base64.urlsafe_b64decode(second + "==")[HEAD_BYTES:]
    assert X[0].tobytes() not in raw
    assert raw[HEAD_BYTES:-TAG_BYTES] != X[0].tobytes()


@pytest.mark.parametrize(
    "changes", [{"name": "digits"}, {"version": 2}, {"version": 11}, {"genesis": bytes(32)}, {"n_features": 3},
                {"keys": (OTHER,)}]
)  # fmt: skip
def test_a_token_of_another_stream_is_rejected(changes: dict[str, Any]) -> None:
    """A token of another model, version, artifact or service gives the same error."""
    keys = changes.pop("keys", ())
    assert refusal(lambda: make_sealer(*keys, **changes).open_token(TOKEN)) == INVALID_MESSAGE


def test_keys_can_be_rotated() -> None:
    """The first key encrypts and all decrypt; a token of a removed key is rejected."""
    new = make_sealer(OTHER, KEY).seal_rows(rows(2.0))[0]
    assert make_sealer(OTHER, KEY).open_token(TOKEN)[1].tolist() == rows(1.5).tolist()
    assert make_sealer(OTHER).open_token(new)[1].tolist() == rows(2.0).tolist()
    assert refusal(lambda: make_sealer(KEY).open_token(new)) == INVALID_MESSAGE
    assert refusal(lambda: make_sealer(OTHER).open_token(TOKEN)) == INVALID_MESSAGE


def test_a_token_expires() -> None:
    """A token expires after its time, and one from a clock that is ahead is valid."""
    assert make_sealer(now=NOW + 60_000).open_token(TOKEN)
    assert make_sealer(now=NOW - 3_600_000).open_token(TOKEN)
    assert refusal(lambda: make_sealer(now=NOW + 60_001).open_token(TOKEN)) == EXPIRED_MESSAGE
    # The error does not reveal whether a forged token is too old.
    forged = TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "Q")
    assert refusal(lambda: make_sealer(now=NOW + 60_001).open_token(forged)) == INVALID_MESSAGE


@pytest.mark.parametrize("text", ["", "x", "=", TOKEN + "=", TOKEN + "A", " " + TOKEN, TOKEN[1:], TOKEN[:-1], TOKEN * 2,
                                  "é" * len(TOKEN), "\0" * len(TOKEN), "\ud800" * len(TOKEN), "A" * len(TOKEN),
                                  "+" * len(TOKEN), "=" * len(TOKEN), "\n" * len(TOKEN)], ids=range(16))  # fmt: skip
def test_an_invalid_text_is_rejected(text: str) -> None:
    assert refusal(lambda: make_sealer().open_token(text)) == INVALID_MESSAGE


@pytest.mark.parametrize("n_features", [4, 5, 6])
def test_every_changed_character_is_detected(n_features: int) -> None:
    """This includes the unused bits of the last character and the other alphabet of base64."""
    tokens = make_sealer(n_features=n_features)
    (token,) = tokens.seal_rows(np.ones((1, n_features), np.float32))
    for at in range(len(token)):
        for character in "A_-+/=9z\n":
            changed = token[:at] + character + token[at + 1 :]
            if changed != token:
                assert refusal(lambda changed=changed: tokens.open_token(changed)) == INVALID_MESSAGE  # type: ignore[misc]
    for character in module.CHARACTERS:
        if character != token[-1]:
            assert refusal(lambda c=character: tokens.open_token(token[:-1] + c)) == INVALID_MESSAGE  # type: ignore[misc]


def test_the_other_alphabet_is_rejected() -> None:
    """A token with + or / instead of - and _ is rejected."""
    tokens = make_sealer()
    both = next(token for token in tokens.seal_rows(rows(*[1.0] * 500)) if "-" in token and "_" in token)
    assert tokens.open_token(both)
    for other in (both.replace("-", "+"), both.replace("_", "/")):
        assert refusal(lambda other=other: tokens.open_token(other)) == INVALID_MESSAGE  # type: ignore[misc]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80) | st.just(os.urandom(53)) | st.binary(min_size=53, max_size=53), st.booleans())
def test_any_bytes_give_a_row_or_the_same_error(data: bytes, headed: bool) -> None:  # noqa: FBT001
    """Some of the bytes start with a valid prefix."""
    raw = base64.urlsafe_b64decode(TOKEN + "==")
    sealed = raw[:5] + data[5:] if headed else data
    text = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    if sealed != raw:
        assert refusal(lambda: make_sealer().open_token(text)) == INVALID_MESSAGE


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=90) | st.text(st.sampled_from(module.CHARACTERS), min_size=len(TOKEN), max_size=len(TOKEN)))
def test_any_text_gives_the_same_error(text: str) -> None:
    if text != TOKEN:
        assert refusal(lambda: make_sealer().open_token(text)) == INVALID_MESSAGE
