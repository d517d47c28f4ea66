"""The payloads of admin events: JSON objects, small but for BASE, in one canonical form: equal calls are equal bytes.

Keys are sorted, there is no white space, text is UTF-8. feedback.py has the table of what each kind holds. Parsing is
total: any bytes give a value or a PayloadError. Two kinds say more than that table:

    FORGET     {"bases": [seq, …], …}           BASE events whose states held what is forgotten; they are forgotten too
    BASE       {"seq": s, "turns": t, …}        its state stands for the events up to s, as the first t admin events
                                                turned them; learn/fold_upgrade.py has the other fields
               id: 0xFF "base <version> <fold>" no client's, whose ids are UTF-8; it outlives the payload
"""

import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import orjson

from service.errors import PayloadError

T = TypeVar("T")

# Room for 10⁵ ids to forget in one call.
PAYLOAD_BYTES_MAX = 32 << 20
# SQLite takes no larger value than 10⁹ bytes.
BASE_BYTES_MAX = 900_000_000
BASE_ID = re.compile(rb"\xffbase [1-9][0-9]* ([1-9][0-9]{0,8})")


def dump(fields: Mapping[str, object]) -> bytes:
    """The canonical bytes of a payload, from plain JSON values."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def parse(payload: bytes, bytes_max: int | None = None) -> dict[str, object]:
    """The fields of any admin payload, of at most PAYLOAD_BYTES_MAX where nothing else is said."""
    bytes_max = PAYLOAD_BYTES_MAX if bytes_max is None else bytes_max
    if len(payload) > bytes_max:
        raise PayloadError(f"an admin event may have {bytes_max} bytes")
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


def dump_forget(seqs: Sequence[int], bases: Sequence[int] = ()) -> bytes:
    """The payload of FORGET as it is stored: ascending, each once."""
    return dump({"seqs": sorted(set(seqs)), **({"bases": sorted(set(bases))} if bases else {})})


def parse_forget(payload: bytes) -> tuple[int, ...]:
    """The seqs that a FORGET event takes out, at least one."""
    return _list(payload, "seqs", _whole)


def parse_forgotten_bases(payload: bytes) -> tuple[int, ...]:
    """The seqs of the BASE events that a FORGET event takes along, often none."""
    return _list(payload, "bases", _whole) if "bases" in parse(payload) else ()


def dump_seq(seq: int) -> bytes:
    """The payload of ROLLBACK and of SKIP."""
    return dump({"seq": seq})


def parse_seq(payload: bytes) -> int:
    """The seq that a ROLLBACK goes back to, or that a SKIP leaves out."""
    return _whole(parse(payload).get("seq"))


def parse_base(payload: bytes) -> tuple[int, int]:
    """The seq up to which a BASE stands for the events, and how many admin events its state knew of."""
    fields = parse(payload, BASE_BYTES_MAX)
    return _whole(fields.get("seq")), _whole(fields.get("turns"))


def base_id(version: int, fold_version: int) -> bytes:
    """The id of the BASE event by which a fold takes over the stream of a model's version: there is one at most."""
    return b"\xffbase %d %d" % (version, fold_version)


def fold_of_base(id_: bytes) -> int:
    """The fold that took over by a BASE event with this id."""
    match = BASE_ID.fullmatch(id_)
    if match is None:
        raise PayloadError("the id of a base is none that a base has")
    return int(match[1])


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
