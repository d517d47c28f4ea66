"""The kernels agree with NumPy, and as Python they read and write nothing out of range."""

import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.softmax.sparse_rows import SparseRows, check_sparse_rows
from service.store.log.sparse_kernels import HEAD_BYTES, are_entries_valid, measure_run
from tests.support.hostile_payloads import hash_outcomes
from tests.support.paths import ROOT

SMALL = st.integers(-2, 6)


@given(st.lists(SMALL, max_size=4), st.lists(SMALL, max_size=6), st.integers(1, 6))
def test_entries_are_valid_if_numpy_finds_no_fault(ends: list[int], columns: list[int], n_columns: int) -> None:
    rows = SparseRows(np.array(ends, np.int64), np.array(columns, np.int32), np.zeros(len(columns), np.float32))
    try:
        check_sparse_rows(rows, n_columns)
    except ValueError:
        expected = False
    else:
        expected = True
    assert are_entries_valid(rows.ends, rows.columns, n_columns) == expected


@given(st.lists(st.sets(st.integers(0, 5)), max_size=5))
def test_valid_entries_are_valid(rows: list[set[int]]) -> None:
    """Read-only arrays too."""
    ends = np.cumsum([0, *map(len, rows)])[1:]
    columns = np.array([column for row in rows for column in sorted(row)], np.int32)
    for array in (ends, columns):
        array.flags.writeable = False
    assert are_entries_valid(ends, columns, 6)
    assert are_entries_valid(ends, columns, 5) == (not any(5 in row for row in rows))


def test_a_run_ends_at_another_layout_or_length() -> None:
    """All four bytes of the number of entries count; here an entry has no bytes."""
    payloads = [bytes(16) + (0x04030201).to_bytes(4, "little")] * 2 + [bytes(15) + b"\1" + bytes(4)] * 3
    data = np.frombuffer(bytearray().join(payloads), np.uint8)
    starts = np.arange(6) * HEAD_BYTES
    assert measure_run(data, starts, 0, HEAD_BYTES, 0, 1 << 30) == (2, 2 * 0x04030201)
    assert measure_run(data, starts, 1, HEAD_BYTES, 0, 1 << 30) == (1, 0x04030201)
    assert measure_run(data, starts, 2, HEAD_BYTES, 0, 1 << 30) == (3, 0)
    assert measure_run(data, starts, 1, HEAD_BYTES, 1, 1 << 30) == (0, 0)


def test_python_reads_nothing_out_of_range() -> None:
    """Without Numba every index is checked; hostile payloads give the same blocks and errors."""
    script = "from tests.support.hostile_payloads import hash_outcomes\nprint(hash_outcomes())"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == hash_outcomes()
