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
# A term of a vocabulary takes some 500 bytes; larger vocabularies are converted in memory.
SCHEMA_BYTES_MAX: Final = 48 << 20
# Brackets and commas; skops writes one in some 45 bytes, and a value takes up to 40 bytes in memory.
STRUCTURE_MAX: Final = 4 << 20
STRUCTURE: Final = (b"[", b"{", b",")


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
    schema = _parse(archive.read(SCHEMA_NAME, SCHEMA_BYTES_MAX))
    protocol = schema.get("protocol")
    if isinstance(protocol, bool) or protocol not in PROTOCOLS:
        raise ConversionError(f"{SCHEMA_NAME} has another protocol than {PROTOCOLS[0]} to {PROTOCOLS[-1]}")
    value = NodeReader(archive).to_value(schema)
    if not isinstance(value, PlainObject):
        raise ConversionError("the file holds something else than an estimator")
    return value


def _parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of the schema, in which nodes that differ by their id alone are one."""
    if sum(map(raw.count, STRUCTURE)) > STRUCTURE_MAX:
        raise ConversionError(f"{SCHEMA_NAME} has more than {STRUCTURE_MAX} values")
    if not raw.isascii():
        raise ConversionError(f"{SCHEMA_NAME} is not as skops writes it: it must be ASCII")
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
        schema = json.loads(raw.decode("ascii"), object_pairs_hook=make_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON, or nests too deep") from None
    if not isinstance(schema, dict):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON object")
    return schema


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")
