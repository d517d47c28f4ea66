"""What the processes of one service share: a board of 64-bit cells in anonymous memory, made before the first fork.

Every cell but FAULTS has one writer. The parent writes the head, the two pages of orders and each slot's PID (0: nobody
lives in it) and HANDLED, and clears READY and ACKNOWLEDGED of the dead; each worker writes the rest of its slot.
Readers need no lock, because an aligned 64-bit cell is read and written whole. A worker that is killed leaves its slot
as it was, and its successor counts on, so no count is lost while the parent lives.

    head    DRAINING, GENERATION, FAULTS, then the lengths of the two pages
    orders  two pages of text; the page GENERATION % 2 is in force, the other one is written before GENERATION grows
    slot 0  PID, READY, ACKNOWLEDGED, HANDLED, CONNECTIONS, IN_FLIGHT, BODY_BYTES, COMMITS, COMMIT_NANOSECONDS, then
            one cell for each HTTP status
            rows: the name of what is counted (KEY_CELLS cells of UTF-8 text), then COUNTERS cells
    slot 1  …
    last    the learner's slot, of the same form: PID, then FOLD_STREAM, FOLD_SEQ, FOLD_EVENTS, and from SUSPECTS on the
            rows of learn/failure_tracker.py
"""

import mmap
from collections.abc import Iterator
from typing import Final

DRAINING, GENERATION, FAULTS, PAGE_LENGTHS, HEAD_CELLS = 0, 1, 2, 3, 5
# Orders name unloaded models: 256 of them with names of 64 characters fit four times over.
PAGE_BYTES: Final = 1 << 16
PID, READY, ACKNOWLEDGED, HANDLED, CONNECTIONS, IN_FLIGHT, BODY_BYTES, COMMITS, COMMIT_NANOSECONDS, STATUSES = range(10)
# What the learner is folding at this moment, and what it has failed at; they outlive its process.
FOLD_STREAM, FOLD_SEQ, FOLD_EVENTS, SUSPECTS = range(1, 5)
SUSPECTS_MAX: Final = 64
STATUS_MAX: Final = 600
ROWS_START: Final = STATUSES + STATUS_MAX
KEY_CELLS: Final = 12  # a name of 64 bytes, a slash and a version of 18 digits
KEY_BYTES: Final = KEY_CELLS * 8
COUNTERS: Final = 32
ROW_CELLS: Final = KEY_CELLS + COUNTERS


class Cell:
    """One cell of the board's head, as a number that every process sees. Several may write it; each writes it whole."""

    def __init__(self, cells: memoryview, at: int) -> None:
        self._cells = cells
        self._at = at

    def get(self) -> int:
        """The number now."""
        value: int = self._cells[self._at]
        return value

    def set(self, value: int) -> None:
        """Put another number in its place."""
        self._cells[self._at] = value


class SharedMemory:
    """The shared cells of a service with some workers and a learner, each with `rows` counted names.

    Args:
        workers: Number of workers; slot numbers below it are theirs, and it is the number of the learner's slot.
        rows: Names that each slot can count; what comes after them is counted in the last row, named "other".
    """

    def __init__(self, workers: int, rows: int) -> None:
        self.workers = workers
        self.slots = workers + 1
        self.rows = rows
        self._slot_cells = ROWS_START + rows * ROW_CELLS
        self._pages_at = HEAD_CELLS * 8
        self._slots_at = HEAD_CELLS + 2 * PAGE_BYTES // 8
        self._memory = mmap.mmap(-1, 8 * (self._slots_at + self.slots * self._slot_cells))
        self.cells = memoryview(self._memory).cast("B").cast("q")

    @property
    def faults(self) -> Cell:
        """How often the disk has failed one of the processes that share the log."""
        return Cell(self.cells, FAULTS)

    def slot(self, number: int) -> int:
        """Index of the first cell of a slot."""
        return self._slots_at + number * self._slot_cells

    def row(self, slot: int, name: str) -> int:
        """Index of the first counter of `name` in a slot, which only the slot's own worker asks for."""
        key = name.encode().ljust(KEY_BYTES, b"\0")
        for number in range(self.rows):
            at = self.slot(slot) + ROWS_START + number * ROW_CELLS
            if number == self.rows - 1:
                key = b"other".ljust(KEY_BYTES, b"\0")
            held = self._memory[at * 8 : at * 8 + KEY_BYTES]
            if held == key:
                return at + KEY_CELLS
            if not held.rstrip(b"\0"):
                self._memory[at * 8 : at * 8 + KEY_BYTES] = key
                return at + KEY_CELLS
        raise AssertionError("the last row takes every name")

    def counted(self) -> Iterator[tuple[str, list[int]]]:
        """Each row of each slot: its name and its counters. A name stands once for every slot that counts it."""
        for slot in range(self.slots):
            for number in range(self.rows):
                at = self.slot(slot) + ROWS_START + number * ROW_CELLS
                name = self._memory[at * 8 : at * 8 + KEY_BYTES].rstrip(b"\0")
                if not name:
                    break
                yield name.decode(), self.cells[at + KEY_CELLS : at + ROW_CELLS].tolist()

    def total(self, cell: int) -> int:
        """The sum of one of the slots' cells over all workers."""
        return sum(self.cells[self.slot(slot) + cell] for slot in range(self.workers))

    @property
    def draining(self) -> bool:
        """Whether the service is about to stop and takes no new clients."""
        return bool(self.cells[DRAINING])

    @property
    def generation(self) -> int:
        """The number of the orders in force."""
        return self.cells[GENERATION]

    def give_orders(self, text: bytes) -> int:
        """Put new orders in force and return their number; the parent alone calls this."""
        if len(text) > PAGE_BYTES:
            raise ValueError(f"orders may have {PAGE_BYTES} bytes")
        following = self.generation + 1
        start = self._pages_at + (following % 2) * PAGE_BYTES
        self._memory[start : start + len(text)] = text
        self.cells[PAGE_LENGTHS + following % 2] = len(text)
        self.cells[GENERATION] = following
        return following

    def orders(self) -> tuple[int, bytes]:
        """The number and the text of the orders in force."""
        while True:
            number = self.generation
            start = self._pages_at + (number % 2) * PAGE_BYTES
            text = self._memory[start : start + self.cells[PAGE_LENGTHS + number % 2]]
            # The page may be written again once newer orders are in force, and then the copy may be a mixture.
            if self.generation == number:
                return number, text

    def acknowledged(self, number: int) -> bool:
        """Whether every worker that lives has carried out the orders of that number.

        One that is starting counts too: it has looked at the orders before it answers its first request.
        """
        slots = map(self.slot, range(self.workers))
        return all(self.cells[at + ACKNOWLEDGED] >= number for at in slots if self.cells[at + PID])
