"""Decode feedback payloads of both formats in bulk: consecutive events of one layout become one block of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadError
from service.softmax.sparse_rows import SparseRows
from service.store.log.feedback_payload import (
    COLUMN_DTYPE,
    CONTRADICTED_LENGTH,
    DENSE_FORMAT,
    HEAD,
    INVALID_ENTRIES,
    PAYLOAD_BYTES_MAX,
    SPARSE_FORMAT,
    Layout,
    Numbers,
    check_targets,
    parse_layout,
)
from service.store.log.sparse_kernels import are_entries_valid, measure_run, scatter_run

# The first bytes of a payload. Slices of bytes are taken without a call of Python code.
VERSION_OF: Final = itemgetter(slice(1))
HEAD_OF: Final = itemgetter(slice(HEAD.size))
DENSE, SPARSE = bytes([DENSE_FORMAT]), bytes([SPARSE_FORMAT])
# Bytes of sparse rows that are decoded together. The allocator gives fresh pages to larger arrays, and the faults of
# these pages take twice as long as decoding: 0.5 us an event of 30 entries, instead of 0.2 us.
PART_BYTES: Final = 1 << 18


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of E events of one layout, in order, R = E·B of them.

    Attributes:
        layout: The layout of all E payloads.
        events: The number E.
        rows: The rows, of the layout's dtype: (R, N) if they are dense, C-contiguous, aligned, writable, not shared; or
            R sparse rows, valid for N columns.
        targets: (R,) int32, (R, K) of the dtype, or (R, K) uint8, as the layout's kind says; not shared.
        weights: (R,) of the dtype, or None if rows have no weights.
    """

    layout: Layout
    events: int
    rows: Numbers | SparseRows
    targets: NDArray[Any]
    weights: Numbers | None

    @property
    def X(self) -> Numbers:  # noqa: N802  # the field's name for a matrix of rows
        """The rows of a dense block, (R, N).

        Raises:
            TypeError: The rows are sparse.
        """
        if isinstance(self.rows, SparseRows):
            raise TypeError("the rows of this block are sparse")
        return self.rows

    def split(self) -> Iterator["Block"]:
        """Yield a block of each event, which shares the arrays of this one."""
        B = self.layout.rows
        for start in range(0, self.events * B, B):
            span = slice(start, start + B)
            rows = self.rows.slice_rows(start, start + B) if isinstance(self.rows, SparseRows) else self.rows[span]
            weights = None if self.weights is None else self.weights[span]
            yield Block(self.layout, 1, rows, self.targets[span], weights)


def decode_rows(payload: bytes) -> Block:
    """Return the rows of one event.

    Raises:
        PayloadError: The bytes are not a feedback payload.
    """
    return decode_events([payload])[0]


def decode_events(payloads: Sequence[bytes]) -> list[Block]:
    """Return the rows of many events: one block for each run of events with the same layout, in order.

    A long run of sparse rows makes several blocks, of PART_BYTES of payloads at most or of one event.

    Raises:
        PayloadError: The bytes of an event are not a feedback payload; `decode_rows` finds it.
    """
    if not payloads:
        return []
    if payloads[0][:1] == DENSE and len(set(map(len, payloads))) == 1:
        heads = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)[:, : HEAD.size]
        if (heads == heads[0]).all():
            return [_decode_dense(payloads)]
    blocks: list[Block] = []
    for version, run in groupby(payloads, VERSION_OF):
        if version == SPARSE:
            blocks += _decode_sparse(list(run))
        else:
            blocks += [_decode_dense(list(alike)) for _, alike in groupby(run, HEAD_OF)]
    return blocks


def _decode_dense(payloads: Sequence[bytes]) -> Block:
    """Return one block from payloads of format 1 with equal heads."""
    layout = parse_layout(payloads[0])
    if set(map(len, payloads)) != {len(payloads[0])}:
        raise PayloadError(CONTRADICTED_LENGTH)
    records = np.frombuffer(b"".join(payloads), _record(layout))
    R = len(payloads) * layout.rows
    targets = _copy_field(records["targets"], R)
    check_targets(layout, targets)
    weights = _copy_field(records["weights"], R) if layout.weighted else None
    return Block(layout, len(payloads), _copy_field(records["X"], R), targets, weights)


def _record(layout: Layout) -> np.dtype[Any]:
    """Return a payload of format 1 as a packed NumPy record with the fields head, X, weights (if any) and targets."""
    B, N = layout.rows, layout.n_features
    weights = [("weights", layout.dtype, (B,))] if layout.weighted else []
    targets = ("targets", layout.target_dtype, layout.target_shape)
    return np.dtype([("head", f"V{HEAD.size}"), ("X", layout.dtype, (B, N)), *weights, targets])


def _copy_field(field: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return an aligned copy of a record's field (E, B, …) as (E·B, …), in the machine's byte order."""
    native = field.dtype.newbyteorder("=")
    return np.array(field, native, order="C").reshape(rows, *field.shape[2:])


def _decode_sparse(payloads: Sequence[bytes]) -> list[Block]:
    """Return the blocks of payloads of format 2."""
    starts = np.zeros(len(payloads) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)), out=starts[1:])
    blocks: list[Block] = []
    first = 0
    while first < len(payloads):
        stop = max(first + 1, int(np.searchsorted(starts, starts[first] + PART_BYTES, "right")) - 1)
        blocks += _decode_part(payloads[first:stop], starts[first : stop + 1] - starts[first])
        first = stop
    return blocks


def _decode_part(payloads: Sequence[bytes], starts: NDArray[np.int64]) -> list[Block]:
    """Return one block for each run of payloads of format 2 with one layout, given where each starts among all."""
    data = np.frombuffer(bytearray().join(payloads), np.uint8)
    blocks: list[Block] = []
    first = 0
    while first < len(payloads):
        layout = parse_layout(payloads[first])
        run = measure_run(data, starts, first, layout.fixed_bytes, layout.entry_bytes, PAYLOAD_BYTES_MAX)
        blocks.append(_decode_sparse_run(data, starts, first, layout, *run))
        first += blocks[-1].events
    return blocks


def _decode_sparse_run(  # noqa: PLR0917  # the payloads, and a run of them
    data: NDArray[np.uint8], starts: NDArray[np.int64], first: int, layout: Layout, events: int, entries: int
) -> Block:
    """Return the block of a run that `measure_run` has found."""
    R, item = events * layout.rows, layout.dtype.itemsize
    ends, columns = np.empty(R, np.int64), np.empty(entries, COLUMN_DTYPE)
    values, weights = np.empty(entries, layout.dtype), np.empty(R * layout.weighted, layout.dtype)
    targets = np.empty((R, *layout.target_shape[1:]), layout.target_dtype)
    parts = (array.reshape(-1).view(np.uint8) for array in (columns, values, weights, targets))
    are_ends_valid = scatter_run(data, starts, first, events, item, ends, *parts)
    columns, values, weights, targets = map(_to_native, (columns, values, weights, targets))
    if not (are_ends_valid and are_entries_valid(ends, columns, layout.n_features)):
        raise PayloadError(INVALID_ENTRIES)
    check_targets(layout, targets)
    return Block(layout, events, SparseRows(ends, columns, values), targets, weights if layout.weighted else None)


def _to_native(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
