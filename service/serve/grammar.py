"""The one JSON grammar: which bytes are a document, and what a refusal says.

RFC 8259 in UTF-8 without a byte order mark, and one thing stricter: an object has no key twice. orjson makes the Python
objects and so decides every doubtful case; the quicker readers in scanner.py and codec.py accept a part of this grammar
and nothing outside it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from service.errors import MalformedError, UnacceptableError

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


def load(body: bytes, depth_max: int) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        MalformedError: The bytes are not JSON, are nested too deeply, are not an object, or repeat a key.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(_explain(error, body)) from None
    if type(document) is not dict:
        raise MalformedError("The body must be a JSON object.")
    if deeper_than(document, depth_max):
        raise MalformedError(f"The body nests deeper than {depth_max} levels.")
    if _strings_in_text(body) != strings_in(document):
        raise MalformedError("The body has an object with the same key twice.")
    return document


def _explain(error: orjson.JSONDecodeError, body: bytes) -> str:
    """Say where the JSON breaks, without a byte of what stands there."""
    if not body.strip():
        return "The body is empty; send a JSON object."
    if "depth limit" in str(error):
        return "The body nests too deeply."
    if "infinity" in str(error):
        return "The body has a number that is too large for a 64-bit float."
    return f"The body is not valid JSON (RFC 8259, UTF-8); it breaks near character {error.pos}."


def deeper_than(document: object, levels: int) -> bool:
    """Whether lists and objects nest deeper than `levels`; a breadth-first walk that skips rows of plain numbers."""
    layer: list[Any] = [document]
    for _ in range(levels):
        layer = [
            child
            for node in layer
            for child in (node.values() if type(node) is dict else node)
            if type(child) is list or type(child) is dict
        ]
        if not layer:
            return False
    return True


def _strings_in_text(body: bytes) -> int:
    """The number of strings, keys included, in the text of a valid JSON document."""
    if b"\\" in body:
        return sum(1 for _ in _STRINGS.finditer(body))
    return body.count(b'"') // 2


def strings_in(document: object) -> int:
    """The number of strings, keys included, in a parsed document; smaller than in its text where a key was repeated."""
    count = 0
    rest: list[Any] = [document]
    while rest:
        node = rest.pop()
        if type(node) is dict:
            count += len(node)
            rest.extend(node.values())
        elif type(node) is list:
            rest.extend(child for child in node if type(child) is list or type(child) is dict)
            count += sum(type(child) is str for child in node)
        elif type(node) is str:
            count += 1
    return count


def lists_in(document: object) -> int:
    """The number of lists in a parsed document."""
    if type(document) is dict:
        return sum(map(lists_in, document.values()))
    return 1 + sum(map(lists_in, document)) if type(document) is list else 0


def check_fields(document: dict[str, Any], known: Iterable[str]) -> None:
    """Raise UnacceptableError where a document has a field that is not known."""
    known = tuple(known)
    if not document.keys() <= set(known):
        raise UnacceptableError(f"The body has an unknown field; known are {', '.join(known)}.")
