"""Read a file of JSON Lines in blocks: one object of names and values in each line.

JSON has types of its own, so a column is read as its values are, and a name that a line lacks is missing there.
"""

from collections.abc import Collection, Generator, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from service.errors import TrainingError
from service.train.cell_values import wrap_objects
from service.train.data_table import BLOCK_ROWS_MAX, ROW_BYTES_MAX, DataBlock, refuse_damage

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Python objects of a block take a hundred bytes for each value.
BLOCK_BYTES_MAX: Final = ROW_BYTES_MAX


class JsonTable:
    """A file of JSON Lines; compressed if its name ends with .gz, .bz2, .lz4 or .zst.

    Args:
        path: The file.

    Raises:
        TrainingError: The file is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self.names: tuple[str, ...] | None = None
        self.n_rows: int | None = None
        self.n_bytes: int = path.stat().st_size
        if not self.n_bytes:
            raise TrainingError("the file is empty")

    def read_blocks(self, names: Collection[str] | None = None) -> Generator[DataBlock]:
        """Yield the blocks of the file in order."""
        first, n_bytes = 0, 0
        rows: list[dict[str, Any]] = []
        for line in self._read_lines():
            rows.append(_parse(line, first + len(rows)))
            n_bytes += len(line)
            if len(rows) == BLOCK_ROWS_MAX or n_bytes >= BLOCK_BYTES_MAX:
                yield _transpose(first, rows, names)
                first, n_bytes, rows = first + len(rows), 0, []
        if rows:
            yield _transpose(first, rows, names)

    def _read_lines(self) -> Iterator[bytes]:
        """Yield the lines that are not blank."""
        with refuse_damage(), BufferedReader(pa.input_stream(str(self._path), compression="detect")) as file:
            first = True
            while line := file.readline(ROW_BYTES_MAX + 1):
                if len(line) > ROW_BYTES_MAX:
                    raise TrainingError(f"a line has more than {ROW_BYTES_MAX} bytes")
                line, first = line.removeprefix(BYTE_ORDER_MARK) if first else line, False
                if line.strip():
                    yield line


def _parse(line: bytes, row: int) -> dict[str, Any]:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise TrainingError(f"row {row} is no JSON; each line must be one object of names and values") from None
    if not isinstance(parsed, dict):
        raise TrainingError(f"row {row} is no object of names and values")
    return parsed


def _transpose(first: int, rows: list[dict[str, Any]], names: Collection[str] | None) -> DataBlock:
    """Return rows as columns, in the order in which their names occur."""
    found = dict.fromkeys(name for row in rows for name in row)
    listed = [name for name in found if names is None or name in names]
    return DataBlock(first, len(rows), {name: wrap_objects([row.get(name) for row in rows]) for name in listed})
