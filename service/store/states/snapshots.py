"""The file format of snapshots and checkpoints: named arrays and fields, in one checksummed file.

    offset  size  field
    0       8     "SFSTSNAP"
    8       4     format version, 1
    12      4     H, bytes of the header
    16      8     bytes of the whole file
    24      32    SHA-256 of everything from byte 64 on
    56      8     zeros
    64      H     header, JSON: {"arrays": [[name, dtype, [size, …], offset], …], "fields": {…}}
    …             each array at its offset, a multiple of 64 from the start of the file, row-major, little-endian

A file is valid if its length, its checksum and the place of every array are as it says. It never changes: a new one is
written beside it and renamed, so a reader sees all of a file or none, and a mapped file stays as it is. Snapshots are
derived, so a loss of power may lose them; checkpoints are synced before they are renamed.

A file with a field "base" has only changes: its array `base` is that of another file, which bases.py describes.
"""

import hashlib
import math
import mmap
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.store.artifact.mapped_artifact import BASE
from service.store.filesystem import make_folder, write_whole_file

MAGIC: Final = b"SFSTSNAP"
FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct("<8sIIQ32s8x")
ALIGNMENT: Final = 64  # of a cache line, and of the widest vector
# The folder of a stream that has bases. BASE is the name of their array, and of the field that names one.
BASES_FOLDER: Final = "bases"
BASE_NAME: Final = re.compile(r"[0-9a-f]{32}")
DTYPES: Final = ("<f4", "<f8", "<i4", "<i8", "<u4", "<u8", "|u1", "|i1", "|b1")

Fields = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]


_mapped_bases: Final[WeakValueDictionary[str, NDArray[Any]]] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The content of a file.

    Attributes:
        fields: JSON values that describe the arrays.
        arrays: Each array by its name: mapped from the file, read-only, aligned.
    """

    fields: Fields
    arrays: Arrays


def write_snapshot(folder: Path, seq: int, fields: Fields, arrays: Arrays, *, durable: bool) -> Path:
    """Write a file that appears whole, and replaces one of the same seq.

    Args:
        folder: The folder, created if it is missing.
        seq: The event up to which the state is folded.
        fields: JSON values that describe the arrays.
        arrays: Numbers or truth values of any shape and memory order.
        durable: Whether the file must survive a loss of power.

    Returns:
        The path of the file.

    Raises:
        OSError: The disk failed; an existing file is unchanged.
    """
    make_folder(folder)
    path = folder / str(seq)
    write_arrays(path, fields, arrays, durable=durable)
    return path


def write_arrays(path: Path, fields: Fields, arrays: Arrays, *, durable: bool) -> None:
    """Write a file of this format under any name in an existing folder; the rest is as in `write_snapshot`."""
    write_whole_file(path, encode_file(fields, arrays), durable=durable)


def read_snapshot(path: Path) -> Snapshot:
    """Map a file and check all of it; if it names a base, map that too.

    Raises:
        SnapshotError: It or its base is missing, damaged or of another format.
    """
    snapshot = _read_file(path)
    name = snapshot.fields.get(BASE)
    if name is None:
        return snapshot
    if not isinstance(name, str) or not BASE_NAME.fullmatch(name):
        raise SnapshotError("a snapshot names no valid base")
    base = _map_base(path.parent.parent / BASES_FOLDER / name)
    return Snapshot(snapshot.fields, {**snapshot.arrays, BASE: base})


def read_base(path: Path) -> Arrays:
    """Map a base and check all of it; see bases.py.

    Raises:
        SnapshotError: It is missing, damaged, of another format, or not the one that its name says.
    """
    arrays = _read_file(path).arrays
    try:
        with path.open("rb") as file:
            head = file.read(HEAD.size)
    except OSError as error:
        raise SnapshotError("a base cannot be read") from error
    if BASE not in arrays or len(head) != HEAD.size or name_base(head) != path.name:
        raise SnapshotError("a base is not the one that its name says")
    return {**arrays, BASE: _mapped_bases.setdefault(str(path), arrays[BASE])}


def _map_base(path: Path) -> NDArray[Any]:
    """Return the array of a base; it is mapped and checked once while any state of this process uses it."""
    mapped = _mapped_bases.get(str(path))
    return read_base(path)[BASE] if mapped is None else mapped


def _read_file(path: Path) -> Snapshot:
    memory = _map_file(path)
    size, header_bytes, checksum = _parse_head(memory)
    if size != len(memory) or hashlib.sha256(memoryview(memory)[HEAD.size :]).digest() != checksum:
        raise SnapshotError("a snapshot is damaged: its length or checksum is wrong")
    header = _parse_header(memory, header_bytes)
    try:
        return Snapshot(header["fields"], {name: _map_array(memory, *place) for name, *place in header["arrays"]})
    except (KeyError, TypeError, ValueError):
        raise SnapshotError("the header of a snapshot is damaged") from None


def read_fields(path: Path) -> Fields:
    """Return the fields of a file without reading or checking its arrays.

    Raises:
        SnapshotError: The file is missing, its header is damaged, or it has another format.
    """
    memory = _map_file(path)
    _, header_bytes, _ = _parse_head(memory)
    fields: Fields = _parse_header(memory, header_bytes)["fields"]
    return fields


def name_base(head: bytes) -> str:
    """Return the name of a base, given the head of its file."""
    checksum: bytes = HEAD.unpack(head)[4]
    return checksum.hex()[:32]


def encode_file(fields: Fields, arrays: Arrays) -> list[bytes]:
    """Return the parts of a file, in order, beginning with its head."""
    stored = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    places = [[name, array.dtype.str, list(array.shape), 0] for name, array in stored.items()]
    # Room for offsets of any width, so that the length of the header does not depend on them.
    header_bytes = len(orjson.dumps({"arrays": places, "fields": fields})) + 20 * len(places)
    offset = HEAD.size + header_bytes
    parts = []
    for place, array in zip(places, stored.values(), strict=True):
        padding = -offset % ALIGNMENT
        place[3] = offset + padding
        parts += [bytes(padding), array.tobytes()]
        offset += padding + array.nbytes
    header = orjson.dumps({"arrays": places, "fields": fields}).ljust(header_bytes)
    digest = hashlib.sha256(header)
    for part in parts:
        digest.update(part)
    return [HEAD.pack(MAGIC, FORMAT_VERSION, header_bytes, offset, digest.digest()), header, *parts]


def _map_file(path: Path) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise SnapshotError("a snapshot cannot be read") from error


def _parse_head(memory: mmap.mmap) -> tuple[int, int, bytes]:
    """Return the size of the file, the length of the header, and the checksum."""
    if len(memory) < HEAD.size:
        raise SnapshotError("a snapshot is shorter than its head")
    magic, version, header_bytes, size, checksum = HEAD.unpack_from(memory)
    if (magic, version) != (MAGIC, FORMAT_VERSION):
        raise SnapshotError("a file is not a snapshot of this format version")
    return size, header_bytes, checksum


def _parse_header(memory: mmap.mmap, header_bytes: int) -> dict[str, Any]:
    try:
        header = orjson.loads(memory[HEAD.size : HEAD.size + header_bytes])
    except orjson.JSONDecodeError:
        raise SnapshotError("the header of a snapshot is not JSON") from None
    if not isinstance(header, dict) or not isinstance(header.get("fields"), dict):
        raise SnapshotError("the header of a snapshot is damaged")
    return header


def _map_array(memory: mmap.mmap, dtype: str, shape: list[int], offset: int) -> NDArray[Any]:
    """Return an array over the mapped file; its place is checked even though the checksum holds."""
    if dtype not in DTYPES:
        raise SnapshotError("a snapshot has an array of an unknown type")
    size = math.prod(shape)
    if offset % ALIGNMENT or offset < 0 or size < 0 or offset + size * np.dtype(dtype).itemsize > len(memory):
        raise SnapshotError("an array of a snapshot is not within its file")
    return np.frombuffer(memory, dtype, size, offset).reshape(shape)
