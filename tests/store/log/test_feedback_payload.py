"""Feedback payloads decode to what was encoded; any bytes decode to rows or a PayloadError."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import PayloadError
from service.store.log.feedback_payload import (
    HEAD,
    Block,
    Targets,
    decode_events,
    decode_rows,
    encode_rows,
    has_same_content,
    parse_layout,
)


@st.composite
def events(draw: st.DrawFn) -> tuple:
    """Return arguments of encode_rows, of any layout."""
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8"])))
    B, N, K = (draw(st.integers(1, 3)) for _ in range(3))
    kind = draw(st.sampled_from(list(Targets)))
    targets = {
        Targets.INDEX: arrays.arrays("i8", (B,), elements=st.integers(0, K - 1)),
        Targets.DISTRIBUTION: arrays.arrays(dtype, (B, K)),
        Targets.SET: arrays.arrays("?", (B, K)),
    }[kind]
    weights = draw(st.none() | arrays.arrays(dtype, (B,)))
    return draw(arrays.arrays(dtype, (B, N))), draw(targets), kind, K, weights


def bits(array: np.ndarray | None) -> bytes | None:
    return None if array is None else array.tobytes()


@given(events())
def test_encoded_rows_are_decoded(event: tuple) -> None:
    """Decoded arrays are equal bit for bit, not shared, aligned and contiguous."""
    X, targets, kind, K, weights = event
    payload = encode_rows(*event)
    block = decode_rows(payload)
    assert block.layout == parse_layout(payload)
    assert (block.layout.targets, block.layout.n_classes, block.events) == (kind, K, 1)
    assert (bits(block.X), bits(block.weights)) == (bits(X), bits(weights))
    np.testing.assert_array_equal(block.targets, targets)
    for array in (block.X, block.targets):
        assert array.flags.carray


@given(events(), st.integers(0, 2))
def test_added_classes_do_not_change_the_content(event: tuple, added: int) -> None:
    """Labels without weight on classes that were added are the same; any other byte makes another content."""
    X, targets, kind, K, weights = event
    wider = targets if kind == Targets.INDEX else np.pad(targets, [(0, 0), (0, added)])
    payload, later = encode_rows(*event), encode_rows(X, wider, kind, K + added, weights)
    assert has_same_content(payload, later)
    assert has_same_content(later, payload)
    size = parse_layout(later).target_bytes
    for at in (3, 8, HEAD.size, len(later) - size, len(later) - 1):
        altered = bytearray(later)
        altered[at] ^= 1
        assert not has_same_content(payload, bytes(altered))
        assert not has_same_content(bytes(altered), payload)


@given(st.lists(events(), max_size=6), st.integers(1, 3))
def test_many_are_decoded_as_one_by_one(given_events: list, times: int) -> None:
    """Blocks have the same rows in the same order; neighbors of one layout share a block."""
    payloads = [encode_rows(*event) for event in given_events for _ in range(times)]
    blocks = decode_events(payloads)
    singles = [decode_rows(payload) for payload in payloads]
    for part in ("X", "targets", "weights"):
        assert joined(blocks, part) == joined(singles, part)
    assert sum(block.events for block in blocks) == len(payloads)
    layouts = [block.layout for block in singles]
    assert len(blocks) == sum(first != second for first, second in zip([None, *layouts], layouts, strict=False))


def joined(blocks: list[Block], part: str) -> bytes:
    return b"".join(bits(getattr(block, part)) or b"" for block in blocks)


@given(st.binary(max_size=100), st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error(first: bytes, rest: bytes) -> None:
    """Any bytes raise PayloadError or decode, alone and among others."""
    good = encode_rows(np.zeros((1, 2), "f4"), np.array([1]), Targets.INDEX, 3)
    for payload in (first, good[:2] + first, good[:12] + rest, good[: HEAD.size] + rest):
        for payloads in ([payload], [good, payload], [payload, good]):
            try:
                decode_events(payloads)
            except PayloadError:
                continue
            assert len(payload) == len(encode_rows(*parts(decode_rows(payload))))


def parts(block: Block) -> tuple:
    return block.X, block.targets, block.layout.targets, block.layout.n_classes, block.weights


@pytest.mark.parametrize("flip", range(12))
def test_a_head_that_asks_for_more_is_refused(flip: int) -> None:
    """Sizes whose product exceeds the memory are compared with the length, not allocated."""
    payload = bytearray(encode_rows(np.zeros((1, 2), "f4"), np.array([1]), Targets.INDEX, 3))
    payload[4 + flip] ^= 0x80
    if flip < 8:
        with pytest.raises(PayloadError):
            decode_rows(bytes(payload))
    else:
        assert decode_rows(bytes(payload)).layout.n_classes > 3


@pytest.mark.parametrize(
    "change",
    [
        {"X": np.zeros((1, 2), "f2")},
        {"X": np.zeros(2, "f4")},
        {"X": np.zeros((0, 2), "f4"), "targets": np.zeros(0, "i4")},
        {"X": np.zeros((1, 0), "f4")},
        {"targets": np.array([3])},
        {"targets": np.array([-1])},
        {"targets": np.array([2**32])},
        {"targets": np.array([1.0])},
        {"targets": np.array([1, 1])},
        {"targets": np.zeros((1, 3)), "kind": Targets.INDEX},
        {"targets": np.zeros((1, 2), "f4"), "kind": Targets.DISTRIBUTION},
        {"targets": np.array([[0, 1, 2]]), "kind": Targets.SET},
        {"targets": np.array([[0, 1, -1]]), "kind": Targets.SET},
        {"weights": np.zeros(2, "f4")},
        {"n_classes": 0},
    ],
)
def test_invalid_feedback_is_not_encoded(change: dict) -> None:
    event = {"X": np.zeros((1, 2), "f4"), "targets": np.array([1]), "kind": Targets.INDEX, "n_classes": 3}
    encode_rows(**event)
    with pytest.raises(PayloadError):
        encode_rows(**{**event, **change})


def test_the_bytes_stand_as_the_table_says() -> None:
    """A payload has exactly these bytes."""
    expected = bytes.fromhex(
        "01 00 00 01 02000000 01000000 03000000 0000803f 00000040 0000003f 0000003f 02000000 00000000"
    )
    X, weights = np.array([[1], [2]], "f4"), np.array([0.5, 0.5], "f4")
    assert encode_rows(X, np.array([2, 0]), Targets.INDEX, 3, weights) == expected
