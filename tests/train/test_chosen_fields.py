"""The field of each column: what its values are, and the reason if it is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.train.chosen_fields import ChosenField, choose_field
from service.train.class_labels import LabelReader
from service.train.held_out_rows import HeldOutRows
from service.train.open_table import open_table
from service.train.table_survey import survey_table

ROWS = 12_000


def choose(tmp_path: Path, values: list[Any]) -> ChosenField:
    """Return the choice for a column of JSON values."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps({'x': v, 'label': 'ab'[i % 2]})}\n" for i, v in enumerate(values)))
    survey = survey_table(open_table(path), LabelReader("label", None), HeldOutRows("hash", 0), None, lambda _: None)
    return choose_field(survey.tallies["x"])


TEXT = {"kind": "text", "words": [1, 2], "idf": True, "norm": "l2"}
CHOICES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "numbers": ([1.5, 2, 3] * 20, {"kind": "number", "clip": 10.0}),
    "numbers with gaps": ([1.5, None, 3] * 20, {"kind": "number", "clip": 10.0, "flag": True}),
    "booleans": ([True, False, None] * 20, {"kind": "boolean", "missing": "column"}),
    "few texts": (["one two three", "b"] * 20, {"kind": "category", "unknown": "other"}),
    "one text and gaps": (["a", None] * 20, {"kind": "category", "missing": "column", "unknown": "other"}),
    "sentences": (
        [f"word number {i}" for i in range(60)],
        {"kind": "text", "words": [1, 2], "idf": True, "norm": "l2"},
    ),
    "single words": ([f"w{i % 40}" for i in range(60)], {"kind": "category", "unknown": "other"}),
    "many values": ([f"w{i % 1500}" for i in range(4000)], {"kind": "category", "bits": 16}),
    "vectors": ([[1.0, 2.0], [3.0, 4.5]] * 20, {"kind": "vector", "size": 2, "clip": 10.0}),
    "bags": ([["a", "b"], {"a": 2}, None] * 20, {"kind": "bag", "missing": "column"}),
}
LEFT_OUT: dict[str, tuple[list[Any], str]] = {
    "one number": ([7] * 60, "it has one value"),
    "one text": (["a"] * 60, "it has one value"),
    "nothing": ([None] * 60, "it has no value"),
    "own values": ([f"w{i}" for i in range(60)], "each row has a value of its own"),
    "very many own values": ([f"w{i}" for i in range(ROWS)], "each row has a value of its own"),
    "row numbers": (list(range(5, 65)), "it numbers the rows"),
    "several types": ([1, "a"] * 30, "its values have several types"),
    "lists of several sizes": ([[1.0], [1.0, 2.0]] * 30, "its lists or objects are neither vectors nor bags of names"),
}


@pytest.mark.parametrize("case", list(CHOICES))
def test_a_column_becomes_a_field(tmp_path: Path, case: str) -> None:
    values, spec = CHOICES[case]
    assert choose(tmp_path, values).spec == {"name": "x", **spec}


@pytest.mark.parametrize("case", list(LEFT_OUT))
def test_a_column_is_left_out_with_a_word(tmp_path: Path, case: str) -> None:
    values, note = LEFT_OUT[case]
    assert choose(tmp_path, values) == ChosenField("x", None, note)
