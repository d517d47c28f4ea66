"""docs/fields.md: every example gives the entries that the page shows."""

import json
import re

import pytest

from service.fields.column_blocks import FieldLimits
from service.fields.entry_names import EntryNames
from service.fields.field_list import FIELDS_MAX
from service.fields.field_types import LIST_MAX, NGRAM_MAX
from service.fields.name_encoders import TEXT_CHARACTERS_MAX
from service.fields.row_encoder import RowEncoder
from tests.support.field_lists import parse_fields
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "fields.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```\n.*?```text\n(.*?)```", PAGE, re.DOTALL)
KINDS = {"number", "boolean", "category", "text", "bag", "vector", "cross"}


def show(name: str, value: float, width: int) -> str:
    """Return an entry as the page shows it."""
    return f"{name:{width}}  {round(value, 6):g}"


@pytest.mark.parametrize(("example", "shown"), EXAMPLES)
def test_examples_give_the_entries_that_the_page_shows(example: str, shown: str) -> None:
    """Names and values, in the order of the fields."""
    document = json.loads(example)
    encoder = RowEncoder(parse_fields(*document["fields"]), {}, FieldLimits())
    names = EntryNames(encoder).name_entries(document["row"])
    values = encoder.encode_objects([document["row"]]).rows.values.tolist()
    width = max(map(len, names))
    assert sorted(show(name, value, width) for name, value in zip(names, values, strict=True)) == sorted(
        shown.splitlines()
    )


def test_every_kind_has_an_example() -> None:
    """The page leaves no kind out."""
    assert {field["kind"] for example, _ in EXAMPLES for field in json.loads(example)["fields"]} == KINDS


def test_the_page_has_the_limits() -> None:
    """The numbers of the page are those of the code."""
    limits = FieldLimits()
    assert (limits.fields_max, limits.columns_max, limits.entries_max) == (1024, 2**24, 65_536)
    assert LIST_MAX == 65_536 <= FIELDS_MAX
    assert f"up to\n{NGRAM_MAX}" in PAGE or f"up to {NGRAM_MAX}" in PAGE
    assert f"{TEXT_CHARACTERS_MAX:,} characters" in PAGE
