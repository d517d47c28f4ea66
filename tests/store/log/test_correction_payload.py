"""Correction payloads give an event other labels; any bytes parse to a correction or raise PayloadError."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import PayloadError
from service.store.log.correction_payload import HEAD, correct_payload, encode_correction, parse_correction
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout

X = np.array([[1, 2], [3, 4]], "f4")
EVENT = encode_rows(X, np.array([2, 0]), Targets.INDEX, 3)
LAYOUT = parse_layout(EVENT)
GOLDEN = {
    Targets.INDEX: (
        np.array([1, 2]),
        "01 00 00 00 02000000 03000000 0500000000000000 01000000 02000000",
    ),
    Targets.DISTRIBUTION: (
        np.array([[0.5, 0.5, 0], [0, 0, 1]]),
        "01 00 01 00 02000000 03000000 0500000000000000 0000003f 0000003f 00000000 00000000 00000000 0000803f",
    ),
    Targets.SET: (np.array([[1, 1, 0], [0, 0, 1]]), "01 00 02 00 02000000 03000000 0500000000000000 010100 000001"),
}


@st.composite
def labels(draw: st.DrawFn, dtype: np.dtype, rows: int, classes: int) -> tuple[Targets, np.ndarray]:
    """Return targets of any kind."""
    kind = draw(st.sampled_from(list(Targets)))
    strategy = {
        Targets.INDEX: arrays.arrays("i8", (rows,), elements=st.integers(0, classes - 1)),
        Targets.DISTRIBUTION: arrays.arrays(dtype, (rows, classes)),
        Targets.SET: arrays.arrays("?", (rows, classes)),
    }[kind]
    return kind, draw(strategy)


@pytest.mark.parametrize("kind", list(Targets))
def test_the_bytes_stand_as_the_table_says(kind: Targets) -> None:
    """A payload has exactly these bytes, and parses to its parts."""
    targets, expected = GOLDEN[kind]
    payload = encode_correction(5, LAYOUT, kind, targets)
    assert payload == bytes.fromhex(expected)
    seq, layout, stored = parse_correction(payload)
    assert (seq, layout.dtype, layout.targets, layout.rows, layout.n_classes) == (5, np.dtype("f4"), kind, 2, 3)
    assert stored == payload[HEAD.size :]


@given(st.data())
def test_a_corrected_event_is_the_event_posted_with_these_labels(data: st.DataObject) -> None:
    """The payload has the bytes that the same rows and weights have with the new labels, of any kind."""
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    B, features, K = (data.draw(st.integers(1, 3)) for _ in range(3))
    rows = data.draw(arrays.arrays(dtype, (B, features)))
    weights = data.draw(st.none() | arrays.arrays(dtype, (B,)))
    (old_kind, old), (new_kind, new) = (data.draw(labels(dtype, B, K)) for _ in range(2))
    event = encode_rows(rows, old, old_kind, K, weights)
    correction = encode_correction(9, parse_layout(event), new_kind, new)
    assert correct_payload(event, correction) == encode_rows(rows, new, new_kind, K, weights)


@pytest.mark.parametrize(
    "other",
    [
        encode_rows(X.astype("f8"), np.array([2, 0]), Targets.INDEX, 3),
        encode_rows(X[:1], np.array([2]), Targets.INDEX, 3),
        encode_rows(X, np.array([2, 0]), Targets.INDEX, 4),
        b"no rows",
        EVENT[:-1],
    ],
)
def test_a_correction_of_other_rows_changes_nothing(other: bytes) -> None:
    """Another dtype, number of rows or of classes, and bytes that are no feedback, stay as they are."""
    correction = encode_correction(5, LAYOUT, Targets.INDEX, np.array([1, 1]))
    assert correct_payload(EVENT, correction) != EVENT
    assert correct_payload(other, correction) == other


@given(st.binary(max_size=60), st.binary(max_size=40), st.integers(0, 11), st.integers(1, 255))
def test_any_bytes_are_a_correction_or_an_error(first: bytes, rest: bytes, at: int, flip: int) -> None:
    """Any bytes raise PayloadError or parse, and an event that they are applied to still has its rows."""
    good = encode_correction(5, LAYOUT, Targets.INDEX, np.array([1, 1]))
    changed = bytearray(good)
    changed[at] ^= flip
    for payload in (first, good[:3] + first, good[:12] + rest, good[: HEAD.size] + rest, bytes(changed)):
        with suppress(PayloadError):
            assert parse_correction(payload).seq > 0
        assert decode_rows(correct_payload(EVENT, payload)).X.tobytes() == X.tobytes()


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        (Targets.INDEX, np.array([3, 0])),
        (Targets.INDEX, np.array([-1, 0])),
        (Targets.INDEX, np.array([1])),
        (Targets.INDEX, np.array([1.0, 0.0])),
        (Targets.DISTRIBUTION, np.array([[0.5, 0.5], [1, 0]])),
        (Targets.SET, np.array([[0, 1, 2], [0, 0, 0]])),
    ],
)
def test_labels_that_do_not_fit_are_not_encoded(kind: Targets, targets: np.ndarray) -> None:
    with pytest.raises(PayloadError):
        encode_correction(5, LAYOUT, kind, targets)


def test_a_head_that_asks_for_more_is_refused() -> None:
    """Sizes whose product exceeds the memory are compared with the length, not allocated."""
    payload = HEAD.pack(1, 1, Targets.DISTRIBUTION, 0, (1 << 32) - 1, (1 << 32) - 1, 5)
    with pytest.raises(PayloadError):
        parse_correction(payload + bytes(64))
