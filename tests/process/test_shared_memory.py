"""The cells that processes share: who counts where, and orders that are whole whenever they are read."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import (
    ACKNOWLEDGED,
    COUNTERS,
    KEY_BYTES,
    PAGE_BYTES,
    PID,
    ROWS_START,
    STATUS_MAX,
    STATUSES,
    SharedMemory,
)
from tests.support.processes import SECONDS, run_fake

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789._-/", min_size=1, max_size=KEY_BYTES)


@given(st.lists(st.tuples(st.integers(0, 2), NAMES, st.integers(0, COUNTERS - 1)), max_size=60), st.integers(1, 8))
def test_every_count_stands_under_its_name(counts: list[tuple[int, str, int]], rows: int) -> None:
    """Counts of each slot and name, against a plain dictionary; what finds no row is counted as "other"."""
    board = SharedMemory(3, rows)
    expected: Counter[tuple[int, str, int]] = Counter()
    known: list[list[str]] = [[], [], []]
    for slot, name, counter in counts:
        board.cells[board.row(slot, name) + counter] += 1
        if name not in known[slot] and len(known[slot]) < rows - 1:
            known[slot].append(name)
        expected["", name if name in known[slot] else "other", counter] += 1
    found: Counter[tuple[int, str, int]] = Counter()
    for name, counters in board.counted():
        found.update({("", name, counter): count for counter, count in enumerate(counters) if count})
    assert found == expected


@given(st.integers(1, 4), st.integers(1, 5))
def test_slots_share_no_cell(slots: int, rows: int) -> None:
    """What one worker writes anywhere in its slot, no other slot shows."""
    board = SharedMemory(slots, rows)
    size = board.slot(1) - board.slot(0)
    for slot in range(slots):
        for cell in range(size):
            assert board.cells[board.slot(slot) + cell] == 0
            board.cells[board.slot(slot) + cell] = slot + 1
    assert [board.total(cell) for cell in (PID, STATUSES, size - 1)] == [slots * (slots + 1) // 2] * 3
    assert board.generation == 0


def test_statuses_and_rows_share_no_cell() -> None:
    """The largest HTTP status lies before the first row."""
    assert STATUSES + STATUS_MAX - 1 < ROWS_START


def test_a_successor_counts_on() -> None:
    """The same name in the same slot is the same row, whoever asks."""
    board = SharedMemory(1, 4)
    board.cells[board.row(0, "iris/1")] = 7
    assert board.cells[board.row(0, "iris/1")] == 7


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_the_last_orders_are_in_force(texts: list[bytes]) -> None:
    """Under rising numbers, whole, also after longer ones."""
    board = SharedMemory(1, 1)
    assert board.orders() == (0, b"")
    for number, text in enumerate(texts, 1):
        assert board.give_orders(text) == number
        assert board.orders() == (number, text)


def test_a_page_holds_its_bytes_and_not_one_more() -> None:
    """Orders that do not fit are refused, and those before stay in force."""
    board = SharedMemory(1, 1)
    board.give_orders(b"x" * PAGE_BYTES)
    board.give_orders(b"y" * PAGE_BYTES)
    with pytest.raises(ValueError, match="bytes"):
        board.give_orders(b"z" * (PAGE_BYTES + 1))
    assert board.orders() == (2, b"y" * PAGE_BYTES)
    assert not any(board.cells[board.slot(0) : board.slot(0) + STATUSES])


def test_orders_are_acknowledged_by_all_who_live() -> None:
    """A slot in which nobody lives is not waited for; a worker that has not begun to serve is."""
    board = SharedMemory(3, 1)
    number = board.give_orders(b"[]")
    assert board.acknowledged(number)
    for slot in (0, 1):
        board.cells[board.slot(slot) + PID] = 1000 + slot
    assert not board.acknowledged(number)
    for slot in (0, 1):
        assert not board.acknowledged(number)
        board.cells[board.slot(slot) + ACKNOWLEDGED] = number
    assert board.acknowledged(number)


def test_orders_are_whole_in_another_process() -> None:
    """One process writes orders as fast as it can while another reads them."""
    with run_fake("race") as program:
        assert program.wait(SECONDS) == 0
