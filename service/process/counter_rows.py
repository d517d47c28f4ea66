"""Counters per model version and per route in shared memory, in rows of the slot of each worker.

    row   the name, "model/version" or "/route", as UTF-8, padded with zeros to KEY_CELLS cells; then COUNTERS cells

A slot's rows are filled from the first one on, each by the slot's own worker, and are never freed. FIELD_ROWS rows for
fields follow them (serve/metrics/field_counters.py), with names of their own.
"""

from collections.abc import Iterator
from typing import Final

from service.process.shared_memory import FIELD_ROWS, KEY_CELLS, ROW_CELLS, ROWS_START, SharedMemory

KEY_BYTES: Final = KEY_CELLS * 8
OTHER: Final = b"other".ljust(KEY_BYTES, b"\0")


def counter_row(memory: SharedMemory, slot: int, name: str) -> int:
    """Find or make the row of a name; only the slot's own worker may call this.

    Returns:
        The index of the row's first counter in `memory.cells`.
    """
    key = name.encode().ljust(KEY_BYTES, b"\0")
    for number in range(memory.rows):
        start = _row_start(memory, slot, number)
        if number == memory.rows - 1:
            key = OTHER
        stored = memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES]
        if stored == key:
            return start + KEY_CELLS
        if not stored.rstrip(b"\0"):
            memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES] = key
            return start + KEY_CELLS
    raise AssertionError("the last row counts every name")


def field_row(memory: SharedMemory, slot: int, name: str) -> int | None:
    """Find or make the row for fields of a name; only the slot's own worker may call this.

    Returns:
        The index of the row's first counter in `memory.cells`, or None if there is no room.
    """
    key = name.encode().ljust(KEY_BYTES, b"\0")
    for number in range(memory.rows, memory.rows + FIELD_ROWS):
        start = _row_start(memory, slot, number)
        stored = memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES]
        if not stored[0]:
            memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES] = stored = key
        if stored == key:
            return start + KEY_CELLS
    return None


def counter_rows(memory: SharedMemory) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and the counters of each row of each slot; a name comes once for every slot that counts it."""
    for slot in range(memory.slots):
        for number in range(memory.rows):
            start = _row_start(memory, slot, number)
            name = memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES].rstrip(b"\0")
            if not name:
                break
            yield name.decode(), memory.cells[start + KEY_CELLS : start + ROW_CELLS].tolist()


def named_counter_rows(memory: SharedMemory, name: str) -> Iterator[list[int]]:
    """Yield the counters of a name, of each slot that counts it."""
    return _named_rows(memory, name, range(memory.rows))


def named_field_rows(memory: SharedMemory, name: str) -> Iterator[list[int]]:
    """Yield the counters of fields of a name, of each slot that counts it."""
    return _named_rows(memory, name, range(memory.rows, memory.rows + FIELD_ROWS))


def _named_rows(memory: SharedMemory, name: str, numbers: range) -> Iterator[list[int]]:
    key = name.encode().ljust(KEY_BYTES, b"\0")
    for slot in range(memory.slots):
        for number in numbers:
            start = _row_start(memory, slot, number)
            stored = memory.raw_bytes[start * 8 : start * 8 + KEY_BYTES]
            if stored == key:
                yield memory.cells[start + KEY_CELLS : start + ROW_CELLS].tolist()
            if stored == key or not stored[0]:
                break


def _row_start(memory: SharedMemory, slot: int, number: int) -> int:
    return memory.slot(slot) + ROWS_START + number * ROW_CELLS
