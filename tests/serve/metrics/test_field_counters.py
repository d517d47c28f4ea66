"""Counters of fields: each worker counts, and the sums are by field."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import FIELD_ROWS, SharedMemory
from service.serve.metrics.field_counters import FIELDS_OF_A_ROW, FieldCounters, FieldKey, sum_field_counters

F = 2 * FIELDS_OF_A_ROW + 3
KEY = FieldKey("claims", 1, tuple(f"field {number}" for number in range(F)))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, F - 1), st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_sums_are_those_of_plain_arrays(counts: list[tuple[int, int, int, int]]) -> None:
    """Over two workers, for fields in three rows."""
    memory = SharedMemory(2, 1)
    workers = [FieldCounters(memory, slot, KEY) for slot in range(2)]
    expected = np.zeros((F, 2), np.int64)
    for slot, field, missing, unknown in counts:
        both = np.zeros((2, F), np.int64)
        both[:, field] = missing, unknown
        workers[slot].add(*both)
        expected[field] += both[:, field]
    assert sum_field_counters(memory, KEY) == [tuple(pair) for pair in expected.tolist()]


def test_other_fields_have_rows_of_their_own() -> None:
    """A version whose fields are others does not count in the same cells; a successor of the worker counts on."""
    memory = SharedMemory(1, 1)
    ones = np.ones(F, np.int64)
    FieldCounters(memory, 0, KEY).add(ones, 0 * ones)
    FieldCounters(memory, 0, KEY).add(ones, ones)
    other = KEY._replace(fields=KEY.fields[::-1])
    assert sum_field_counters(memory, KEY) == [(2, 1)] * F
    assert sum_field_counters(memory, other) == [(0, 0)] * F


def test_without_room_nothing_is_counted() -> None:
    """The number of rows is fixed; what does not fit counts 0."""
    memory, ones = SharedMemory(1, 1), np.ones(1, np.int64)
    for version in range(FIELD_ROWS):
        FieldCounters(memory, 0, FieldKey("claims", version, ("age",)))
    late = FieldKey("claims", FIELD_ROWS, ("age",))
    FieldCounters(memory, 0, late).add(ones, ones)
    assert sum_field_counters(memory, late) == [(0, 0)]
