"""Shared memory: the parts of its layout do not overlap."""

from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import CODES_MAX, PID, REFUSALS, ROWS_START, STATUS_MAX, STATUSES, SharedMemory


@given(st.integers(1, 4), st.integers(1, 5))
def test_slots_share_no_cell(workers: int, rows: int) -> None:
    """A value written to any cell of one slot appears in no other slot."""
    memory = SharedMemory(workers, rows)
    size = memory.slot(1) - memory.slot(0)
    for slot in range(workers):
        for cell in range(size):
            assert memory.cells[memory.slot(slot) + cell] == 0
            memory.cells[memory.slot(slot) + cell] = slot + 1
    sums = [memory.sum_over_workers(cell) for cell in (PID, STATUSES, size - 1)]
    assert sums == [workers * (workers + 1) // 2] * 3
    assert memory.generation == 0
    assert not any(memory.learner_cells)
    assert len(memory.learner_cells) == size


def test_statuses_codes_and_rows_share_no_cell() -> None:
    """The cell of the largest HTTP status lies before that of the first error code, and all lie before the rows."""
    assert STATUSES + STATUS_MAX - 1 < REFUSALS
    assert REFUSALS + CODES_MAX - 1 < ROWS_START
