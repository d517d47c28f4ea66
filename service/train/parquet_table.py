"""Read a Parquet file in blocks, with the types that it has."""

from collections.abc import Collection, Generator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import TrainingError
from service.fields.refusals import quote
from service.train.cell_values import wrap_arrow
from service.train.data_table import BLOCK_ROWS_MAX, DataBlock, refuse_damage

# Memory of a block: rows of long vectors come in blocks of fewer rows.
BLOCK_BYTES: Final = 16 << 20
# Columns are read by so many bytes, so that a row group of any size needs little memory.
BUFFER_BYTES: Final = 1 << 16


class ParquetTable:
    """A Parquet file.

    Args:
        path: The file.

    Raises:
        TrainingError: It is no Parquet file, has no rows, or a name twice.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self.n_bytes: int = path.stat().st_size
        with self._open() as file:
            names = tuple(file.schema_arrow.names)
            n_rows: int = file.metadata.num_rows
            groups = range(file.metadata.num_row_groups)
            n_bytes = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        if not n_rows:
            raise TrainingError("the file has no rows")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TrainingError(f"the file has the column {quote(twice)} more than once")
        self.names: tuple[str, ...] | None = names
        self.n_rows: int | None = n_rows
        self._block_rows: Final = max(min(BLOCK_ROWS_MAX, BLOCK_BYTES * n_rows // max(n_bytes, 1)), 1)

    def read_blocks(self, names: Collection[str] | None = None) -> Generator[DataBlock]:
        """Yield the blocks of the file in order."""
        listed = [name for name in self.names or () if names is None or name in names]
        first = 0
        try:
            with refuse_damage(), self._open() as file:
                # One thread decodes while others use the block before; threads of Arrow take twice the work.
                for batch in file.iter_batches(self._block_rows, columns=listed, use_threads=False):
                    columns = dict(zip(batch.schema.names, map(wrap_arrow, batch.columns), strict=True))
                    yield DataBlock(first, batch.num_rows, {name: columns[name] for name in listed})
                    first += batch.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
            raise TrainingError("the file is damaged, or has a column that cannot be read") from None

    def _open(self) -> "pq.ParquetFile":
        try:
            with refuse_damage():
                return pq.ParquetFile(self._path, buffer_size=BUFFER_BYTES, pre_buffer=False)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            raise TrainingError("the file is no Parquet file") from None
