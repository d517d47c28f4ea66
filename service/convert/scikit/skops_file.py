"""Read a .skops file: a zip archive with `schema.json`, whose nodes are in skops_nodes.py, and arrays.

Files of skops 0.1 to 0.16 have the protocols 0 to 2, which differ in nodes that a classifier does not need. Neither
skops nor scikit-learn is imported, and no name in the file is more than a key of a table.
"""

import json
from typing import Any, BinaryIO, Final, NoReturn

from service.convert.archives.zip_archive import ZipArchive
from service.convert.scikit.plain_object import PlainObject
from service.convert.scikit.skops_nodes import NodeReader
from service.errors import ConversionError

SCHEMA_NAME: Final = "schema.json"
PROTOCOLS: Final = (0, 1, 2)
# A term of a vocabulary takes some 625 bytes. A schema of 48 MiB and its values fit into 256 MB of memory. A longer
# one, up to some 400,000 terms, must be as long in the file, and reading takes up to seven times the file's size.
SCHEMA_BYTES_MAX: Final = 48 << 20
STORED_BYTES_MAX: Final = 256 << 20
# The memory, in bytes, of what each character begins: an object with a few members, a list, and a member of one.
VALUE_BYTES: Final = {b"{": 192, b"[": 64, b",": 64}
VALUES_BYTES_MAX: Final = 128 << 20
# The values of what skops writes take 1.7 times the bytes of their text.
VALUES_EXPANSION_MAX: Final = 3

# A member of an object takes some 270 bytes of memory if they are all in one. What skops writes has 57 bytes for each.
MEMBERS_MAX: Final = 650_000
MEMBER_FILE_BYTES: Final = 50


def read_skops(file: BinaryIO) -> PlainObject:
    """Return the object of a .skops file as data.

    Args:
        file: The file, open for reading; it must stay open while attributes are read.

    Raises:
        ConversionError: It is no such file, or exceeds a bound.
    """
    archive = ZipArchive(file)
    if SCHEMA_NAME not in archive.names:
        raise ConversionError(f"the archive has no {SCHEMA_NAME}, so skops has not written it")
    raw = archive.read(SCHEMA_NAME, max(SCHEMA_BYTES_MAX, min(archive.size, STORED_BYTES_MAX)))
    text = _decode(raw, archive.size)
    del raw  # a large schema is in memory once
    schema = _parse(text)
    protocol = schema.get("protocol")
    if isinstance(protocol, bool) or protocol not in PROTOCOLS:
        raise ConversionError(f"{SCHEMA_NAME} has another protocol than {PROTOCOLS[0]} to {PROTOCOLS[-1]}")
    value = NodeReader(archive).to_value(schema)
    if not isinstance(value, PlainObject):
        raise ConversionError("the file holds something else than an estimator")
    return value


def _decode(raw: bytes, file_bytes: int) -> str:
    """Return the text of the schema, whose values take memory as the size of the file allows."""
    values_bytes = sum(size * raw.count(character) for character, size in VALUE_BYTES.items())
    if values_bytes > max(VALUES_BYTES_MAX, VALUES_EXPANSION_MAX * len(raw)):
        raise ConversionError(f"{SCHEMA_NAME} has more values than are allowed for its size")
    if raw.count(b":") > max(MEMBERS_MAX, file_bytes // MEMBER_FILE_BYTES):
        raise ConversionError(f"{SCHEMA_NAME} has more members than are allowed for the size of the file")
    if not raw.isascii():
        raise ConversionError(f"{SCHEMA_NAME} is not as skops writes it: it must be ASCII")
    return raw.decode("ascii")


def _parse(text: str) -> dict[str, Any]:
    """Return the JSON object of the schema, in which nodes that differ by their id alone are one."""
    types: dict[tuple[object, object], dict[str, Any]] = {}

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ConversionError(f"an object of {SCHEMA_NAME} has a member twice")
        if members.get("__loader__") == "TypeNode":
            # A vocabulary has one for each term.
            return types.setdefault((str(members.get("__module__")), str(members.get("__class__"))), members)
        return members

    try:
        schema = json.loads(text, object_pairs_hook=make_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON, or nests too deep") from None
    if not isinstance(schema, dict):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON object")
    return schema


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")
