"""The payloads of admin events: small JSON objects, written in one canonical form so that equal calls are equal bytes.

Keys are sorted, there is no white space, text is UTF-8. feedback.py has the table of what each kind holds. Parsing is
total: any bytes give a value or a PayloadError.
"""

import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import orjson

from service.errors import PayloadError

T = TypeVar("T")

# Room for 10⁵ ids to forget in one call.
PAYLOAD_BYTES_MAX = 32 << 20


def dump(fields: Mapping[str, object]) -> bytes:
    """The canonical bytes of a payload, from plain JSON values."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def parse(payload: bytes) -> dict[str, object]:
    """The fields of any admin payload."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PayloadError(f"an admin event may have {PAYLOAD_BYTES_MAX} bytes")
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise PayloadError("the payload is not JSON") from None
    if not isinstance(fields, dict):
        raise PayloadError("the payload is not a JSON object")
    return fields


def dump_classes(names: Sequence[str]) -> bytes:
    """The payload of CLASSES."""
    return dump({"add": list(names)})


def parse_classes(payload: bytes) -> tuple[str, ...]:
    """The names that a CLASSES event adds, at least one."""
    return _list(payload, "add", _text)


def dump_forget_ids(ids: Sequence[bytes]) -> bytes:
    """The payload of a draft that forgets the events with these ids."""
    return dump({"ids": [id_.hex() for id_ in ids]})


def parse_forget_ids(payload: bytes) -> tuple[bytes, ...]:
    """The ids that a draft of FORGET names, at least one."""
    return _list(payload, "ids", _hexadecimal)


def dump_forget(seqs: Sequence[int]) -> bytes:
    """The payload of FORGET as it is stored: ascending, each once."""
    return dump({"seqs": sorted(set(seqs))})


def parse_forget(payload: bytes) -> tuple[int, ...]:
    """The seqs that a FORGET event takes out, at least one."""
    return _list(payload, "seqs", _whole)


def dump_seq(seq: int) -> bytes:
    """The payload of ROLLBACK and of SKIP."""
    return dump({"seq": seq})


def parse_seq(payload: bytes) -> int:
    """The seq that a ROLLBACK goes back to, or that a SKIP leaves out."""
    return _whole(parse(payload).get("seq"))


def parse_base(payload: bytes) -> int:
    """The number of classes that a BASE event starts with; further fields are the fold's."""
    return _whole(parse(payload).get("n_classes"))


def _list(payload: bytes, field: str, item: Callable[[object], T]) -> tuple[T, ...]:
    values = parse(payload).get(field)
    if not isinstance(values, list) or not values:
        raise PayloadError(f"the payload has no list of {field}")
    return tuple(item(value) for value in values)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise PayloadError("a name is not a text")
    return value


def _hexadecimal(value: object) -> bytes:
    try:
        return binascii.unhexlify(_text(value))
    except ValueError:  # binascii.Error is one
        raise PayloadError("an id is not hexadecimal") from None


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PayloadError("a seq or a number is not a whole number")
    return value
