"""Files of rows that are damaged: read as rows, or refused in one sentence that shows no value."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import TrainingError
from service.train.class_labels import LabelReader
from service.train.held_out_rows import HeldOutRows
from service.train.open_table import open_table
from service.train.table_survey import survey_table

FILES = 120
SHOWN = "Xq7valueXq7"
ROWS = [
    {
        "a": i * 1.5,
        "b": f"{SHOWN} {'xyz'[i % 3]}",
        "c": [1.0, 2.0],
        "d": i % 2 == 0,
        "e": {"k": 1.0},
        "label": "pq"[i % 2],
    }
    for i in range(40)
]
PIECES = [b",", b'"', b"\n", b"\r", b"\xff", b"{", b"[1]", b"null", b"1e999", b"\x00"]


def damage(content: bytes, chance: random.Random) -> bytes:
    """Return a file with some bytes changed, removed, added or cut off."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place, kind = chance.randrange(len(damaged) + 1), chance.random()
        if kind < 0.4:
            damaged[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 0.6:
            del damaged[place : place + chance.randint(1, 20)]
        elif kind < 0.9:
            damaged[place:place] = chance.choice(PIECES) * chance.randint(1, 3)
        else:
            del damaged[place:]
    return bytes(damaged)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return one file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "packed.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "plain.parquet", compression="none")
    text = "a,b,label\n" + "".join(f'{row["a"]},"{row["b"]}",{row["label"]}\n' for row in ROWS)
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    return {
        "rows.csv": text.encode(),
        "rows.csv.gz": gzip.compress(text.encode()),
        "rows.jsonl": lines.encode(),
        "packed.parquet": (folder / "packed.parquet").read_bytes(),
        "plain.parquet": (folder / "plain.parquet").read_bytes(),
    }


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl", "packed.parquet", "plain.parquet"])
def test_a_damaged_file_is_read_or_refused(contents: dict[str, bytes], tmp_path: Path, name: str) -> None:
    chance, sentences = random.Random(name), []
    for i in range(FILES):
        path = tmp_path / name
        path.write_bytes(damage(contents[name], chance) if i else contents[name])
        sentences.append(read_or_refuse(path))
    refused = [sentence for sentence in sentences if sentence is not None]
    assert FILES / 2 < len(refused) < FILES
    assert not any(SHOWN in sentence or "\n" in sentence for sentence in refused)


def read_or_refuse(path: Path) -> str | None:
    """Return the sentence by which pass 1 refuses a file, or None."""
    try:
        survey_table(open_table(path), LabelReader("label", None), HeldOutRows("hash", 0), None, lambda _: None)
    except TrainingError as error:
        return str(error)
    return None
