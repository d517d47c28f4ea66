"""Feedback payloads of both formats decode to what was encoded, and have exactly the bytes of their table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PayloadError
from service.softmax.sparse_rows import SparseRows
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_payload import (
    HEAD,
    Targets,
    encode_rows,
    encode_sparse_rows,
    has_same_content,
    parse_layout,
    replace_targets,
)
from tests.support.row_events import RowEvent, bits_of, row_events


def sparse(ends: list[int], columns: list[int], values: list[float], dtype: str = "f4") -> SparseRows:
    return SparseRows(np.array(ends, np.int64), np.array(columns, np.int32), np.array(values, dtype))


DENSE = encode_rows(np.zeros((1, 2), "f4"), np.array([1]), Targets.INDEX, 3)
SPARSE = encode_sparse_rows(sparse([2], [0, 1], [0, 0]), 2, np.array([1]), Targets.INDEX, 3)


@given(row_events())
def test_encoded_rows_are_decoded(event: RowEvent) -> None:
    """Decoded arrays are equal bit for bit, not shared, aligned and contiguous."""
    payload = event.encode()
    block = decode_rows(payload)
    assert block.layout == parse_layout(payload) == event.layout
    assert block.events == 1
    assert bits_of(block.rows, block.weights) == bits_of(event.rows, event.weights)
    np.testing.assert_array_equal(block.targets, event.targets)
    for array in (*(block.rows if isinstance(block.rows, SparseRows) else [block.rows]), block.targets):
        assert array.flags.carray
        assert array.dtype.isnative


@given(row_events(), st.integers(0, 2))
def test_added_classes_do_not_change_the_content(event: RowEvent, added: int) -> None:
    """Labels without weight on classes that were added are the same; any other byte makes another content."""
    layout, _, targets, _ = event
    wider = targets if layout.targets == Targets.INDEX else np.pad(targets, [(0, 0), (0, added)])
    more = event._replace(layout=layout._replace(n_classes=layout.n_classes + added), targets=wider)
    payload, later = event.encode(), more.encode()
    assert has_same_content(payload, later)
    assert has_same_content(later, payload)
    size = parse_layout(later).target_bytes
    for at in (0, 3, 8, HEAD.size, len(later) - size - 1, len(later) - size, len(later) - 1):
        altered = bytearray(later)
        altered[at] ^= 1
        assert not has_same_content(payload, bytes(altered))
        assert not has_same_content(bytes(altered), payload)


@given(row_events(), st.data())
def test_targets_are_replaced(event: RowEvent, data: st.DataObject) -> None:
    """The payload has the bytes that it had if it were posted with the other targets, of any kind."""
    B, K = event.layout.rows, event.layout.n_classes
    kind = data.draw(st.sampled_from(list(Targets)))
    layout = event.layout._replace(targets=kind)
    targets = np.zeros(layout.target_shape, layout.target_dtype)
    if kind != Targets.INDEX:
        targets[:, data.draw(st.integers(0, K - 1))] = 1
    expected = event._replace(layout=layout, targets=targets).encode()
    assert replace_targets(event.encode(), kind, targets.tobytes()) == expected
    with pytest.raises(PayloadError):
        replace_targets(event.encode(), kind, targets.tobytes() + bytes(B))


@pytest.mark.parametrize("flip", range(12))
def test_a_head_that_asks_for_more_is_refused(flip: int) -> None:
    """Sizes whose product exceeds the memory are compared with the length, not allocated."""
    payload = bytearray(DENSE)
    payload[4 + flip] ^= 0x80
    if flip < 8:
        with pytest.raises(PayloadError):
            decode_rows(bytes(payload))
    else:
        assert decode_rows(bytes(payload)).layout.n_classes > 3


@pytest.mark.parametrize("flip", range(20))
def test_a_head_that_asks_for_more_entries_is_refused(flip: int) -> None:
    """The same in format 2, whose length does not depend on the number of columns; there may be more of these too."""
    payload = bytearray(SPARSE)
    payload[4 + flip] ^= 0x80
    if flip in range(4, 12):
        assert decode_rows(bytes(payload)).layout[4:6] > (2, 3) or flip >= 8
    else:
        with pytest.raises(PayloadError):
            decode_rows(bytes(payload))


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


ROW = sparse([2], [0, 2], [1, 2])
INVALID_ROWS = {
    "no row": (sparse([], [], []), np.zeros(0, "i4")),
    "an end before the last": (sparse([1], [0, 2], [1, 2]), np.array([1])),
    "an end after the last": (sparse([3], [0, 2], [1, 2]), np.array([1])),
    "ends that descend": (sparse([2, 1, 2], [0, 2], [1, 2]), np.array([1, 1, 1])),
    "an end below 0": (sparse([-1, 2], [0, 2], [1, 2]), np.array([1, 1])),
    "columns that descend": (sparse([2], [2, 0], [1, 2]), np.array([1])),
    "a column that is there twice": (sparse([2], [2, 2], [1, 2]), np.array([1])),
    "a column that is out of range": (sparse([2], [0, 3], [1, 2]), np.array([1])),
    "a column below 0": (sparse([2], [-1, 2], [1, 2]), np.array([1])),
    "half-precision values": (sparse([2], [0, 2], [1, 2], "f2"), np.array([1])),
    "a value that is missing": (ROW._replace(values=ROW.values[:1]), np.array([1])),
    "long columns": (ROW._replace(columns=ROW.columns.astype("i8")), np.array([1])),
    "short ends": (ROW._replace(ends=ROW.ends.astype("i4")), np.array([1])),
    "a matrix of values": (ROW._replace(values=ROW.values[None], columns=ROW.columns[None]), np.array([1])),
    "values with gaps": (ROW._replace(values=np.zeros(4, "f4")[::2]), np.array([1])),
    "a label that is no class": (ROW, np.array([3])),
}


@pytest.mark.parametrize(("rows", "targets"), INVALID_ROWS.values(), ids=INVALID_ROWS)
def test_invalid_sparse_rows_are_not_encoded(rows: SparseRows, targets: np.ndarray) -> None:
    encode_sparse_rows(ROW, 3, np.array([1]), Targets.INDEX, 3)
    with pytest.raises(PayloadError):
        encode_sparse_rows(rows, 3, targets, Targets.INDEX, 3)


@pytest.mark.parametrize("n_columns", [0, 2])
def test_fewer_columns_than_the_rows_have_are_refused(n_columns: int) -> None:
    with pytest.raises(PayloadError):
        encode_sparse_rows(ROW, n_columns, np.array([1]), Targets.INDEX, 3)


def test_the_bytes_stand_as_the_table_says() -> None:
    """A payload of format 1 has exactly these bytes."""
    expected = bytes.fromhex(
        "01 00 00 01 02000000 01000000 03000000 0000803f 00000040 0000003f 0000003f 02000000 00000000"
    )
    X, weights = np.array([[1], [2]], "f4"), np.array([0.5, 0.5], "f4")
    assert encode_rows(X, np.array([2, 0]), Targets.INDEX, 3, weights) == expected


GOLDEN = {
    "three rows with weights, one of them without entries": (
        sparse([2, 2, 3], [1, 5, 0], [1, -2, 0.5]),
        (np.array([2, 0, 1]), Targets.INDEX, 3, np.array([1, 2, 0.5], "f4")),
        """02 00 00 01 03000000 07000000 03000000 03000000  02000000 02000000 03000000  01000000 05000000 00000000
        0000803f 000000c0 0000003f  0000803f 00000040 0000003f  02000000 00000000 01000000""",
    ),
    "a distribution": (
        sparse([1], [6], [1]),
        (np.array([[0.5, 0.5]], "f4"), Targets.DISTRIBUTION, 2),
        "02 00 01 00 01000000 07000000 02000000 01000000 01000000 06000000 0000803f 0000003f 0000003f",
    ),
    "a set, with values of float64": (
        sparse([1, 1], [3], [1], "f8"),
        (np.array([[1, 0, 1], [0, 0, 0]]), Targets.SET, 3),
        "02 01 02 00 02000000 07000000 03000000 01000000 01000000 01000000 03000000 000000000000f03f 010001 000000",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "rest", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_the_bytes_of_format_2_stand_as_the_table_says(rows: SparseRows, rest: tuple, expected: str) -> None:
    payload = encode_sparse_rows(rows, 7, *rest)
    assert payload == bytes.fromhex(expected)
    assert bits_of(decode_rows(payload).rows) == bits_of(rows)


def test_an_event_of_one_row_is_small() -> None:
    """One row of 30 entries takes 268 bytes: 28 and 8 for each entry."""
    row = sparse([30], list(range(30)), [1.0] * 30)
    assert len(encode_sparse_rows(row, 1 << 24, np.array([1]), Targets.INDEX, 3)) == 28 + 8 * 30
