"""Feedback events with dense or sparse rows, of any layout, and how they are encoded."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.softmax.sparse_rows import SparseRows
from service.store.log.feedback_payload import Layout, Targets, encode_rows, encode_sparse_rows


class RowEvent(NamedTuple):
    """The rows, targets and weights of an event."""

    layout: Layout
    rows: Any
    targets: np.ndarray
    weights: np.ndarray | None

    def encode(self) -> bytes:
        """The payload of the event."""
        _, kind, _, _, N, K, _ = self.layout
        if isinstance(self.rows, SparseRows):
            return encode_sparse_rows(self.rows, N, self.targets, kind, K, self.weights)
        return encode_rows(self.rows, self.targets, kind, K, self.weights)


@st.composite
def layouts(draw: st.DrawFn, *, is_sparse: bool | None = None) -> Layout:
    """Return a layout of few rows, of one format or of any."""
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8"])))
    kind, weighted = draw(st.sampled_from(list(Targets))), draw(st.booleans())
    B, N, K = (draw(st.integers(1, most)) for most in (3, 6, 3))
    return Layout(dtype, kind, weighted, B, N, K, draw(st.booleans()) if is_sparse is None else is_sparse)


@st.composite
def sparse_rows(draw: st.DrawFn, rows: int, n_columns: int, dtype: np.dtype) -> SparseRows:
    """Return rows of which each has any of the columns, or none."""
    each = [sorted(draw(st.sets(st.integers(0, n_columns - 1)))) for _ in range(rows)]
    columns = np.array([column for row in each for column in row], np.int32)
    values = draw(arrays.arrays(dtype, (len(columns),)))
    return SparseRows(np.cumsum([len(row) for row in each]), columns, values)


@st.composite
def events_of(draw: st.DrawFn, layout: Layout) -> RowEvent:
    """Return an event of a layout."""
    dtype, kind, weighted, B, N, K, is_sparse = layout
    targets = {
        Targets.INDEX: arrays.arrays("i8", (B,), elements=st.integers(0, K - 1)),
        Targets.DISTRIBUTION: arrays.arrays(dtype, (B, K)),
        Targets.SET: arrays.arrays("?", (B, K)),
    }[kind]
    rows = draw(sparse_rows(B, N, dtype) if is_sparse else arrays.arrays(dtype, (B, N)))
    return RowEvent(layout, rows, draw(targets), draw(arrays.arrays(dtype, (B,))) if weighted else None)


def row_events(*, is_sparse: bool | None = None) -> st.SearchStrategy[RowEvent]:
    """Return events of any layout."""
    return layouts(is_sparse=is_sparse).flatmap(events_of)


def runs_of_events() -> st.SearchStrategy[list[RowEvent]]:
    """Return events in runs of one layout, of both formats."""
    runs = layouts().flatmap(lambda layout: st.lists(events_of(layout), min_size=1, max_size=4))
    return st.lists(runs, max_size=4).map(lambda parts: [event for part in parts for event in part])


def bits_of(rows: Any, *others: np.ndarray | None) -> list[bytes | None]:
    """Return the bytes of dense or sparse rows, and of other arrays."""
    parts = rows if isinstance(rows, SparseRows) else (rows,)
    return [None if part is None else part.tobytes() for part in (*parts, *others)]
