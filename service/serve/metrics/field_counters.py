"""Counters of missing and unknown values by field, in rows of shared memory of their own (process/counter_rows.py).

    name of a row   "model/version/fields/number": eight hexadecimal digits of the hash of the fields' names, so that
                    another list of fields never counts in the same row, and the number of the row from 0
    its cells       for each of FIELDS_OF_A_ROW fields, the missing and then the unknown values

A worker counts the rows of each request that it accepts, once: also if they wait for a seq, and are then encoded again.
"""

import hashlib
from typing import Final, NamedTuple

import numpy as np

from service.process.counter_rows import field_row, named_field_rows
from service.process.shared_memory import COUNTERS, SharedMemory
from service.softmax.arrays import Integers

# Counters of one field: missing and unknown values.
COUNTERS_OF_A_FIELD: Final = 2
FIELDS_OF_A_ROW: Final = COUNTERS // COUNTERS_OF_A_FIELD


class FieldKey(NamedTuple):
    """The model version whose fields are counted, and the names of the fields."""

    name: str
    version: int
    fields: tuple[str, ...]

    def row_names(self) -> list[str]:
        """Return the name of each row of counters."""
        digest = hashlib.sha256("\0".join(self.fields).encode()).hexdigest()[:8]
        rows = -(-len(self.fields) // FIELDS_OF_A_ROW)
        return [f"{self.name}/{self.version}/{digest}/{number}" for number in range(rows)]


class FieldCounters:
    """The counters of one worker for the fields of a model version.

    Args:
        memory: The shared memory.
        slot: The worker's slot.
        key: The model version and its fields.
    """

    def __init__(self, memory: SharedMemory, slot: int, key: FieldKey) -> None:
        starts = [field_row(memory, slot, name) for name in key.row_names()]
        # Fields of a model for which there is no room are not counted.
        self._rows: Final = [None if start is None else memory.cells[start : start + COUNTERS] for start in starts]

    def add(self, missing: Integers, unknown: Integers) -> None:
        """Count values; both arrays (F,) have the number of each field."""
        for f in np.flatnonzero(missing | unknown).tolist():
            number, place = divmod(f, FIELDS_OF_A_ROW)
            row, cell = self._rows[number], COUNTERS_OF_A_FIELD * place
            if row is not None:
                row[cell] += int(missing[f])
                row[cell + 1] += int(unknown[f])


def sum_field_counters(memory: SharedMemory, key: FieldKey) -> list[tuple[int, int]]:
    """Return the missing and the unknown values of each field, summed over all workers."""
    cells: list[int] = []
    for name in key.row_names():
        rows = [[0] * COUNTERS, *named_field_rows(memory, name)]
        cells += [sum(column) for column in zip(*rows, strict=True)][: FIELDS_OF_A_ROW * COUNTERS_OF_A_FIELD]
    return list(zip(cells[::2], cells[1::2], strict=True))[: len(key.fields)]
