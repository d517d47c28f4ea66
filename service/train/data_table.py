"""Read a file of rows in blocks, as often as needed: CSV, JSON Lines or Parquet."""

from collections.abc import Collection, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from service.errors import TrainingError
from service.train.cell_values import Cells

# Rows that are read at once, where the format does not decide: 13 MB of 100 numbers.
BLOCK_ROWS_MAX: Final = 16_384
# The longest row of CSV and line of JSON: a text has at most 2**20 characters, of up to four bytes each.
ROW_BYTES_MAX: Final = 16 << 20


class DataBlock(NamedTuple):
    """Rows of a file, one after the other.

    Attributes:
        first: The number of the first row, counted from 0; the header of a CSV file is no row.
        n_rows: How many rows there are, B.
        columns: The values of each column that was asked for; a column that is absent is missing in all rows.
    """

    first: int
    n_rows: int
    columns: Mapping[str, Cells]


class DataTable(Protocol):
    """A file of rows.

    Attributes:
        names: The names of the columns; None if only reading all rows shows them.
        n_rows: The number of rows; None if only reading all rows shows it.
        n_bytes: The size of the file.
    """

    names: tuple[str, ...] | None
    n_rows: int | None
    n_bytes: int

    def read_blocks(self, names: Collection[str] | None = None) -> Generator[DataBlock]:
        """Yield the blocks of the file in order.

        Args:
            names: The columns that are needed; None for all.

        Raises:
            TrainingError: The file cannot be read; the message is one sentence that names the row where it can.
        """


@contextmanager
def refuse_damage() -> Iterator[None]:
    """Raise a TrainingError for a file that is damaged: Arrow raises an OSError then, as for a disk that fails."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise TrainingError("the file is damaged") from None


def read_ahead(blocks: Generator[DataBlock]) -> Iterator[DataBlock]:
    """Yield blocks in order, while another thread reads the next one."""
    with ThreadPoolExecutor(1) as pool:
        try:
            reading = pool.submit(next, blocks, None)
            while (block := reading.result()) is not None:
                reading = pool.submit(next, blocks, None)
                yield block
        finally:
            # The thread may still read, and a generator that runs cannot be closed.
            wait([reading])
            blocks.close()
