"""Parse CSV (RFC 4180) to columns of a model with fields.

    country,age,note
    PT,41,"late, but paid"
    DE,,

The columns have the names of the fields, in any order; without a header they are the fields in their order. Fields that
read one value have one column. An unnamed first column, which pandas writes for its index, is ignored. What a cell
is depends on the kind of its field (fields/csv_cells.py). The text
is UTF-8 as in csv_rows.py, but spaces are part of a cell.
"""

from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Any, Final

from service.errors import MalformedError, UnacceptableError
from service.fields.csv_cells import make_cell_reader
from service.fields.field_list import group_by_value
from service.fields.field_records import FieldRecord
from service.serve.wire.csv_rows import read_records
from service.serve.wire.json_grammar import check_line_count, check_row_count
from service.serve.wire.table_grammar import check_repeated

# Characters of a record: one text may have a million, and so may all others together.
RECORD_CHARACTERS_MAX: Final = 1 << 21


class CsvFields:
    """Reads CSV for the fields of one model.

    Args:
        fields: The fields.
    """

    def __init__(self, fields: Sequence[FieldRecord]) -> None:
        self._readers: Final = {name: make_cell_reader(group) for name, group in group_by_value(fields).items()}

    def parse_columns(self, body: bytes, rows_max: int, *, header: bool) -> dict[str, list[Any]]:
        """Return the values of each column by its name.

        Args:
            body: The bytes.
            rows_max: The limit of rows.
            header: Whether the first line has the names of the columns.

        Raises:
            MalformedError: The body is not CSV in UTF-8.
            UnacceptableError: There are no rows, a column occurs twice, or a line has too few or too many cells.
            TooLargeError: There are more rows than the limit, or a record is too long.
        """
        check_line_count(body, rows_max)
        records = read_records(body.removeprefix(BOM_UTF8), RECORD_CHARACTERS_MAX, skip_spaces=False)
        names, skipped = list(self._readers), 0
        if header:
            first = next(records, None)
            if first is None:
                raise MalformedError("The body is empty; send a line with the names of the columns, and the rows.")
            skipped = int(not first[0])
            names = first[skipped:]
            check_repeated(names)
        columns: list[list[str]] = [[] for _ in names]
        for row, record in enumerate(records):
            if len(record) != len(names) + skipped:
                raise UnacceptableError(f"Row {row} must have as many values as there are columns.")
            check_row_count(row + 1, rows_max)
            for column, cell in zip(columns, record[skipped:], strict=True):
                column.append(cell)
        if not columns or not columns[0]:
            raise UnacceptableError("The body has no rows; send at least one line of values.")
        return {name: self._read(name, cells) for name, cells in zip(names, columns, strict=True)}

    def _read(self, name: str, cells: list[str]) -> list[Any]:
        """Return the values of a column; the cells of one that no field reads stay as they are."""
        read = self._readers.get(name, str)
        return [read(cell) if cell else None for cell in cells]
