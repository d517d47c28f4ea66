"""JSON Lines are parsed as one JSON value in each line, and refused like any other JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError, TooLargeError
from service.serve.wire.json_grammar import containers_max
from service.serve.wire.json_lines import join_lists, parse_json_lines
from tests.support.budgets import examples
from tests.support.json_reference import checked_message, reject_constant, unique_keys

DEPTH, ROWS_MAX = 4, 10
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def depth_of(value: Any) -> int:
    """Return how deep lists and objects nest."""
    if not isinstance(value, (list, dict)):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@settings(deadline=None)
@given(values=st.lists(json_values, min_size=1, max_size=4), line_end=st.sampled_from(["\n", "\r\n", "\n\n \n"]))
def test_each_line_is_a_value(values: list[Any], line_end: str) -> None:
    """The values are those that the standard library reads from the lines, down to the limit of nesting."""
    body = line_end.join(json.dumps(value, ensure_ascii=False) for value in values).encode()
    if max(map(depth_of, values)) <= DEPTH:
        assert parse_json_lines(body, DEPTH, ROWS_MAX) == values
    else:
        with pytest.raises(MalformedError, match="deeper than 4 levels"):
            parse_json_lines(body, DEPTH, ROWS_MAX)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is empty; send one row in each line."),
        (b" \n\r\n", "The body is empty; send one row in each line."),
        (b"[1]\n[2", "Line 2 is not valid JSON (RFC 8259, UTF-8); the error is near character 2."),
        (b"[1],\n[2]", "Line 1 is not valid JSON (RFC 8259, UTF-8); the error is near character 3."),
        (b"[1\n,2]", "Line 1 is not valid JSON (RFC 8259, UTF-8); the error is near character 3."),
        (b"[1] [2]", "Line 1 is not valid JSON (RFC 8259, UTF-8); the error is near character 4."),
        (b"[1]\n\n[NaN]", "Line 3 is not valid JSON (RFC 8259, UTF-8); the error is near character 1."),
        (b'[1]\n"\xff"', "Line 2 is not valid UTF-8; encode the JSON as UTF-8 (RFC 8259)."),
        (b'[1]\n{"a": 1, "a": 2}\n', 'Line 2 has an object with the same key twice, "a".'),
        (b"[1]\n[[[[[1]]]]]\n", "Line 2 nests deeper than 4 levels; nest fewer lists and objects."),
        (b"[1]\n" + b"[" * 3000, "Line 2 nests too deeply; nest fewer lists and objects."),
    ],
)
def test_a_wrong_line_is_named(body: bytes, sentence: str) -> None:
    """The sentence has the number of the line, and nothing of the input."""
    with pytest.raises(MalformedError) as caught:
        parse_json_lines(body, DEPTH, 10_000)
    assert checked_message(caught.value) == sentence


def test_limits_hold() -> None:
    """Rows are limited, and so are lists and objects, before any is made."""
    assert len(parse_json_lines(b"[1]\n" * ROWS_MAX, DEPTH, ROWS_MAX)) == ROWS_MAX
    with pytest.raises(TooLargeError, match="at most 10 rows"):
        parse_json_lines(b"[1]\n" * (ROWS_MAX + 1), DEPTH, ROWS_MAX)
    most = containers_max(ROWS_MAX)
    assert parse_json_lines(b"[1]" + b"\n" * most, DEPTH, ROWS_MAX) == [[1]]
    with pytest.raises(TooLargeError, match=f"at most {most} lines"):
        parse_json_lines(b"[1]" + b"\n" * (most + 1), DEPTH, ROWS_MAX)
    with pytest.raises(TooLargeError, match="lists and objects"):
        parse_json_lines(b"[" * (containers_max(ROWS_MAX) + 1), DEPTH, ROWS_MAX)


def expected_values(body: bytes) -> list[Any] | None:
    """Return the values of the lines, by the strict parser of the standard library; None if a line is wrong."""
    try:
        texts = [line.decode() for line in body.split(b"\n") if line.strip()]
        options: dict[str, Any] = {"object_pairs_hook": unique_keys, "parse_constant": reject_constant}
        values = [json.loads(text, **options) for text in texts]
        json.dumps(values, ensure_ascii=False).encode()
    except ValueError:
        return None
    return values if values and max(map(depth_of, values)) <= DEPTH else None


@settings(deadline=None, max_examples=examples(400))
@given(text=st.text(alphabet='[]{}":, \n\r1a\\é', max_size=24))
def test_any_text_is_read_as_the_standard_library_does(text: str) -> None:
    """Any text gives the same values, or a refusal of both."""
    body = text.encode()
    try:
        found: list[Any] | None = parse_json_lines(body, DEPTH, ROWS_MAX)
    except InputError:
        found = None
    assert found == expected_values(body)


numbers = st.sampled_from(["1", "-0", "2.5", "null", '"["', "[1]", "{}", ""])
lists = st.lists(numbers, max_size=3).map(lambda row: f"[{','.join(row)}]")
lines = st.lists(lists | lists | st.sampled_from(["1", "{}", "", " ", "[1],[2]", "[1", "2]"]), max_size=4)


@settings(deadline=None, max_examples=examples(300))
@given(
    some=lines, line_end=st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\r"]), last=st.sampled_from(["", "\n", "\r\n"])
)
def test_joined_lists_are_the_lines(some: list[str], line_end: str, last: str) -> None:
    """Whenever lines are joined to a valid list, it has the values of the lines."""
    body = (line_end.join(some) + last).encode()
    joined = join_lists(body)
    if joined is None:
        return
    try:
        values = json.loads(joined, parse_constant=reject_constant)
    except ValueError:
        return
    assert parse_json_lines(body, DEPTH, ROWS_MAX) == values


def test_usual_lines_are_joined() -> None:
    """Lists of numbers in a line each become one list."""
    for body in (b"[1, 2]\n[3, 4]\n", b"[1, 2]\r\n[3, 4]\r\n\r\n", b"[1, 2]\n[3, 4]"):
        assert json.loads(join_lists(body) or b"") == [[1, 2], [3, 4]]
