"""Read a CSV file in blocks. Each value is a text: types that were guessed from the first rows would fail later.

The first row has the names of the columns. Values may be quoted, and then have delimiters, line breaks and doubled
quotes. White space around a value does not count. The encoding is UTF-8, with or without a byte order mark.
"""

import re
from collections.abc import Collection, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from service.errors import TrainingError
from service.fields.refusals import quote
from service.train.cell_values import Cells
from service.train.data_table import ROW_BYTES_MAX, DataBlock, refuse_damage

# The texts that stand for a missing value, as pandas and R write it.
GAPS: Final = ["", "#N/A", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"]

NOT_UTF_8: Final = "the file is not UTF-8; convert it first"
# In the message of Arrow.
WRONG_ROW: Final = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")


class CsvTable:
    """A CSV file; compressed if its name ends with .gz, .bz2, .lz4 or .zst.

    Args:
        path: The file.
        delimiter: The character between values.

    Raises:
        TrainingError: The file has no header, or a name twice.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path: Final = path
        self._delimiter: Final = delimiter
        self.n_rows: int | None = None
        self.n_bytes: int = path.stat().st_size
        self.names: tuple[str, ...] | None = None
        header = self._read_header()
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise TrainingError(f"the header has the name {quote(twice)} more than once")
        self.names = tuple(header)

    def read_blocks(self, names: Collection[str] | None = None) -> Generator[DataBlock]:
        """Yield the blocks of the file in order."""
        listed = [name for name in self.names or () if names is None or name in names]
        options = pacsv.ConvertOptions(
            column_types=dict.fromkeys(listed, pa.string()),
            include_columns=listed,
            null_values=GAPS,
            strings_can_be_null=True,
        )
        first = 0
        try:
            with refuse_damage():
                for batch in self._open(options):
                    columns = zip(listed, batch.columns, strict=True)
                    cells = {name: Cells("cell", _trim(column)) for name, column in columns}
                    yield DataBlock(first, batch.num_rows, cells)
                    first += batch.num_rows
        except pa.ArrowInvalid as error:
            raise self._explain(error) from None

    def _read_header(self) -> list[str]:
        """Return the names of the columns."""
        if not self.n_bytes:
            raise TrainingError("the file is empty")
        try:
            with refuse_damage():
                return [name.strip() for name in self._open(pacsv.ConvertOptions()).schema.names]
        except UnicodeDecodeError:
            raise TrainingError(NOT_UTF_8) from None
        except pa.ArrowInvalid as error:
            raise self._explain(error) from None

    def _open(self, options: Any, *, use_threads: bool = True) -> Any:  # noqa: ANN401  # pyarrow has no types
        """Return a reader of batches; without threads its errors have the numbers of rows."""
        return pacsv.open_csv(
            pa.input_stream(str(self._path), compression="detect"),
            read_options=pacsv.ReadOptions(block_size=ROW_BYTES_MAX, use_threads=use_threads),
            parse_options=pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=options,
        )

    def _explain(self, error: Exception) -> TrainingError:
        """Return the sentence for an error of Arrow, whose own message may show values."""
        message = str(error)
        if "UTF8" in message:
            return TrainingError(NOT_UTF_8)
        if "cannot infer number of columns" in message:
            return TrainingError("the file has a header and no rows")
        if "straddling" in message:
            return TrainingError(f"a row has more than {ROW_BYTES_MAX} bytes, or a quote that does not end")
        with suppress(UnicodeDecodeError), refuse_damage():
            try:
                for _ in self._open(pacsv.ConvertOptions(), use_threads=False):
                    pass
            except pa.ArrowInvalid as again:
                found = WRONG_ROW.search(str(again))
                if found is not None:
                    # Arrow counts from 1, and the header too.
                    number, expected, actual = map(int, found.groups())
                    return TrainingError(f"row {number - 2} has {actual} values; the header has {expected}")
        return TrainingError("the file is no CSV that can be read")


def _trim(column: Any) -> Any:  # noqa: ANN401
    """Return texts without the white space around them; one that is empty then is missing."""
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)
