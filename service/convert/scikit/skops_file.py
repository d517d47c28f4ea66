"""Read a .skops file: a zip archive with `schema.json`, whose nodes are in skops_nodes.py, and arrays.

Files of skops 0.1 to 0.16 have the protocols 0 to 2, which differ in nodes that a classifier does not need. Neither
skops nor scikit-learn is imported, and no name in the file is more than a key of a table.
"""

from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import simdjson

from service.convert.archives.zip_archive import ZipArchive
from service.convert.scikit.plain_object import PlainObject
from service.convert.scikit.skops_nodes import NodeReader
from service.errors import ConversionError

SCHEMA_NAME: Final = "schema.json"
PROTOCOLS: Final = (0, 1, 2)
# A term of a vocabulary takes some 500 bytes; larger vocabularies are converted in memory.
SCHEMA_BYTES_MAX: Final = 48 << 20
# Of brackets and commas each needs 16 bytes in the parser; skops writes some 45 bytes for each.
STRUCTURE_MAX: Final = 4 << 20
STRUCTURE: Final = b"[{,"


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
    raw = archive.read(SCHEMA_NAME, SCHEMA_BYTES_MAX)
    if sum(map(raw.count, (bytes([mark]) for mark in STRUCTURE))) > STRUCTURE_MAX:
        raise ConversionError(f"{SCHEMA_NAME} has more than {STRUCTURE_MAX} values")
    schema = _parse(raw)
    protocol = schema.get("protocol")
    if isinstance(protocol, bool) or protocol not in PROTOCOLS:
        raise ConversionError(f"{SCHEMA_NAME} has another protocol than {PROTOCOLS[0]} to {PROTOCOLS[-1]}")
    value = NodeReader(archive).to_value(schema)
    if not isinstance(value, PlainObject):
        raise ConversionError("the file holds something else than an estimator")
    return value


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        schema = simdjson.Parser().parse(raw)
    except (ValueError, RuntimeError, MemoryError):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON, or nests too deep") from None
    if not isinstance(schema, simdjson.Object):
        raise ConversionError(f"{SCHEMA_NAME} is no JSON object")
    return schema
