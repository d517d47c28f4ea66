"""Parse CSV (RFC 4180) to rows of a model, with or without a header.

    sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)
    5.1,3.5,1.4,0.2

With a header the columns have the names of the features, in any order. An unnamed first column, which pandas writes for
its index, is ignored. Without a header they are the features in their order. If the request does not say which it is, a
first line without any number is a header: MLflow's clients always send one, SageMaker's none.

Plain numbers with commas are JSON once brackets stand in place of the line ends, so the fast parsers of JSON read the
usual text. They return nothing for any other, which `csv` then reads. A property test compares the two.

The text is UTF-8, with or without a byte order mark. Lines end with LF, CR LF or CR, and empty lines are skipped. Each
cell is a decimal number, with or without spaces around it.
"""

import csv
import io
import re
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from service.errors import MalformedError, TooLargeError, UnacceptableError
from service.fields.csv_cells import NUMBER
from service.serve.wire.feature_columns import FeatureColumns, is_number
from service.serve.wire.json_grammar import check_line_count, check_row_count
from service.serve.wire.rows import RowParser, cell_error
from service.softmax.arrays import Doubles, Floats

# Characters of a record for each of its cells. A float64 needs 25, and a quoted name of 256 characters at most 515.
CELL_CHARACTERS_MAX: Final = 600
# JSON's -0 is the integer 0, which has no sign.
INTEGER_ZERO: Final = re.compile(rb"-0(?![.0-9eE])")


class CsvColumns(NamedTuple):
    """The columns of a CSV text.

    Attributes:
        names: The feature of each column that is not skipped.
        skipped: How many columns come before them.
    """

    names: Sequence[str]
    skipped: int = 0


def parse_csv(body: bytes, rows: RowParser, columns: FeatureColumns, *, header: bool | None = None) -> Floats:
    """Parse the rows of a CSV text.

    Args:
        body: The bytes.
        rows: The parser of the model's rows.
        columns: The model's features by name.
        header: Whether the first line is a header; None if the request does not say.

    Returns:
        X (B, N) in the model's dtype.

    Raises:
        MalformedError: The body is not CSV in UTF-8.
        UnacceptableError: It has no rows of this model.
        TooLargeError: There are more rows than the limit, or a record is too long.
    """
    check_line_count(body, rows.rows_max)
    body = body.removeprefix(BOM_UTF8)
    X = _parse_usual(body, rows, columns, header=header)
    return _parse_any(body, rows, columns, header=header) if X is None else X


def _parse_usual(body: bytes, rows: RowParser, columns: FeatureColumns, *, header: bool | None) -> Floats | None:
    """Return the rows of a text of plain numbers, or None if unsure; the first line may be a plain header."""
    features = columns.names
    line, _, rest = body.partition(b"\n")
    if len(line) > len(features) * CELL_CHARACTERS_MAX or line.isspace() or not line.isascii() or b'"' in line:
        return None
    cells = [cell.lstrip(" ") for cell in line.decode().rstrip("\r").split(",")]
    if header is None:
        header = any(cells) and not any(map(is_number, cells))
    order = columns.match(cells) if header else None
    if header and order is None:
        return None
    text = (rest if header else body).rstrip(b"\r\n")
    if text.count(b"\r") != text.count(b"\r\n") or b"[" in text or b"]" in text or INTEGER_ZERO.search(text):
        return None
    X = rows.parse_usual(b'{"instances":[[%b]]}' % text.replace(b"\n", b"],["))
    return X if X is None or order is None else np.take(X, order, axis=1)


def _parse_any(body: bytes, rows: RowParser, columns: FeatureColumns, *, header: bool | None) -> Floats:
    """Parse a text as `parse_csv` does, whatever is in it."""
    features = columns.names
    records = read_records(body, (len(features) + 1) * CELL_CHARACTERS_MAX)
    first = next(records, [])
    if not first:
        raise MalformedError("The body is empty; send at least one line of numbers.")
    if header is None:
        header = any(first) and not any(map(is_number, first))
    if not header:
        return rows.cast_values(_parse_numbers(first, records, CsvColumns(features), rows.rows_max))
    skipped = int(len(first) == len(features) + 1 and not first[0])
    order = columns.find_order(first[skipped:])
    X = _parse_numbers(next(records, []), records, CsvColumns(columns.names_in(order), skipped), rows.rows_max)
    return rows.cast_values(np.take(X, order, axis=1))


def read_records(body: bytes, characters_max: int, *, skip_spaces: bool = True) -> Iterator[list[str]]:
    """Yield the cells of each record that is not empty; no more than one is in memory as text.

    Args:
        body: The text as bytes.
        characters_max: The limit of characters of a record.
        skip_spaces: Whether spaces before a cell are no part of it.

    Raises:
        MalformedError: The body is not CSV in UTF-8.
        TooLargeError: A record is too long.
    """
    characters = 0
    text = io.TextIOWrapper(io.BytesIO(body), "utf-8", newline="")

    def read_lines() -> Iterator[str]:
        nonlocal characters
        while line := text.readline(characters_max + 1):
            characters += len(line)
            if characters > characters_max:
                raise TooLargeError(f"A line may have at most {characters_max} characters; send one row in each line.")
            yield line

    reader = csv.reader(read_lines(), strict=True, skipinitialspace=skip_spaces)
    try:
        for record in reader:
            characters = 0
            if record:
                yield record
    except UnicodeDecodeError:
        raise MalformedError("The body is not valid UTF-8; encode the CSV as UTF-8.") from None
    except csv.Error:
        raise MalformedError(
            f"The body is not valid CSV (RFC 4180); the error is near line {reader.line_num}."
        ) from None


def _parse_numbers(first: list[str], others: Iterator[list[str]], columns: CsvColumns, rows_max: int) -> Doubles:
    """Return (B, N) float64 of records with numbers; `first` is empty if there is none."""
    names, skipped = columns
    cells, width, count, record = array("d"), len(names), 0, first
    if not first:
        raise UnacceptableError("The body has no rows; send at least one line of numbers.")
    while record:
        values = record[skipped:]
        if len(values) != width:
            raise UnacceptableError(f"Row {count} has {len(record)} values; this model takes {width + skipped}.")
        text = "".join(values)
        try:
            cells.extend(map(float, values))
        except ValueError:
            text = "_"
        if "_" in text or not text.isascii():
            column = next(column for column, cell in enumerate(values) if not NUMBER.fullmatch(cell))
            raise cell_error(count, names[column])
        count += 1
        check_row_count(count, rows_max)
        record = next(others, [])
    X = np.frombuffer(cells).reshape(count, width)
    finite = np.isfinite(X)
    if not finite.all():
        row, column = divmod(int(np.argmin(finite)), width)
        raise cell_error(row, names[column], "a finite number")
    return X
