"""Events decode in bulk as one by one; any bytes decode to rows or raise PayloadError."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PayloadError
from service.softmax.sparse_rows import SparseRows, check_sparse_rows
from service.store.log import feedback_blocks, feedback_payload
from service.store.log.feedback_blocks import Block, decode_events, decode_rows
from service.store.log.feedback_payload import HEAD, Targets, encode_rows, encode_sparse_rows
from tests.support.row_events import RowEvent, bits_of, row_events, runs_of_events

DENSE = encode_rows(np.zeros((1, 2), "f4"), np.array([1]), Targets.INDEX, 3)
ROW = SparseRows(np.array([2]), np.array([0, 2], np.int32), np.ones(2, "f4"))
SPARSE = encode_sparse_rows(ROW, 4, np.array([1]), Targets.INDEX, 3)


def bits(block: Block) -> tuple:
    """Everything that a block has."""
    return block.layout, block.events, bits_of(block.rows, block.targets, block.weights)


@given(runs_of_events(), st.integers(1, 3))
def test_many_are_decoded_as_one_by_one(events: list[RowEvent], times: int) -> None:
    """Blocks have the same rows in the same order; neighbors of one layout share a block, whatever their entries."""
    payloads = [payload for event in events for payload in [event.encode()] * times]
    blocks = decode_events(payloads)
    singles = [decode_rows(payload) for payload in payloads]
    assert [bits(part) for block in blocks for part in block.split()] == [bits(single) for single in singles]
    layouts = [block.layout for block in singles]
    assert len(blocks) == sum(first != second for first, second in zip([None, *layouts], layouts, strict=False))
    for block in blocks:
        if isinstance(block.rows, SparseRows):
            check_sparse_rows(block.rows, block.layout.n_features)
            with pytest.raises(TypeError):
                _ = block.X
        else:
            assert block.X is block.rows


@given(st.binary(max_size=100), st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error(first: bytes, rest: bytes) -> None:
    """Any bytes raise PayloadError or decode, alone and among others; only their own encoding decodes."""
    for good in (DENSE, SPARSE):
        for payload in (first, good[:2] + first, good[:12] + rest, good[: HEAD.size] + rest, good[:20] + rest):
            for payloads in ([payload], [good, payload], [payload, good]):
                with suppress(PayloadError):
                    assert bits(decode_events(payloads)[0])
                    assert encoded(decode_rows(payload)) == payload


def encoded(block: Block) -> bytes:
    """The payload of the one event of a block."""
    targets = block.targets.astype(bool) if block.layout.targets == Targets.SET else block.targets
    return RowEvent(block.layout, block.rows, targets, block.weights).encode()


@given(row_events(is_sparse=True), st.data())
def test_altered_bytes_are_their_own_encoding_or_refused(event: RowEvent, data: st.DataObject) -> None:
    """Each byte counts: a payload with some changed bytes is refused, or decodes to what encodes to the same bytes."""
    payload = bytearray(event.encode())
    for at in data.draw(st.sets(st.integers(0, len(payload) - 1), min_size=1, max_size=3)):
        payload[at] = data.draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF]))
    with suppress(PayloadError):
        assert encoded(decode_rows(bytes(payload))) == payload


def is_refused(payload: bytes) -> bool:
    try:
        decode_rows(payload)
    except PayloadError:
        return True
    return False


@given(st.lists(st.tuples(st.integers(0, len(SPARSE) - 1), st.integers(0, 255)), max_size=4))
def test_a_run_is_refused_if_one_of_its_events_is(changes: list[tuple[int, int]]) -> None:
    """An event with a changed byte is refused among others exactly if it is refused alone."""
    payloads = [SPARSE] * 2
    for at, byte in changes:
        payloads += [SPARSE[:at] + bytes([byte]) + SPARSE[at + 1 :], SPARSE]
    if any(map(is_refused, payloads)):
        with pytest.raises(PayloadError):
            decode_events(payloads)
    else:
        assert sum(block.events for block in decode_events(payloads)) == len(payloads)


@pytest.mark.parametrize("end", [0, 1, 3])
def test_an_event_has_all_its_entries(end: int) -> None:
    """No entry belongs to the next event, though the columns would ascend there."""
    later = encode_sparse_rows(ROW._replace(columns=ROW.columns + 3), 6, np.array([1]), Targets.INDEX, 3)
    first = encode_sparse_rows(ROW, 6, np.array([1]), Targets.INDEX, 3)
    assert len(decode_events([first, later])) == 1
    with pytest.raises(PayloadError):
        decode_events([first[:20] + bytes([end]) + first[21:], later])


@pytest.mark.parametrize("size", range(len(SPARSE)))
def test_a_payload_that_ends_early_is_refused(size: int) -> None:
    """Alone and at the end of a run."""
    for payloads in ([SPARSE[:size]], [SPARSE, SPARSE[:size]], [SPARSE[:size], SPARSE]):
        with pytest.raises(PayloadError):
            decode_events(payloads)


@pytest.mark.parametrize("more", [1, 8, len(SPARSE)])
def test_a_payload_that_ends_late_is_refused(more: int) -> None:
    for payloads in ([SPARSE + bytes(more)], [SPARSE, SPARSE + bytes(more)], [SPARSE + bytes(more), SPARSE]):
        with pytest.raises(PayloadError):
            decode_events(payloads)


def test_a_payload_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and in a run, with a limit that is lowered for the test."""
    longer = encode_sparse_rows(SparseRows(np.array([4]), np.arange(4, dtype=np.int32), np.ones(4, "f4")), 4,
                                np.array([1]), Targets.INDEX, 3)  # fmt: skip
    assert len(decode_events([SPARSE, longer])) == 1
    for module in (feedback_blocks, feedback_payload):
        monkeypatch.setattr(module, "PAYLOAD_BYTES_MAX", len(SPARSE))
    assert len(decode_events([SPARSE, SPARSE])) == 1
    for payloads in ([longer], [SPARSE, longer]):
        with pytest.raises(PayloadError):
            decode_events(payloads)


@pytest.mark.parametrize("most", [1, len(SPARSE), 2 * len(SPARSE) - 1, 2 * len(SPARSE), 7 * len(SPARSE)])
def test_long_runs_are_decoded_in_parts(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Parts hold as many events as fit, at least one."""
    payloads = [encode_sparse_rows(ROW._replace(values=np.full(2, number, "f4")), 4, np.array([1]), Targets.INDEX, 3)
                for number in range(7)]  # fmt: skip
    (whole,) = decode_events(payloads)
    monkeypatch.setattr(feedback_blocks, "PART_BYTES", most)
    parts = decode_events(payloads)
    assert [bits(part) for block in parts for part in block.split()] == [bits(part) for part in whole.split()]
    assert {block.events for block in parts[:-1]} <= {max(1, most // len(SPARSE))}


def test_no_event_has_no_block() -> None:
    assert decode_events([]) == []
