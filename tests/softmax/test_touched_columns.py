"""The bits of touched columns, against a set."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.softmax.touched_columns import TouchedColumns, are_columns


@given(st.data(), st.integers(1, 40))
def test_bits_are_a_set_of_columns(data: st.DataObject, N: int) -> None:
    """Columns are noted as changed and as touched, and only the changes are cleared."""
    touched, ever, changed = TouchedColumns(N), set[int](), set[int]()
    for _ in range(data.draw(st.integers(0, 4))):
        added = data.draw(st.sets(st.integers(0, N - 1)))
        touched.add(np.array(sorted(added), np.int32))
        ever |= added
        changed |= added
        if data.draw(st.booleans()):
            name = data.draw(st.text())
            touched.clear_changes(name)
            assert touched.saved_as == name
            changed = set()
        if data.draw(st.booleans()):
            touched.set_all_changed()
            changed = set(range(N))
        assert touched.changed().tolist() == sorted(changed)
        assert touched.ever().tolist() == sorted(ever)
        assert touched.count_rows() == 1 + len(ever)
        assert touched.changed().dtype == np.int32


def test_columns_are_checked() -> None:
    """Columns are int32 numbers in range that ascend."""
    assert are_columns(np.array([0, 2, 4], np.int32), 5)
    assert are_columns(np.zeros(0, np.int32), 5)
    for bad in ([0, 0], [1, 0], [-1], [5], [[1]]):
        assert not are_columns(np.array(bad, np.int32), 5)
    assert not are_columns(np.array([1]), 5)
