"""Files of rows: the same values from CSV, JSON Lines and Parquet, whatever is in them, and one sentence for errors."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import TrainingError
from service.train import csv_table, json_table
from service.train.cell_values import to_numbers, to_objects, to_texts
from service.train.csv_table import GAPS
from service.train.open_table import open_table
from tests.support.budgets import examples

CASES: dict[str, tuple[str, bytes, str]] = {
    "missing": ("none.csv", b"", "the file of rows does not exist, or is no file"),
    "empty": ("rows.csv", b"", "the file is empty"),
    "empty lines": ("rows.jsonl", b"", "the file is empty"),
    "header alone": ("rows.csv", b"a,b", "the file has a header and no rows"),
    "name twice": ("rows.csv", b"a,b,a\n1,2,3\n", 'the header has the name "a" more than once'),
    "cells": ("rows.csv", b"a,b\n1,2\n1,2,3\n", "row 1 has 3 values; the header has 2"),
    "encoding": ("rows.csv", b"a,b\n1,\xff\n", "the file is not UTF-8; convert it first"),
    "no json": ("rows.jsonl", b'{"a": 1}\n{"a":', "row 1 is no JSON; each line must be one object of names and values"),
    "list": ("rows.jsonl", b"[1, 2]\n", "row 0 is no object of names and values"),
    "parquet": ("rows.parquet", b"PAR1 or not", "the file is no Parquet file"),
    "other": (
        "rows.xlsx",
        b"PK",
        "the name of the file must end with .csv, .tsv, .jsonl, .ndjson or .parquet",
    ),
}
cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    ['say "no"', "two\nlines", "a,b", "  spaces  ", "NA", "", "ü", "1.5"]
)


def read(path: Path, name: str) -> list[Any]:
    """Return a column of texts or objects of a file."""
    found: list[Any] = []
    for block in open_table(path).read_blocks({name}):
        column = block.columns[name]
        found += (to_objects if column.kind == "object" else to_texts)(column, block.n_rows)
    return found


@pytest.mark.parametrize("case", list(CASES))
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, content, sentence = CASES[case]
    path = tmp_path / name
    if case != "missing":
        path.write_bytes(content)
    with pytest.raises(TrainingError) as raised:
        list(open_table(path).read_blocks())
    assert str(raised.value) == sentence


@given(values=st.lists(cells, min_size=1, max_size=6))
@settings(max_examples=examples(200), deadline=None)
def test_csv_has_the_values_that_were_written(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    """Quotes, delimiters and line breaks are kept; white space around a value, and gaps, are not."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([["text", "other"], *([value, "x"] for value in values)])
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    expected = [None if value in GAPS or not value.strip() else value.strip() for value in values]
    assert read(path, "text") == expected


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("\ufeffname,other\nü,1\n".encode())
    (tmp_path / "rows.jsonl").write_bytes('\ufeff{"name": "ü"}\n'.encode())
    assert [read(tmp_path / name, "name") for name in ("rows.csv", "rows.jsonl")] == [["ü"], ["ü"]]


def test_compressed_files_and_other_delimiters_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"a,b\nx,y\n"))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"a": "x"}\n\n{"b": "y"}\n'))
    (tmp_path / "rows.tsv").write_bytes(b"a\tb\nx, y\tz\n")
    assert read(tmp_path / "rows.csv.gz", "b") == ["y"]
    assert read(tmp_path / "rows.jsonl.gz", "a") == ["x", None]
    assert read(tmp_path / "rows.tsv", "a") == ["x, y"]
    (tmp_path / "rows.csv").write_bytes(b"a;b\nx;y\n")
    (block,) = open_table(tmp_path / "rows.csv", ";").read_blocks()
    assert list(block.columns) == ["a", "b"]


def test_a_row_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit in place of all memory, also for a quote that does not end."""
    monkeypatch.setattr(csv_table, "ROW_BYTES_MAX", 1000)
    monkeypatch.setattr(json_table, "ROW_BYTES_MAX", 1000)
    for name, content in {
        "long.csv": f'a,b\n1,"{"x" * 3000}"\n2,3\n',
        "open.csv": 'a,b\n1,"2\n' + "3,4\n" * 2000,
        "long.jsonl": json.dumps({"a": "x" * 3000}),
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(TrainingError, match="has more than 1000 bytes"):
            list(open_table(tmp_path / name).read_blocks())


def test_rows_are_numbered_through_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows have the same rows in the same order."""
    monkeypatch.setattr(csv_table, "ROW_BYTES_MAX", 64)
    monkeypatch.setattr(json_table, "BLOCK_ROWS_MAX", 3)
    (tmp_path / "rows.csv").write_text("n\n" + "".join(f"{i}\n" for i in range(500)))
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"n": {i}}}\n' for i in range(500)))
    for name in ("rows.csv", "rows.jsonl"):
        first, found = 0, []
        blocks = list(open_table(tmp_path / name).read_blocks())
        assert len(blocks) > 20
        for block in blocks:
            assert block.first == first
            first += block.n_rows
            found += to_numbers(block.columns["n"], block.n_rows).tolist()
        assert found == list(range(500))


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "whole": pa.array([1, None], pa.int8()),
            "price": pa.array([1, 2], pa.decimal128(5, 2)),
            "word": pa.array(["a", None]).dictionary_encode(),
            "names": pa.array([["x", "y"], None]),
            "numbers": pa.array([[1.5, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
            "some": pa.array([[1.5, 2.0], [3.0]]),
            "counts": pa.array([[("x", 1.5)], None], pa.map_(pa.string(), pa.float64())),
            "parts": pa.array([{"x": 1.0, "y": None}, None], pa.struct([("x", pa.float64()), ("y", pa.float64())])),
            "day": pa.array([1, 2], pa.date32()),
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (block,) = open_table(tmp_path / "rows.parquet").read_blocks()
    kinds = {name: column.kind for name, column in block.columns.items()}
    assert kinds == {
        "whole": "number", "price": "number", "word": "text", "names": "object", "counts": "object",
        "parts": "object", "numbers": "vector", "some": "object", "day": "other", "nothing": "empty",
    }  # fmt: skip
    assert to_numbers(block.columns["price"], 2).tolist() == [1.0, 2.0]
    assert to_texts(block.columns["word"], 2) == ["a", None]
    assert to_objects(block.columns["names"], 2) == [["x", "y"], None]
    assert to_objects(block.columns["counts"], 2) == [{"x": 1.5}, None]
    assert to_objects(block.columns["parts"], 2) == [{"x": 1.0}, None]
