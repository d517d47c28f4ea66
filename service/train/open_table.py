"""Open a file of rows by the end of its name."""

from pathlib import Path
from typing import Final

from service.errors import TrainingError
from service.train.csv_table import CsvTable
from service.train.data_table import DataTable
from service.train.json_table import JsonTable
from service.train.parquet_table import ParquetTable

COMPRESSED: Final = (".gz", ".bz2", ".lz4", ".zst")
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
JSON_LINES: Final = (".jsonl", ".ndjson")
PARQUET: Final = (".parquet", ".pq")


def open_table(path: Path, delimiter: str | None = None) -> DataTable:
    """Open a file of rows.

    Args:
        path: The file.
        delimiter: The character between the values of CSV; by default a comma, or a tab for .tsv.

    Raises:
        TrainingError: The file is missing or empty, or its name has another end.
    """
    if not path.is_file():
        raise TrainingError("the file of rows does not exist, or is no file")
    ends = [end.lower() for end in path.suffixes]
    end = ends[-2] if len(ends) > 1 and ends[-1] in COMPRESSED else (ends or [""])[-1]
    if end in DELIMITERS:
        return CsvTable(path, delimiter or DELIMITERS[end])
    if delimiter is not None:
        raise TrainingError("a delimiter is for CSV files")
    if end in JSON_LINES:
        return JsonTable(path)
    if end in PARQUET:
        return ParquetTable(path)
    raise TrainingError("the name of the file must end with .csv, .tsv, .jsonl, .ndjson or .parquet")
