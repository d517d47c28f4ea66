"""Read files of rows, and of the probabilities that a source gave to them: CSV with a header, or JSON Lines.

    {"age": 41, "country": "PT"}      JSON Lines: one object in each line
    age,country                       CSV: the kind of a field says what a cell is (fields/csv_cells.py)
    41,PT

A file of probabilities has a column, or a member, for each class.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.source_file import open_source
from service.errors import ConversionError
from service.fields.csv_cells import ReadCell, make_cell_reader
from service.fields.field_list import group_by_value
from service.fields.row_encoder import RowEncoder

# Rows are compared, not learned: some thousands show any difference.
ROWS_MAX: Final = 100_000
ROW_FILE_BYTES_MAX: Final = 64 << 20


def read_rows(path: Path, encoder: RowEncoder) -> list[Row]:
    """Return the rows of a file.

    Args:
        path: The file.
        encoder: The encoder of the model, whose fields say how cells of CSV are read.

    Raises:
        ConversionError: The file cannot be read; the message names the line.
    """
    readers = {name: make_cell_reader(group) for name, group in group_by_value(encoder.fields).items()}
    rows = []
    for record in read_records(path):
        cells = record.values.items()
        rows.append(
            {name: read_cell(readers.get(name), cell) for name, cell in cells} if record.is_csv else record.values
        )
    return rows


def read_probabilities(path: Path, classes: Sequence[str]) -> Doubles:
    """Return the probabilities (B, C) of a file with a column for each class.

    Raises:
        ConversionError: The file cannot be read, or a row lacks a class or has no number for it.
    """
    found = []
    for number, record, _ in read_records(path):
        missing = [name for name in classes if name not in record]
        if missing:
            raise ConversionError(f"line {number} of the probabilities has no class {json.dumps(missing[0])}")
        found.append([_to_probability(record[name], number) for name in classes])
    return np.array(found, np.float64).reshape(len(found), len(classes))


class FileRow(NamedTuple):
    """A line of a file.

    Attributes:
        line: Its number.
        values: Its values by their names.
        is_csv: Whether the values are cells of CSV, all of them texts.
    """

    line: int
    values: dict[str, Any]
    is_csv: bool


def read_records(path: Path) -> Iterator[FileRow]:
    """Yield each line that has a row.

    Raises:
        ConversionError: The file cannot be read; the message names the line.
    """
    with open_source(path, ROW_FILE_BYTES_MAX) as binary:
        is_json = binary.read(1) == b"{"
        binary.seek(0)
        text = io.TextIOWrapper(binary, "utf-8-sig", newline="")
        count = 0
        try:
            for number, values in read_json_lines(text) if is_json else read_csv(text):
                count += 1
                if count > ROWS_MAX:
                    raise ConversionError(f"a file of rows has at most {ROWS_MAX} of them")
                yield FileRow(number, values, not is_json)
        except UnicodeDecodeError:
            raise ConversionError("the rows are not UTF-8") from None


def read_json_lines(text: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line that is not empty."""
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise ConversionError(f"line {number} of the rows is no JSON object")
        yield number, record


def read_csv(text: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the cells of each record, by the names of the first one."""
    reader = csv.reader(text, strict=True)
    try:
        names = next(reader, [])
        if not names or len(set(names)) < len(names):
            raise ConversionError("the first line of the rows must have the names of the columns, each once")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise ConversionError(f"line {reader.line_num} of the rows has {len(cells)} cells, not {len(names)}")
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error:
        raise ConversionError(f"line {reader.line_num} of the rows is not valid CSV") from None


def read_cell(read: ReadCell | None, cell: str) -> Any:  # noqa: ANN401  # of the kind of its field
    """Return the value of a cell of CSV; an empty one is missing, and one that no field reads stays as it is."""
    if not cell:
        return None
    return cell if read is None else read(cell)


def _to_probability(value: Any, number: int) -> float:  # noqa: ANN401  # of JSON or CSV
    """Return a number."""
    try:
        probability = float(value)
    except (TypeError, ValueError):
        probability = math.nan
    if math.isnan(probability):
        raise ConversionError(f"line {number} of the probabilities has no number for a class")
    return probability
