"""Pass 2 over a file: encode its rows, with labels and weights, into two packed files.

Blocks are encoded by two threads, and written in their order. Rows of a dense model become a matrix directly, because
numbers are most of such files: equal to what the encoder of the service gives, without a list of entries.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np

from service.errors import TrainingError
from service.fields.column_blocks import ColumnBlock
from service.fields.entries import FieldEncoder, Values
from service.fields.field_list import ValueRecord, group_by_value
from service.fields.field_records import CrossField, MissingNumber, NumberField
from service.fields.refusals import quote, refuse_value
from service.fields.row_encoder import RowEncoder
from service.fields.scalar_encoders import scale_numbers
from service.softmax.arrays import Doubles
from service.softmax.row_blocks import BLOCK_ROWS, BlockLabels, DenseRows
from service.softmax.sparse_rows import SparseRows, join_rows, take_rows
from service.train.cell_values import Cells, find_numbers, to_numbers
from service.train.class_labels import Classes, LabelReader
from service.train.data_table import DataBlock, DataTable, read_ahead
from service.train.field_values import EntriesError, named_rows, read_values
from service.train.held_out_rows import HeldOutRows
from service.train.packed_rows import PackedRows, PackedWriter, RowForm
from service.train.table_survey import Progress

THREADS: Final = 2
# Numbers up to here are finite in float32; those that round to a larger one are not.
SINGLE_MAX: Final = float(np.finfo(np.float32).max)


class PackedTable(NamedTuple):
    """The encoded rows of a file.

    Attributes:
        trained: The rows that are trained on.
        held_out: The rows that are held out; None if there are none.
        unknown: Held-out rows with a label that no row has that is trained on; they are left out.
    """

    trained: PackedRows
    held_out: PackedRows | None
    unknown: int


class TableEncoder:
    """Encodes the blocks of a file.

    Args:
        encoder: The encoder of the model's rows.
        is_dense: Whether its rows are a matrix.
        reader: Reads the labels.
        classes: The classes.
        weight: The column of weights, or None for 1 each.
        held_out: Tells which rows are held out.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        reader: LabelReader,
        classes: Classes,
        weight: str | None,
        held_out: HeldOutRows,
        *,
        is_dense: bool,
    ) -> None:
        self._encoder: Final = encoder
        self._is_dense: Final = is_dense
        self._reader: Final = reader
        self._classes: Final = classes
        self._weight: Final = weight
        self._held_out: Final = held_out

    def pack(self, table: DataTable, report: Progress) -> PackedTable:
        """Encode all rows of a file that have a label.

        Raises:
            TrainingError: A row cannot be encoded, or there are no rows to train on.
            OSError: The disk failed.
        """
        n_labels = len(self._classes.names) if self._classes.head == "multilabel" else 0
        form = RowForm(self._encoder.n_columns, n_labels, is_sparse=not self._is_dense)
        rows = unknown = 0
        names = {self._reader.column, *self._encoder.names} | ({self._weight} if self._weight is not None else set())
        with PackedWriter(form) as trained, PackedWriter(form) as held_out:
            for block in self._encode_ahead(read_ahead(table.read_blocks(names))):
                trained.add(*block.trained)
                held_out.add(*block.held_out)
                rows += block.n_rows
                unknown += block.unknown
                report(rows)
            if not trained.n_rows:
                raise TrainingError("there are no rows to train on")
            return PackedTable(trained.finish(), held_out.finish() if held_out.n_rows else None, unknown)

    def encode_block(self, block: DataBlock) -> "EncodedBlock":
        """Encode the rows of a block that have a label.

        Raises:
            TrainingError: A row cannot be encoded, or has no weight.
        """
        labels = self._reader.read(block.columns.get(self._reader.column), block.n_rows)
        numbers, known = self._classes.number_labels(labels)
        labeled = labels.present
        held_out = self._held_out.mark(block.first, block.n_rows)
        weights = self._read_weights(block)
        rows = self._encode_dense(block) if self._is_dense else self._encode_sparse(block)
        parts = [
            (take_rows(rows, chosen), numbers[chosen], weights[chosen])
            for chosen in (np.flatnonzero(labeled & ~held_out), np.flatnonzero(known & labeled & held_out))
        ]
        return EncodedBlock(block.n_rows, parts[0], parts[1], int(np.count_nonzero(labeled & ~known)))

    def _encode_ahead(self, blocks: Iterator[DataBlock]) -> Iterator["EncodedBlock"]:
        """Yield encoded blocks in order, while the next ones are read and encoded."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[Future[EncodedBlock]] = deque()
            try:
                for block in blocks:
                    waiting.append(pool.submit(self.encode_block, block))
                    if len(waiting) == THREADS:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _read_weights(self, block: DataBlock) -> Doubles:
        """Return the weights (B,) of rows."""
        if self._weight is None:
            return np.ones(block.n_rows)
        cells = block.columns.get(self._weight, Cells("empty"))
        is_number = find_numbers(cells) if cells.kind == "cell" else np.full(block.n_rows, cells.kind == "number")
        weights = to_numbers(cells, block.n_rows) if is_number.all() else np.where(is_number, 0.0, np.nan)
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = block.first + int(np.argmax(wrong))
            raise TrainingError(f"row {row}: the weight in {quote(self._weight)} must be a number of at least 0")
        return weights

    def _encode_dense(self, block: DataBlock) -> DenseRows:
        """Return X (B, N) float32."""
        X = np.zeros((block.n_rows, self._encoder.n_columns), np.float32)
        for field, columns in zip(self._encoder.fields, self._encoder.blocks, strict=True):
            if isinstance(field, CrossField):
                raise TypeError("a cross is hashed, so its rows are sparse")
            values = self._read_values(field, block)
            with named_rows(range(block.first, block.first + block.n_rows)):
                if isinstance(field, NumberField) and isinstance(values, np.ndarray):
                    _fill_numbers(X, field, columns, values)
                else:
                    _fill_entries(X, self._encoder.encoders[field.name], columns, values)
        return X

    def _encode_sparse(self, block: DataBlock) -> SparseRows:
        """Return rows of float32 values."""
        columns = {
            name: self._read_values(fields[0], block) for name, fields in group_by_value(self._encoder.fields).items()
        }
        parts = [
            self._encode_part(columns, block.first, first, min(first + BLOCK_ROWS, block.n_rows))
            for first in range(0, block.n_rows, BLOCK_ROWS)
        ]
        return join_rows(parts)

    def _encode_part(self, columns: dict[str, Values], offset: int, first: int, end: int) -> SparseRows:
        """Return the rows from `first` to before `end`, in halves if together they have too many entries."""
        part = {name: values[first:end] for name, values in columns.items()}
        try:
            with named_rows(range(offset + first, offset + end)):
                return self._encoder.to_model_rows(self._encoder.encode_columns(part).rows, np.dtype(np.float32))
        except EntriesError:
            if end - first == 1:
                raise
            middle = (first + end) // 2
            return join_rows(
                [self._encode_part(columns, offset, first, middle), self._encode_part(columns, offset, middle, end)]
            )

    def _read_values(self, field: ValueRecord, block: DataBlock) -> Values:
        return read_values(field, block.columns.get(field.value_name, Cells("empty")), block.first, block.n_rows)


class EncodedBlock(NamedTuple):
    """An encoded block: rows, labels and weights of those that are trained on, and of those that are held out."""

    n_rows: int
    trained: tuple[DenseRows | SparseRows, BlockLabels, Doubles]
    held_out: tuple[DenseRows | SparseRows, BlockLabels, Doubles]
    unknown: int


def _fill_numbers(X: DenseRows, field: NumberField, columns: ColumnBlock, values: Doubles) -> None:
    """Write the columns of a number into rows: what `NumberEncoder.encode` has as entries."""
    missing = np.isnan(values)
    infinite = np.isinf(values)
    if infinite.any():
        raise refuse_value(int(np.argmax(infinite)), field.value_name, "must be a finite number")
    if missing.any():
        if field.missing == "refuse":
            raise refuse_value(int(np.argmax(missing)), field.value_name, "is missing, and must be a number")
        stand_in = field.missing.value if isinstance(field.missing, MissingNumber) else field.mean
        values = np.where(missing, stand_in, values)
        if field.has_missing:
            X[:, columns.start + 1] = missing
    scaled = scale_numbers(values, field.mean, field.scale, field.clip)
    if field.clip is None or field.clip > SINGLE_MAX:
        large = ~(np.abs(scaled) <= SINGLE_MAX)
        if large.any():
            raise refuse_value(int(np.argmax(large)), field.value_name, "has a number that is too large for this model")
    X[:, columns.start] = scaled


def _fill_entries(X: DenseRows, encoder: FieldEncoder, columns: ColumnBlock, values: Values) -> None:
    """Write the entries of a field into rows."""
    counts, found, numbers = encoder.encode(values).entries
    with np.errstate(over="ignore"):
        X[np.repeat(np.arange(len(counts)), counts), columns.start + found] = numbers
    finite = np.isfinite(X[:, columns.start : columns.end]).all(axis=1)
    if not finite.all():
        raise refuse_value(int(np.argmin(finite)), encoder.name, "has a number that is too large for this model")
