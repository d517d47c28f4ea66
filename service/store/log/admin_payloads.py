"""The payloads of admin events: JSON objects in one canonical form, so that equal calls are equal bytes.

Keys are sorted, there is no white space, and text is UTF-8. `events.py` has the table of what each kind contains; the
payload of CORRECT is binary (correction_payload.py). All payloads but those of BASE are small. Any bytes parse to a
value or a PayloadError. Two kinds have more fields than the table says:

    FORGET     {"bases": [seq, …], …}           BASE events whose states include forgotten events, forgotten too
               {"corrections": [seq, …], …}     CORRECT events of forgotten events, forgotten too
    BASE       {"seq": s, "turns": t, …}        its state replaces the events up to s, according to the first t admin
                                                events; learn/base_state.py has the state
               id: 0xFF "base <version> <fold>" differs from all clients' ids, which are UTF-8; it outlives the payload
"""

import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import orjson

from service.errors import PayloadError

T = TypeVar("T")

# Room for 10⁵ ids to forget in one call.
PAYLOAD_BYTES_MAX: Final = 32 << 20
# SQLite accepts no larger value than 10⁹ bytes.
BASE_BYTES_MAX: Final = 900_000_000
BASE_ID: Final = re.compile(rb"\xffbase [1-9][0-9]* ([1-9][0-9]{0,8})")


def dump(fields: Mapping[str, object]) -> bytes:
    """Return the canonical bytes of a payload, from plain JSON values."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def parse(payload: bytes, bytes_max: int | None = None) -> dict[str, object]:
    """Return the fields of any admin payload, of at most `bytes_max` bytes, by default PAYLOAD_BYTES_MAX."""
    bytes_max = PAYLOAD_BYTES_MAX if bytes_max is None else bytes_max
    if len(payload) > bytes_max:
        raise PayloadError(f"an admin event has at most {bytes_max} bytes; send several smaller ones")
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise PayloadError("the payload is not JSON") from None
    if not isinstance(fields, dict):
        raise PayloadError("the payload is not a JSON object")
    return fields


def dump_classes(names: Sequence[str]) -> bytes:
    """Return the payload of CLASSES."""
    return dump({"add": list(names)})


def parse_classes(payload: bytes) -> tuple[str, ...]:
    """Return the names that a CLASSES event adds, at least one."""
    return _parse_list(payload, "add", _parse_text)


def dump_forget_ids(ids: Sequence[bytes]) -> bytes:
    """Return the payload of a draft that forgets the events with these ids."""
    return dump({"ids": [id_.hex() for id_ in ids]})


def parse_forget_ids(payload: bytes) -> tuple[bytes, ...]:
    """Return the ids that a draft of FORGET names, at least one."""
    return _parse_list(payload, "ids", _parse_hexadecimal)


def dump_forget(seqs: Sequence[int], bases: Sequence[int] = (), corrections: Sequence[int] = ()) -> bytes:
    """Return the payload of FORGET as it is stored: ascending, without duplicates, and without empty optional lists."""
    optional = {"bases": sorted(set(bases)), "corrections": sorted(set(corrections))}
    return dump({"seqs": sorted(set(seqs)), **{name: values for name, values in optional.items() if values}})


def parse_forget(payload: bytes) -> tuple[int, ...]:
    """Return the seqs that a FORGET event excludes, at least one."""
    return _parse_list(payload, "seqs", _parse_whole_number)


def parse_forgotten_bases(payload: bytes) -> tuple[int, ...]:
    """Return the seqs of the BASE events that a FORGET event forgets too, often none."""
    return _parse_list(payload, "bases", _parse_whole_number) if "bases" in parse(payload) else ()


def parse_forgotten_corrections(payload: bytes) -> tuple[int, ...]:
    """Return the seqs of the CORRECT events that a FORGET event forgets too, often none."""
    return _parse_list(payload, "corrections", _parse_whole_number) if "corrections" in parse(payload) else ()


def dump_seq(seq: int) -> bytes:
    """Return the payload of ROLLBACK and of SKIP."""
    return dump({"seq": seq})


def parse_seq(payload: bytes) -> int:
    """Return the seq that a ROLLBACK returns to, or that a SKIP leaves out."""
    return _parse_whole_number(parse(payload).get("seq"))


def parse_base(payload: bytes) -> tuple[int, int]:
    """Return the seq of a BASE's state, and the number of admin events that it takes into account."""
    fields = parse(payload, BASE_BYTES_MAX)
    return _parse_whole_number(fields.get("seq")), _parse_whole_number(fields.get("turns"))


def base_id(version: int, fold_version: int) -> bytes:
    """Return the id of the only BASE event with which a fold continues the stream of a model's version."""
    return b"\xffbase %d %d" % (version, fold_version)


def fold_of_base(id_: bytes) -> int:
    """Return the version of the fold that continues from the BASE event with this id."""
    match = BASE_ID.fullmatch(id_)
    if match is None:
        raise PayloadError("the id is not the id of a BASE event")
    return int(match[1])


def _parse_list(payload: bytes, field: str, item: Callable[[object], T]) -> tuple[T, ...]:
    values = parse(payload).get(field)
    if not isinstance(values, list) or not values:
        raise PayloadError(f"the payload needs a list of {field}")
    return tuple(item(value) for value in values)


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise PayloadError("a name must be a text of at least one character")
    return value


def _parse_hexadecimal(value: object) -> bytes:
    try:
        return binascii.unhexlify(_parse_text(value))
    except ValueError:  # binascii.Error is one
        raise PayloadError("an id is not hexadecimal") from None


def _parse_whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PayloadError("a seq must be a whole number, 0 or greater")
    return value
