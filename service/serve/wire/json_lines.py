"""Parse JSON Lines: one row in each line, as a list or an object. SageMaker sends them as `application/jsonlines`.

    [5.1, 3.5, 1.4, 0.2]
    {"features": [5.1, 3.5, 1.4, 0.2]}
    {"petal width (cm)": 0.2, "petal length (cm)": 1.4, "sepal width (cm)": 3.5, "sepal length (cm)": 5.1}

Each line is JSON of the grammar in json_grammar.py. Empty lines are skipped.
"""

import io
from collections.abc import Iterator
from typing import Any

from service.errors import MalformedError
from service.serve.wire.json_grammar import (
    check_container_count,
    check_document,
    check_line_count,
    check_row_count,
    load_json,
)


def parse_json_lines(body: bytes, depth_max: int, rows_max: int, container_rows_max: int | None = None) -> list[Any]:
    """Return the value of each line that is not empty.

    Args:
        body: The bytes.
        depth_max: Levels that the lists and objects of a line may nest.
        rows_max: The limit of rows.
        container_rows_max: The limit of rows whose lists and objects the body may have; None for `rows_max`.

    Raises:
        MalformedError: A line is not JSON, nests too deeply, or has an object that repeats a key.
        TooLargeError: There are too many rows, lists and objects.
    """
    check_line_count(body, rows_max)
    check_container_count(body, container_rows_max or rows_max)
    values: list[Any] = []
    for number, line in _read_lines(body):
        try:
            values.append(load_json(line))
        except MalformedError as reason:
            raise _in_line(number, reason) from None
        check_row_count(len(values), rows_max)
    if not values:
        raise MalformedError("The body is empty; send one row in each line.")
    try:
        check_document(values, body, depth_max, around=1)
    except MalformedError:
        _check_each_line(body, depth_max)
        raise
    return values


def join_lists(body: bytes) -> bytes | None:
    """Return lines as one JSON list, if each is a list without others in it as far as brackets show; else None."""
    text = body.rstrip(b"\r\n")
    ends = text.count(b"\n")
    if ends != text.count(b"]\n[") + text.count(b"]\r\n[") or text.count(b"[") != ends + 1:
        return None
    return b"[%b]" % text.replace(b"\n", b",")


def _read_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not empty, with its number from 1."""
    return ((number, line) for number, line in enumerate(io.BytesIO(body), 1) if not line.isspace())


def _check_each_line(body: bytes, depth_max: int) -> None:
    """Raise MalformedError with the number of the first line that is wrong."""
    for number, line in _read_lines(body):
        try:
            check_document([load_json(line)], line, depth_max, around=1)
        except MalformedError as reason:
            raise _in_line(number, reason) from None


def _in_line(number: int, reason: MalformedError) -> MalformedError:
    return MalformedError(f"Line {number}{str(reason).removeprefix('The body')}")
