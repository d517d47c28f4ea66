"""Counter rows: every count is found under its name."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.process.counter_rows import (
    KEY_BYTES,
    counter_row,
    counter_rows,
    field_row,
    named_counter_rows,
    named_field_rows,
)
from service.process.shared_memory import COUNTERS, FIELD_ROWS, SharedMemory

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789._-/", min_size=1, max_size=KEY_BYTES)


@given(st.lists(st.tuples(st.integers(0, 2), NAMES, st.integers(0, COUNTERS - 1)), max_size=60), st.integers(1, 8))
def test_counts_are_found_by_slot_and_name(counts: list[tuple[int, str, int]], rows: int) -> None:
    """Counts equal those of a plain dictionary; names without a row are counted as "other"."""
    memory = SharedMemory(3, rows)
    expected: Counter[tuple[str, int]] = Counter()
    known: list[list[str]] = [[], [], []]
    for slot, name, counter in counts:
        memory.cells[counter_row(memory, slot, name) + counter] += 1
        if name not in known[slot] and len(known[slot]) < rows - 1:
            known[slot].append(name)
        expected[name if name in known[slot] else "other", counter] += 1
    found: Counter[tuple[str, int]] = Counter()
    for name, counters in counter_rows(memory):
        found.update({(name, counter): count for counter, count in enumerate(counters) if count})
    assert found == expected
    for name in {name for _, name, _ in counts} | {"other", "absent"}:
        named: Counter[int] = Counter()
        for counters in named_counter_rows(memory, name):
            named.update(dict(enumerate(counters)))
        assert +named == Counter({counter: count for (one, counter), count in expected.items() if one == name})


def test_a_row_outlives_the_process_that_made_it() -> None:
    """The same name in the same slot is the same row, whichever process asks."""
    memory = SharedMemory(1, 4)
    memory.cells[counter_row(memory, 0, "iris/1")] = 7
    assert memory.cells[counter_row(memory, 0, "iris/1")] == 7


def test_rows_for_fields_are_apart() -> None:
    """A name has a row of each sort; without room there is no row, and no other name counts in its place."""
    memory = SharedMemory(1, 2)
    starts = [field_row(memory, 0, f"iris/1/{number}") for number in range(FIELD_ROWS)]
    assert None not in starts
    assert len(set(starts)) == FIELD_ROWS
    assert field_row(memory, 0, "iris/1/7") == starts[7]
    assert field_row(memory, 0, "more") is None
    memory.cells[counter_row(memory, 0, "iris/1/7")] = 1
    memory.cells[starts[7] or 0] = 2
    assert [row[0] for row in named_counter_rows(memory, "iris/1/7")] == [1]
    assert [row[0] for row in named_field_rows(memory, "iris/1/7")] == [2]
    assert [name for name, _ in counter_rows(memory)] == ["iris/1/7"]
    assert list(named_field_rows(memory, "more")) == []
