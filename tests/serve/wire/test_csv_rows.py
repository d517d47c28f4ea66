"""CSV becomes the same rows as JSON, with or without a header, and anything else is refused."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError, TooLargeError
from service.serve.wire import csv_rows
from service.serve.wire.csv_rows import CELL_CHARACTERS_MAX
from service.serve.wire.json_grammar import containers_max
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from tests.support.budgets import examples
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message

ROWS_MAX = 20
NAMES = ("a", 'b, "quoted"', "c\nd", " e")


def make_tables(names: tuple[str, ...] = NAMES, dtype: type[np.floating[Any]] = np.float64) -> TableParser:
    """A parser of the tables of a model with these features."""
    return TableParser(RowParser(len(names), np.dtype(dtype), ROWS_MAX, 64), names)


def parse_csv(body: bytes, tables: TableParser, *, header: bool | None = None) -> Any:
    """The rows of a CSV text."""
    return tables.parse_csv(body, header=header)


def write(rows: list[list[Any]], line_end: str, quoting: int) -> str:
    """The CSV text of rows."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]  # any int
    writer.writerows(rows)
    return text.getvalue()


def refusal(body: bytes | str, names: tuple[str, ...] = ("a", "b"), *, header: bool | None = None) -> str:
    """The sentence of a refusal, which has nothing of the input but names of columns."""
    with pytest.raises(InputError) as caught:
        parse_csv(body if isinstance(body, bytes) else body.encode(), make_tables(names), header=header)
    return checked_message(caught.value)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=examples(200))
@given(
    rows=st.lists(st.lists(finite | st.integers(-(10**20), 10**20), min_size=4, max_size=4), min_size=1, max_size=5),
    order=st.permutations(range(len(NAMES))),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    index=st.booleans(),
)
def test_csv_gives_the_rows_of_json(
    rows: list[list[float]],
    order: list[int],
    line_end: str,
    quoting: int,
    index: bool,  # noqa: FBT001
) -> None:
    """Numbers get the bits that JSON gives them; the columns may have any order, and pandas' index before them."""
    header = [NAMES[i] for i in order]
    shuffled: list[list[Any]] = [header, *([row[i] for i in order] for row in rows)]
    if index:
        shuffled = [[label, *row] for label, row in zip(["", *range(len(rows))], shuffled, strict=True)]
    with_header = write(shuffled, line_end, csv.QUOTE_ALL if quoting == csv.QUOTE_MINIMAL else quoting)
    for dtype in (np.float32, np.float64):
        tables = make_tables(dtype=dtype)
        expected = tables.convert_instances(rows)
        plain = parse_csv(write(rows, line_end, quoting).encode(), tables)
        named = parse_csv(with_header.encode(), tables)
        for found in (plain, named):
            assert found.flags.carray
            assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())


@pytest.mark.parametrize(
    "text",
    ["1,2\n3,4\n",
     "1,2\n3,4", "1,2\r\n3,4\r\n", "1,2\r3,4\r", "\ufeff1,2\n3,4", "\n1,2\n\n\n3,4\n\n", '"1", 2 \n 3,"4"\n',
     "+1,2.\n3e0,.4E1\n", "01,2.0\n3,4\n"],
)  # fmt: skip
def test_the_usual_dialects_are_read(text: str) -> None:
    """Line ends, a byte order mark, empty lines, spaces and quotes make no difference."""
    assert parse_csv(text.encode(), make_tables(("a", "b"))).tolist() == [[1, 2], [3, 4]]


def test_a_header_is_found_or_named() -> None:
    """A first line without a number is a header, unless the request says which it is."""
    tables = make_tables(("1", "x"))
    assert parse_csv(b"x,1\n5,6\n", tables, header=True).tolist() == [[6, 5]]
    assert parse_csv(b"5,6\n", tables).tolist() == [[5, 6]]
    assert refusal("x,1\n5,6\n", ("1", "x")) == 'Row 0 has a value that is not a number in column "1".'
    assert refusal("x,y\n5,6\n", ("x", "y"), header=False) == 'Row 0 has a value that is not a number in column "x".'
    assert refusal("1,2\n5,6\n", ("x", "y"), header=True).startswith("The body has 2 unknown columns, and lacks")
    assert parse_csv(b"0,1\n5,6\n", make_tables(("x", "y")), header=True).tolist() == [[5, 6]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The body is empty; send at least one line of numbers."),
        ("\n \r\n", "Row 0 has 1 values; this model takes 2."),
        ("\n\n", "The body is empty; send at least one line of numbers."),
        ("a,b\n", "The body has no rows; send at least one line of numbers."),
        ("1,2],[3,4\n", "Row 0 has 4 values; this model takes 2."),
        ("1,2\n3\n", "Row 1 has 1 values; this model takes 2."),
        ("1,2,3\n", "Row 0 has 3 values; this model takes 2."),
        (",a,b\n0,1,2\n1,2\n", "Row 1 has 2 values; this model takes 3."),
        (f"1,2\n3,{CANARY}x\n", 'Row 1 has a value that is not a number in column "b".'),
        ("1,2\n,4\n", 'Row 1 has a value that is not a number in column "a".'),
        ("1,\n", 'Row 0 has a value that is not a number in column "b".'),
        ("b,a\n1,\n", 'Row 0 has a value that is not a number in column "a".'),
        (",\n", 'Row 0 has a value that is not a number in column "a".'),
        ("1,NA\n", 'Row 0 has a value that is not a number in column "b".'),
        ("1,1_0\n", 'Row 0 has a value that is not a number in column "b".'),
        ("1,\u0661\n", 'Row 0 has a value that is not a number in column "b".'),
        ("1,2\n3,nan\n", 'Row 1 has a value that is not a finite number in column "b".'),
        ("-inf,2\n", 'Row 0 has a value that is not a finite number in column "a".'),
        ("1,1e999\n", 'Row 0 has a value that is not a finite number in column "b".'),
        ("nan,NaN\n", 'Row 0 has a value that is not a finite number in column "a".'),
        ('1,"2\n', "The body is not valid CSV (RFC 4180); the error is near line 1."),
        ('1,2\n"1"2,3\n', "The body is not valid CSV (RFC 4180); the error is near line 2."),
    ],
)
def test_wrong_text_is_refused(text: str, sentence: str) -> None:
    """The sentence names the row and the column, and never the value."""
    assert refusal(text) == sentence


def test_bytes_that_are_not_utf8_are_refused() -> None:
    """Latin-1 and UTF-16 are malformed."""
    for body in (b"\xff\xfe1\0,\x002\0", "ü,b\n1,2".encode("latin-1")):
        with pytest.raises(MalformedError, match="UTF-8"):
            parse_csv(body, make_tables(("a", "b")))


def test_lines_are_limited_before_they_are_read() -> None:
    """Empty lines are skipped, but there may not be millions of them."""
    most = containers_max(ROWS_MAX)
    tables = make_tables(("a", "b"))
    for line_end in (b"\n", b"\r\n", b"\r"):
        assert parse_csv(b"1,2" + line_end * most, tables).tolist() == [[1, 2]]
        with pytest.raises(TooLargeError, match="lines"):
            parse_csv(b"1,2" + line_end * (most + 1), tables)


def test_limits_hold() -> None:
    """Rows are limited, and so is the text of one record, whether it has one line or many."""
    tables = make_tables(("a", "b"))
    assert len(parse_csv(b"1,2\n" * ROWS_MAX, tables)) == ROWS_MAX
    with pytest.raises(TooLargeError, match="at most 20 rows"):
        parse_csv(b"1,2\n" * (ROWS_MAX + 1), tables)
    for long in (
        b"," * 2_000_000,
        b'"' + b"1\n" * 1000,
        b'"\n",' * 500,
        b"1," + b"2" * 3 * CELL_CHARACTERS_MAX,
    ):
        with pytest.raises(TooLargeError, match="characters"):
            parse_csv(long, tables)


@settings(deadline=None, max_examples=examples(300))
@given(text=st.text(alphabet='ab12.,"\n\r -+e_nif\0\u0661', max_size=30), header=st.none() | st.booleans())
def test_any_text_gives_finite_rows_or_a_refusal(text: str, header: bool | None) -> None:  # noqa: FBT001
    """No text causes another error."""
    try:
        found = parse_csv(text.encode(), make_tables(("a", "b")), header=header)
    except InputError:
        return
    assert np.isfinite(found).all()
    assert found.shape[1] == 2


def verdict(body: bytes, header: bool | None) -> tuple[Any, ...]:  # noqa: FBT001
    """The shape and bits of the rows, or the class and message of the refusal."""
    try:
        found = parse_csv(body, make_tables(("a", "b"), np.float32), header=header)
    except InputError as reason:
        return type(reason).__name__, str(reason)
    return found.shape, found.tobytes()


cells = st.sampled_from([
    "1", "-0", "-0.0", "0", "1.5", " 2", "3 ", "\t4", "1e5", "-1E-3", "0.1234567890123456789", "1e39", "1e999",
    "9" * 30, "+1", ".5", "5.", "007", "1_0", "nan", "inf", "", " ", '"1"', "x", "[1]", "1],[2", "null", "true",
    "\u0661", "-", "1\r",
])  # fmt: skip
usual = st.sampled_from(["1", "-2.5", "0.1", "1e5", " 3", "-0"])
some_lines = st.lists(
    st.one_of(st.tuples(usual, usual), st.tuples(usual, usual), st.lists(cells, max_size=3)).map(",".join), max_size=5
)


@settings(deadline=None, max_examples=examples(300))
@given(
    lines=some_lines,
    first=st.sampled_from(["", "b,a\n", "a,b\r\n", " b, a\n", '"a",b\n', ",a,b\n", "a,a\n", "1,0\n", "0,1\n", "\n"]),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n", "\r"]),
    last=st.sampled_from(["", "\n", "\r\n", "\n\n", " "]),
    header=st.none() | st.booleans(),
)
def test_the_fast_parser_agrees_with_the_plain_one(
    lines: list[str],
    first: str,
    line_end: str,
    last: str,
    header: bool | None,  # noqa: FBT001
) -> None:
    """Usual and unusual texts have the same verdict with and without the fast parser, to the bit."""
    body = (first + line_end.join(lines) + last).encode()
    found = verdict(body, header)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "_parse_usual", lambda *_, **__: None)
        assert found == verdict(body, header)


@pytest.mark.parametrize("first", [b"", b"b,a\r\n"])
def test_the_fast_parser_reads_usual_texts(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short decimals, with and without a header, are read with the plain parser removed."""
    monkeypatch.setattr(csv_rows, "read_records", None)
    for body in (b"1,2.5\r\n-0.0, 4\r\n", b"1,2\n3,4"):
        assert parse_csv(first + body, make_tables(("a", "b"))).shape == (2, 2)


@given(body=st.binary(max_size=60))
def test_any_bytes_give_finite_rows_or_a_refusal(body: bytes) -> None:
    """No bytes cause another error."""
    try:
        found = parse_csv(body, make_tables(("a",)))
    except InputError:
        return
    assert np.isfinite(found).all()
