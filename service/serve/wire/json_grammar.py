"""The JSON grammar of request bodies: parse, check limits, and word the errors.

The grammar is RFC 8259 in UTF-8; a byte order mark before it is ignored, and an object may not repeat a key. orjson
makes the Python objects, so it decides every doubtful case. The faster parsers in row_scanner.py and rows.py accept a
subset of this grammar and nothing else.
"""

import contextlib
import json
from collections.abc import Iterable
from itertools import chain, islice
from operator import countOf
from typing import Any, Final

import numpy as np
import orjson

from service.errors import MalformedError, TooLargeError, UnacceptableError

# Lists and objects that a body may have in addition to rows and labels; no useful request needs as many.
OTHER_CONTAINERS_MAX: Final = 4096
# Bytes counted at a time, so that a body with too many lists is rejected before it is read to its end.
CHUNK_BYTES: Final = 1 << 20
NUMBER_TYPES: Final = frozenset((int, float))
# A repeated key is searched for in bodies up to this size; the search makes every object a second time, and slowly.
REPEATED_KEY_BYTES_MAX: Final = 64 << 10
# A longer name of a member or an input is not repeated in an error.
QUOTED_NAME_MAX: Final = 64
# An error repeats at most so many names.
QUOTED_NAMES_MAX: Final = 3
# Names are looked at until enough can be repeated, but no more than these: a body may have millions.
NAMES_LOOKED_AT_MAX: Final = 100
# Editors and PowerShell of Windows write it before the text.
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
QUOTE, BRACKET, BRACE = b'"[{'

_CONTAINER_TYPES: Final = frozenset((list, dict))


def parse_object(body: bytes, depth_max: int, rows_max: int) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        body: The bytes.
        depth_max: Levels that lists and objects may nest.
        rows_max: The limit of rows, which limits the number of lists and objects.

    Raises:
        MalformedError: The bytes are not JSON, are nested too deeply, are not an object, or repeat a key.
        TooLargeError: There are more lists and objects than `rows_max` rows and their labels need.
    """
    check_container_count(body, rows_max)
    document = load_json(body)
    if type(document) is not dict:
        raise MalformedError("The body must be a JSON object.")
    check_document(document, body, depth_max)
    return document


def load_json(body: bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Return the value of a JSON text, or raise MalformedError."""
    body = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(_explain(error, body)) from None


def check_document(document: dict[str, Any] | list[Any], body: bytes, depth_max: int, *, around: int = 0) -> None:
    """Raise MalformedError if a parsed body nests too deeply, or an object in it repeats a key.

    Args:
        document: The value of the body.
        body: The bytes.
        depth_max: Levels that lists and objects may nest.
        around: Levels of `document` that the body does not have.
    """
    depth, strings = measure_document(document)
    if depth - around > depth_max:
        raise MalformedError(f"The body nests deeper than {depth_max} levels; nest fewer lists and objects.")
    if _count_strings(body) != strings:
        raise MalformedError(f"The body has an object with the same key twice{list_names(_find_repeated_keys(body))}.")


def containers_max(rows_max: int) -> int:
    """Return how many lists and objects a body may have.

    The limit bounds memory: an empty list takes 3 bytes of text, and about 60 as a Python object.
    """
    return 2 * rows_max + OTHER_CONTAINERS_MAX


def check_container_count(body: bytes, rows_max: int) -> None:
    """Raise TooLargeError if a body has too many lists and objects; no Python objects are made for the check."""
    limit, brackets = containers_max(rows_max), 0
    for start in range(0, len(body), CHUNK_BYTES):
        stop = start + CHUNK_BYTES
        brackets += body.count(b"[", start, stop) + body.count(b"{", start, stop)
        if brackets > limit:
            if _has_more_containers(body, limit):
                raise TooLargeError(f"The body may have at most {limit} lists and objects; send several requests.")
            return


def check_line_count(body: bytes, rows_max: int) -> None:
    """Raise TooLargeError if a text has more lines than lists and objects that a JSON body may have."""
    limit = containers_max(rows_max)
    if body.count(b"\n") + body.count(b"\r") - body.count(b"\r\n") > limit:
        raise TooLargeError(f"The body may have at most {limit} lines; send several requests.")


def check_row_count(rows: int, rows_max: int) -> None:
    """Raise TooLargeError if a request has more rows than the limit."""
    if rows > rows_max:
        raise TooLargeError(f"A request may have at most {rows_max} rows; send several requests.")


def _has_more_containers(body: bytes, limit: int) -> bool:
    """Return whether a JSON text has more lists and objects than `limit`; brackets in strings do not count."""
    text = np.frombuffer(_remove_escapes(body), np.uint8)
    containers, in_string = 0, np.False_
    for start in range(0, len(text), CHUNK_BYTES):
        chunk = text[start : start + CHUNK_BYTES]
        quoted = np.logical_xor.accumulate(chunk == QUOTE) ^ in_string
        containers += int(np.count_nonzero(((chunk == BRACKET) | (chunk == BRACE)) & ~quoted))
        if containers > limit:
            return True
        in_string = quoted[-1]
    return False


def _explain(error: orjson.JSONDecodeError, body: bytes) -> str:
    """Return a sentence that says where the JSON breaks, without repeating any of its bytes."""
    if not body.strip():
        return "The body is empty; send a JSON object."
    if "depth limit" in str(error):
        return "The body nests too deeply; nest fewer lists and objects."
    if "infinity" in str(error):
        return "The body has a number that is too large for a 64-bit float."
    if "UTF-8:" in str(error):  # the parser does not report the position
        return "The body is not valid UTF-8; encode the JSON as UTF-8 (RFC 8259)."
    return f"The body is not valid JSON (RFC 8259, UTF-8); the error is near character {error.pos}."


def _count_strings(body: bytes) -> int:
    """Return the number of strings, keys included, in a valid JSON text."""
    return _remove_escapes(body).count(b'"') // 2


def _remove_escapes(body: bytes) -> bytes:
    """Return a JSON text without escaped backslashes and quotes, so that each quote starts or ends a string."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body


def measure_document(document: dict[str, Any] | list[Any]) -> tuple[int, int]:
    """Measure a parsed document; types are checked in bulk, because a body may hold millions of numbers.

    Returns:
        How deep lists and objects nest, and the number of strings, keys included. The text has more strings than that
        if it repeats a key.
    """
    layer: list[Any] = [document]
    depth = strings = 0
    while layer:
        depth += 1
        strings += sum(len(node) for node in layer if type(node) is dict)
        children = [node.values() if type(node) is dict else node for node in layer]
        kinds = set(map(type, chain.from_iterable(children)))
        if str in kinds:
            strings += countOf(map(type, chain.from_iterable(children)), str)
        if kinds.isdisjoint(_CONTAINER_TYPES):
            break
        layer = [child for child in chain.from_iterable(children) if type(child) is list or type(child) is dict]
    return depth, strings


def count_lists(document: object) -> int:
    """Return the number of lists in a parsed document."""
    if type(document) is dict:
        return sum(map(count_lists, document.values()))
    return 1 + sum(map(count_lists, document)) if type(document) is list else 0


def _find_repeated_keys(body: bytes) -> list[str]:
    """Return the keys of the first object in a JSON text that has one of them twice; none if the text is long."""
    found: list[str] = []

    def keep_repeated(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs if not found else ():
            (found.append if key in seen else seen.add)(key)

    if len(body) <= REPEATED_KEY_BYTES_MAX:
        with contextlib.suppress(ValueError, RecursionError):  # a value that a repeated key replaces is not measured
            json.loads(body, object_pairs_hook=keep_repeated, parse_int=str, parse_float=str)
    return found


def check_fields(document: dict[str, Any], known: Iterable[str]) -> None:
    """Raise UnacceptableError if a document has an unknown field."""
    known = tuple(known)
    unknown = document.keys() - set(known)
    if unknown:
        several = "unknown fields" if len(unknown) > 1 else "an unknown field"
        names = list_names(name for name in document if name in unknown)
        raise UnacceptableError(f"The body has {several}{names}; known fields are {', '.join(known)}.")


def known_fields(document: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a document without those that are null, because null means absent.

    Raises:
        UnacceptableError: The document has an unknown field.
    """
    check_fields(document, known)
    return drop_nulls(document)


def drop_nulls(document: dict[str, Any]) -> dict[str, Any]:
    """Return an object without the members that are null."""
    return {name: value for name, value in document.items() if value is not None}


def list_names(names: Iterable[str]) -> str:
    """Return a comma and the first of some names in quotes; "" if an error cannot repeat any of them."""
    short = filter(None, map(quote_name, islice(names, NAMES_LOOKED_AT_MAX)))
    return "".join(f", {name}" for name in islice(short, QUOTED_NAMES_MAX))


def quote_name(name: str) -> str:
    """Return a name in quotes for an error; "" if it is not short and printable ASCII."""
    return orjson.dumps(name).decode() if name.isascii() and name.isprintable() and len(name) <= QUOTED_NAME_MAX else ""
