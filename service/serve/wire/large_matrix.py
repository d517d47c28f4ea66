"""Cut a large matrix out of a JSON text, so that a fast parser reads it and the general one only what is around it."""

import contextlib
from typing import Any, Final

from service.errors import InputError
from service.serve.wire.json_grammar import check_container_count, parse_object
from service.serve.wire.rows import SIMDJSON_BYTES_MIN, RowParser

SPLIT: Final = "dataframe_split"
INSTANCES: Final = "instances"
DATA: Final = "data"
# The keys whose value may be a large matrix.
MATRIX_KEYS: Final = (INSTANCES, DATA)


def cut_matrix(body: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """Return a JSON text with null in place of the first value of a key, and that value; None if unsure.

    The value is a matrix, so it has no string, and ends at the last bracket before the next quote. If it is one JSON
    value, and the text around it is JSON with null in its place, the body is JSON too. Without a backslash, every quote
    starts or ends a string, so the only key with this name is the one whose value was cut out.

    Args:
        body: The text.
        key: The key with its quotes.
    """
    place = body.find(key)
    start = body.find(b"[", place)
    quote = body.find(b'"', start)
    stop = body.rfind(b"]", start, quote if quote > 0 else len(body)) + 1
    if not 0 < place < start < stop or body[place + len(key) : start].strip() != b":":
        return None
    rest = body[:start] + b"null" + body[stop:]
    return None if b"\\" in rest or rest.count(key) != 1 else (rest, body[start:stop])


def parse_table(body: bytes, rows: RowParser, rows_max: int) -> dict[str, Any]:
    """Parse a JSON object; the matrix of a large one is an array X (B, N) if a fast parser could read it.

    The matrix is the value of "instances", or of "data" in "dataframe_split" or in the object itself.

    Args:
        body: The bytes.
        rows: The parser of the model's rows.
        rows_max: The limit of rows, which limits the number of lists and objects.

    Raises:
        MalformedError: The body cannot be parsed.
        TooLargeError: The body has too many lists and objects.
    """
    if len(body) >= SIMDJSON_BYTES_MIN:
        check_container_count(body, rows_max)
        for key in MATRIX_KEYS:
            with contextlib.suppress(InputError):  # the general parser words it
                document = _parse_around(body, key, rows, rows_max)
                if document is not None:
                    return document
    return parse_object(body, rows.depth_max, rows_max)


def _parse_around(body: bytes, key: str, rows: RowParser, rows_max: int) -> dict[str, Any] | None:
    """Return the object of a body, with an array as the value of a key; None if unsure."""
    cut = cut_matrix(body, b'"%b"' % key.encode())
    if cut is None:
        return None
    rest, matrix = cut
    document = parse_object(rest, rows.depth_max, rows_max)
    table = document.get(SPLIT, document) if key == DATA else document
    # The null that stands for the matrix may be elsewhere.
    if type(table) is not dict or table.get(key, rest) is not None:
        return None
    X = rows.parse_usual(b'{"instances":%b}' % matrix)
    if X is None:
        return None
    table[key] = X
    return document
