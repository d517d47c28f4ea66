"""Encoded rows in a temporary file, which is mapped: the rows that are trained on need not fit into memory.

The file has blocks of BLOCK_ROWS rows, one after the other, in the byte order of the machine; only the last may have
fewer. A block has these arrays, each from the next multiple of 64 bytes on:

    labels    (b,) int32, or (b, K) uint8 for the head multilabel
    weights   (b,) float64
    dense:    rows (b, N) float32
    sparse:   ends (b,) int64, columns (E,) int32, values (E,) float32, as in softmax/sparse_rows.py

Where each block begins is in memory alone. The file has no name from the start, so nothing is left of it when the
process ends, however that happens.
"""

import math
import mmap
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles
from service.softmax.row_blocks import BLOCK_ROWS, BlockLabels, DenseRows, RowBlock
from service.softmax.sparse_rows import SparseRows, concatenate_rows, slice_rows

# A cache line, so that kernels read aligned arrays.
ALIGNMENT: Final = 64
# Blocks so far behind the one that is read leave the memory of the process, and are mapped again when they are needed.
BLOCKS_MAPPED: Final = 8


class PackedBlock(NamedTuple):
    """The place of a block in the file.

    Attributes:
        start: Its first byte.
        n_rows: Its rows.
        n_entries: The entries of its sparse rows; 0 for dense ones.
    """

    start: int
    n_rows: int
    n_entries: int


class RowForm(NamedTuple):
    """The form of all rows of a file.

    Attributes:
        n_columns: N.
        n_labels: K for the head multilabel, or 0 if a row has one label.
        is_sparse: Whether a row is its columns that are not 0.
    """

    n_columns: int
    n_labels: int
    is_sparse: bool


class PackedWriter:
    """Writes rows into a temporary file; a context manager.

    Args:
        form: The form of the rows.

    Attributes:
        n_rows: The rows that were added.

    Raises:
        OSError: The disk failed.
    """

    def __init__(self, form: RowForm) -> None:
        self.n_rows = 0
        self._form: Final = form
        self._file: Final = tempfile.TemporaryFile()  # noqa: SIM115  # closed on exit
        self._blocks: list[PackedBlock] = []
        self._waiting: list[RowBlock] = []
        self._n_waiting = 0

    def add(self, rows: DenseRows | SparseRows, labels: BlockLabels, weights: Doubles) -> None:
        """Add rows (B, N) of float32 values, with labels and weights."""
        self._waiting.append(RowBlock(rows, labels, weights))
        self._n_waiting += len(weights)
        self.n_rows += len(weights)
        if self._n_waiting >= BLOCK_ROWS:
            self._write_waiting(self._n_waiting - self._n_waiting % BLOCK_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def finish(self) -> "PackedRows":
        """Write the rows that wait, and return all rows; there is at least one."""
        self._write_waiting(self._n_waiting)
        self._file.flush()
        return PackedRows(self._file, self._blocks, self._form)

    def _write_waiting(self, count: int) -> None:
        """Write the first `count` rows that wait, in blocks."""
        if not count:
            return
        rows = concatenate_rows([block.rows for block in self._waiting])
        labels = np.concatenate([block.labels for block in self._waiting])
        weights = np.concatenate([block.weights for block in self._waiting])
        for first in range(0, count, BLOCK_ROWS):
            end = min(first + BLOCK_ROWS, count)
            self._write_block(slice_rows(rows, first, end), labels[first:end], weights[first:end])
        left = slice_rows(rows, count, len(weights))
        self._n_waiting = len(weights) - count
        # A copy, because a view would keep all rows in memory.
        self._waiting = [RowBlock(_copy(left), labels[count:].copy(), weights[count:].copy())]

    def _write_block(self, rows: Any, labels: NDArray[Any], weights: Doubles) -> None:  # noqa: ANN401
        arrays = [labels, weights, *(rows if self._form.is_sparse else [rows])]
        n_entries = len(rows.values) if self._form.is_sparse else 0
        self._blocks.append(PackedBlock(self._file.tell(), len(labels), n_entries))
        for array in arrays:
            self._file.write(np.ascontiguousarray(array).data)
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))


class PackedRows:
    """The rows of a file that is mapped, as `RowBlocks`.

    Args:
        file: The file.
        blocks: Where each block is.
        form: The form of the rows.
    """

    def __init__(self, file: IO[bytes], blocks: Sequence[PackedBlock], form: RowForm) -> None:
        self.n_rows: Final = sum(block.n_rows for block in blocks)
        self.n_columns: Final = form.n_columns
        self.n_blocks: Final = len(blocks)
        self._blocks: Final = tuple(blocks)
        self._form: Final = form
        self._map: Final = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read_block(self, i: int, /) -> RowBlock:
        """Return block i, whose arrays are views of the file."""
        if i >= BLOCKS_MAPPED:
            self._release(i - BLOCKS_MAPPED)
        start, n_rows, n_entries = self._blocks[i]
        N, K = self._form.n_columns, self._form.n_labels
        labels, start = self._view(start, np.dtype(np.uint8 if K else np.int32), (n_rows, K) if K else (n_rows,))
        weights, start = self._view(start, np.dtype(np.float64), (n_rows,))
        if not self._form.is_sparse:
            rows, _ = self._view(start, np.dtype(np.float32), (n_rows, N))
            return RowBlock(rows, labels, weights)
        ends, start = self._view(start, np.dtype(np.int64), (n_rows,))
        columns, start = self._view(start, np.dtype(np.int32), (n_entries,))
        values, _ = self._view(start, np.dtype(np.float32), (n_entries,))
        return RowBlock(SparseRows(ends, columns, values), labels, weights)

    def _release(self, i: int) -> None:
        """Let the system take the pages of block i; another thread that still reads it gets them again."""
        first = self._blocks[i].start // mmap.PAGESIZE * mmap.PAGESIZE
        last = self._blocks[i + 1].start // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _view(self, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
        """Return an array of the file, and where the next one begins."""
        count = math.prod(shape)
        array = np.frombuffer(self._map, dtype, count, start).reshape(shape)
        end = start + count * dtype.itemsize
        return array, end + -end % ALIGNMENT


def _copy(rows: DenseRows | SparseRows) -> DenseRows | SparseRows:
    if isinstance(rows, SparseRows):
        return SparseRows(rows.ends.copy(), rows.columns.copy(), rows.values.copy())
    return rows.copy()
