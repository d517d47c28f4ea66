"""Tokens become events of the version that issued them; each bad token refuses itself, a bad label all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import (
    ExpiredTokenError,
    InvalidTokenError,
    OtherVersionTokenError,
    SoftstepError,
    TooLargeError,
    UnacceptableError,
    VersionNotServedError,
)
from service.serve.error_codes import ERROR_CODES
from service.serve.wire import token_events as module
from service.serve.wire.feedback_body import NumberFeedbackParser, PostedTokens
from service.serve.wire.feedback_tokens import TokenKeys, TokenSealer, decode_token, encode_token
from service.serve.wire.labels import LabelParser
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from service.serve.wire.token_events import TokenEvent, TokenIssuer, TokenReader
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_payload import Targets
from tests.support.budgets import examples
from tests.support.format_1_tokens import seal_format_1
from tests.support.json_reference import checked_message

KEY = bytes(range(32))
NOW = 1_800_000_000_000
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
# Of each version its dtype and its classes; version 9 is not served.
VERSIONS = {
    1: (FLOAT32, ("a", "b", "c")),
    2: (FLOAT32, ("c", "b")),
    3: (FLOAT64, ("a", "b", "c", "d")),
    9: (FLOAT32, ("a", "b")),
}


def genesis(version: int) -> bytes:
    return bytes([version] * 32)


def make_issuer(version: int, *, name: str = "iris", key: bytes = KEY, now: int = NOW) -> TokenIssuer:
    dtype, classes = VERSIONS[version]
    sealer = TokenSealer(TokenKeys([key]), name, version, genesis(version), 2, dtype, 60.0, lambda: now)
    parser = NumberFeedbackParser(
        TableParser(RowParser(2, dtype, 50, 64), ("a", "b")), LabelParser(classes, multilabel=False)
    )
    return TokenIssuer(sealer, parser)


ISSUERS = {version: make_issuer(version) for version in (1, 2, 3)}


def seal(version: int, value: float = 1.5, **changes: Any) -> str:
    """A token of format 2."""
    X = np.full((1, 2), value, VERSIONS[version][0])
    return make_issuer(version, **changes).sealer.seal_rows(X)[0]


def seal_old(version: int, value: float = 1.5, time_ms: int = NOW) -> str:
    """A token of format 1."""
    row = np.full(2, value, VERSIONS[version][0])
    return seal_format_1(KEY, genesis(version), "iris", version, row.tobytes(), time_ms)


def forge(token: str) -> str:
    """The token with its last bit flipped."""
    raw = bytearray(decode_token(token))
    raw[-1] ^= 1
    return encode_token(bytes(raw))


def read(
    tokens: Sequence[str], labels: Sequence[Any], weights: Sequence[float] | None = None, version: int | None = None
) -> list[TokenEvent | SoftstepError]:
    return TokenReader(ISSUERS, version).read_tokens(PostedTokens(tokens, labels, weights))


def results(read_tokens: Sequence[TokenEvent | SoftstepError]) -> list[Any]:
    """The version of each event, or the code of each error."""
    return [one.version if isinstance(one, TokenEvent) else one.code for one in read_tokens]


both_formats = pytest.mark.parametrize("make", [seal_old, seal], ids=["format 1", "format 2"])


@both_formats
def test_a_token_reaches_the_version_that_issued_it(make: Any) -> None:
    """Each row, label and weight is read in the dtype and with the classes of that version."""
    tokens = [make(version, value) for version, value in ((1, 1.5), (3, 0.1), (2, 2.5))]
    events = read(tokens, ["c", "d", "c"], [1, 2, 3])
    assert results(events) == [1, 3, 2]
    blocks = [decode_rows(one.event.payload) for one in events if isinstance(one, TokenEvent)]
    assert [(block.X.dtype, block.X.tolist()) for block in blocks] == [
        (FLOAT32, [[1.5, 1.5]]),
        (FLOAT64, [[0.1, 0.1]]),
        (FLOAT32, [[2.5, 2.5]]),
    ]
    assert [block.targets.tolist() for block in blocks] == [[2], [3], [0]]
    assert [block.weights.tolist() for block in blocks if block.weights is not None] == [[1], [2], [3]]
    ids = {one.event.id for one in events if isinstance(one, TokenEvent)}
    assert ids == {ISSUERS[v].sealer.open_token(decode_token(t))[0] for v, t in zip((1, 3, 2), tokens, strict=True)}


def test_a_label_is_read_by_itself() -> None:
    """A name beside a distribution stays an index, so that a retry of its token alone has the same content."""
    name, share = seal(2), seal(2)
    both, alone = read([name, share], ["b", [0.5, 0.5]]), read([name], ["b"])
    assert both[0] == alone[0]
    kinds = [decode_rows(one.event.payload).layout.targets for one in both if isinstance(one, TokenEvent)]
    assert kinds == [Targets.INDEX, Targets.DISTRIBUTION]


@both_formats
def test_a_path_with_a_version_takes_only_its_tokens(make: Any) -> None:
    """A genuine token of another version has a code of its own."""
    assert results(read([make(1), make(2), make(3)], ["b", "b", "b"], version=2)) == [
        "token_of_other_version",
        2,
        "token_of_other_version",
    ]


def test_a_bad_token_refuses_itself_alone() -> None:
    """Every error names the place of its token and is of its own kind."""
    expired, unserved, forged = seal(1, now=NOW - 60_001), seal(9), forge(seal(1))
    other_model, other_key = seal(1, name="digits"), seal(1, key=bytes(32))
    tokens = [
        expired,
        seal(1),
        unserved,
        forged,
        "",
        other_model,
        seal_old(1, time_ms=NOW - 60_001),
        seal_old(9),
        other_key,
    ]
    events = read(tokens, ["a"] * 9)
    assert [type(one) for one in events] == [
        ExpiredTokenError, TokenEvent, VersionNotServedError, InvalidTokenError, InvalidTokenError, InvalidTokenError,
        ExpiredTokenError, InvalidTokenError, InvalidTokenError,
    ]  # fmt: skip
    for number, one in enumerate(events):
        if isinstance(one, SoftstepError):
            assert checked_message(one).startswith(f"Token {number} ")
    (other,) = read([seal(1)], ["a"], version=3)
    assert isinstance(other, OtherVersionTokenError)
    assert checked_message(other).startswith("Token 0 ")


@pytest.mark.parametrize(
    ("labels", "weights", "word"),
    [
        (["a", "a"], None, "row 1"),
        (["a", 2], None, "row 1"),
        ([[0.5, 0.6, 0], "c"], None, "row 0"),
        (["a", [0.5]], None, "row 1"),
        ([None, "c"], None, "row 0"),
        (["a", "c"], [1, 1e-60], "above 0"),
    ],
)
def test_a_bad_label_or_weight_refuses_the_body(labels: list[Any], weights: list[float] | None, word: str) -> None:
    """The label of row 1 is one of another version's classes; the error has the number of the row in the body."""
    with pytest.raises(UnacceptableError, match=word):
        read([seal(1), seal(2), "bad"], [*labels, "anything"], None if weights is None else [*weights, 1])


def test_attempts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged tokens of format 1 cannot be tried with every version without end; the genuine ones are found at once."""
    monkeypatch.setattr(module, "ATTEMPTS_MAX", 10)
    forged = forge(seal_old(1))
    assert results(read([forged] * 3, ["a"] * 3)) == ["invalid_token"] * 3
    with pytest.raises(TooLargeError):
        read([forged] * 4, ["a"] * 4)
    genuine = [seal_old(1) for _ in range(30)]
    assert results(read(genuine, ["a"] * 30)) == [1] * 30


TOKENS = [seal(1), seal(2), seal(3), seal_old(1), seal_old(3)]


@settings(deadline=None, max_examples=examples(300))
@given(st.sampled_from(TOKENS), st.data(), st.sampled_from([None, 1, 2, 3]))
def test_altered_tokens_are_refused(token: str, data: st.DataObject, version: int | None) -> None:
    """A token with flipped bits, or cut, or longer, gives an error of the table, whichever version the path names."""
    raw = bytearray(decode_token(token))
    for bit in data.draw(st.sets(st.integers(0, 8 * len(raw) - 1), max_size=3)):
        raw[bit // 8] ^= 1 << bit % 8
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))] + data.draw(st.binary(max_size=3))
    (result,) = read([encode_token(bytes(raw))], ["b"], version=version)
    if encode_token(bytes(raw)) in TOKENS:
        assert isinstance(result, TokenEvent | OtherVersionTokenError)
    else:
        assert isinstance(result, InvalidTokenError | VersionNotServedError)
        assert not isinstance(result, OtherVersionTokenError | ExpiredTokenError)
        assert result.code in ERROR_CODES


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(st.text(max_size=120) | st.sampled_from(TOKENS), min_size=1, max_size=6))
def test_any_texts_are_read_or_refused(texts: list[str]) -> None:
    """Each text has a result of its own, the same as when it is posted alone."""
    posted = ISSUERS[1].parser.parse_feedback(orjson.dumps({"tokens": ["t"], "labels": [1]}))
    assert isinstance(posted, PostedTokens)
    together = results(read(texts, ["b"] * len(texts)))
    assert together == [results(read([text], ["b"]))[0] for text in texts]
    assert all((one == "invalid_token") == (text not in TOKENS) for one, text in zip(together, texts, strict=True))
