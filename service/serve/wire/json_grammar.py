"""The one JSON grammar: which bytes are a document, and what a refusal says.

RFC 8259 in UTF-8 without a byte order mark, and one thing stricter: an object has no key twice. orjson makes the Python
objects and so decides every doubtful case; the quicker readers in scanner.py and codec.py accept a part of this grammar
and nothing outside it.
"""

from collections.abc import Iterable
from operator import countOf
from typing import Any, Final

import numpy as np
import orjson

from service.errors import MalformedError, TooLargeError, UnacceptableError

# Lists and objects of a body beside the rows and their labels: far more than any request has a use for.
OTHER_CONTAINERS_MAX: Final = 4096
# Bytes that are counted at once: what has too many lists is refused before all of it was read.
CHUNK_BYTES: Final = 1 << 20

_CONTAINERS: Final = frozenset((list, dict))
_QUOTE, _BRACKET, _BRACE = b'"[{'


def parse_object(body: bytes, depth_max: int, rows_max: int) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        MalformedError: The bytes are not JSON, are nested too deeply, are not an object, or repeat a key.
        TooLargeError: They hold more lists and objects than that many rows with their labels need.
    """
    check_container_count(body, rows_max)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(_explain(error, body)) from None
    if type(document) is not dict:
        raise MalformedError("The body must be a JSON object.")
    depth, strings = measure_document(document)
    if depth > depth_max:
        raise MalformedError(f"The body nests deeper than {depth_max} levels.")
    if _strings_in_text(body) != strings:
        raise MalformedError("The body has an object with the same key twice.")
    return document


def containers_max(rows_max: int) -> int:
    """The number of lists and objects that a body may have: an empty one takes 3 bytes, and some 60 as an object."""
    return 2 * rows_max + OTHER_CONTAINERS_MAX


def check_container_count(body: bytes, rows_max: int) -> None:
    """Raise TooLargeError, before anything is made of them, where a body has more lists and objects than it may."""
    lists_max, seen = containers_max(rows_max), 0
    for at in range(0, len(body), CHUNK_BYTES):
        seen += body.count(b"[", at, at + CHUNK_BYTES) + body.count(b"{", at, at + CHUNK_BYTES)
        if seen > lists_max:
            if _opens_more(body, lists_max):
                raise TooLargeError(f"The body may have at most {lists_max} lists and objects; send several requests.")
            return


def _opens_more(body: bytes, lists_max: int) -> bool:
    """Whether the text of a JSON document has more lists and objects than that; brackets in its strings are none."""
    text = np.frombuffer(_without_escapes(body), np.uint8)
    opened, inside = 0, np.False_
    for at in range(0, len(text), CHUNK_BYTES):
        part = text[at : at + CHUNK_BYTES]
        quoted = np.logical_xor.accumulate(part == _QUOTE) ^ inside
        opened += int(np.count_nonzero(((part == _BRACKET) | (part == _BRACE)) & ~quoted))
        if opened > lists_max:
            return True
        inside = quoted[-1]
    return False


def _explain(error: orjson.JSONDecodeError, body: bytes) -> str:
    """Say where the JSON breaks, without a byte of what stands there."""
    if not body.strip():
        return "The body is empty; send a JSON object."
    if "depth limit" in str(error):
        return "The body nests too deeply."
    if "infinity" in str(error):
        return "The body has a number that is too large for a 64-bit float."
    if "UTF-8:" in str(error):  # the parser does not say where
        return "The body is not valid UTF-8, and JSON has to be (RFC 8259)."
    return f"The body is not valid JSON (RFC 8259, UTF-8); it breaks near character {error.pos}."


def _strings_in_text(body: bytes) -> int:
    """The number of strings, keys included, in the text of a valid JSON document."""
    return _without_escapes(body).count(b'"') // 2


def _without_escapes(body: bytes) -> bytes:
    """The text of a valid JSON document without escaped backslashes and quotes, so that every quote ends a string."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body


def measure_document(document: dict[str, Any] | list[Any]) -> tuple[int, int]:
    """How deep lists and objects nest in a parsed document, and the number of its strings, keys included.

    There are fewer strings than in its text where a key was repeated. Types are looked at in bulk, for a body may hold
    millions of numbers.
    """
    layer: list[Any] = [document]
    depth = strings = 0
    while layer:
        depth, below = depth + 1, []
        for node in layer:
            if type(node) is dict:
                strings += len(node)
            children = node.values() if type(node) is dict else node
            kinds = set(map(type, children))
            if str in kinds:
                strings += countOf(map(type, children), str)
            if not kinds.isdisjoint(_CONTAINERS):
                below += [child for child in children if type(child) is list or type(child) is dict]
        layer = below
    return depth, strings


def count_lists(document: object) -> int:
    """The number of lists in a parsed document."""
    if type(document) is dict:
        return sum(map(count_lists, document.values()))
    return 1 + sum(map(count_lists, document)) if type(document) is list else 0


def check_fields(document: dict[str, Any], known: Iterable[str]) -> None:
    """Raise UnacceptableError where a document has a field that is not known."""
    known = tuple(known)
    if not document.keys() <= set(known):
        raise UnacceptableError(f"The body has an unknown field; known are {', '.join(known)}.")
