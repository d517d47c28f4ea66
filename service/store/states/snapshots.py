"""Named arrays and what is said of them, in one checksummed file: published snapshots and checkpoints of a fold.

    offset  size  field
    0       8     "SFSTSNAP"
    8       4     format version, 1
    12      4     H, bytes of the header
    16      8     bytes of the whole file
    24      32    SHA-256 of everything from byte 64 on
    56      8     zeros
    64      H     header, JSON: {"arrays": [[name, dtype, [size, …], offset], …], "fields": {…}}
    …             each array at its offset, a multiple of 64 from the start of the file, row-major, little-endian

A file is valid when its length, its checksum and every array's place are what it says. It is never changed: a new one
is written beside it under a name with a leading dot and renamed, so a reader sees all of a file or none, and what it
has mapped stays. Snapshots are derived, so losing power may cost them; checkpoints are synced before they are named.

    <folder>/<seq>            seq in decimal digits: the event up to which the state is folded
    <folder>/.<seq>.<random>  being written, or left by a process that was killed
"""

import hashlib
import math
import mmap
import os
import re
import secrets
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.store.filesystem import make_folder, sync_folder

MAGIC: Final = b"SFSTSNAP"
FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct("<8sIIQ32s8x")
ALIGNMENT: Final = 64  # of a cache line, and of the widest vector
DTYPES: Final = ("<f4", "<f8", "<i4", "<i8", "<u4", "<u8", "|u1", "|i1", "|b1")
SEQ_NAME: Final = re.compile(r"0|[1-9][0-9]{0,12}")

Fields = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A file's content.

    Attributes:
        fields: What is said of the arrays, as JSON values.
        arrays: Each array by its name: mapped from the file, read-only, aligned.
    """

    fields: Fields
    arrays: Arrays


def write_snapshot(folder: Path, seq: int, fields: Fields, arrays: Arrays, *, durable: bool) -> Path:
    """Writes a file that appears whole, in place of one of that seq.

    Args:
        folder: Where; made where it is missing.
        seq: The event up to which the state is folded.
        fields: What is said of the arrays, as JSON values.
        arrays: Numbers or truth values of any shape and memory order.
        durable: Whether it must outlive a loss of power.

    Returns:
        Its path.

    Raises:
        OSError: The disk refuses; what was there before still stands.
    """
    make_folder(folder)
    path, temporary = folder / str(seq), folder / f".{seq}.{secrets.token_hex(8)}"
    try:
        with temporary.open("wb") as file:
            file.writelines(_content(fields, arrays))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(folder)
    return path


def read_snapshot(path: Path) -> Snapshot:
    """Maps a file and checks all of it.

    Raises:
        SnapshotError: It is missing, damaged or of another format.
    """
    memory = _map(path)
    size, header_bytes, checksum = _head(memory)
    if size != len(memory) or hashlib.sha256(memoryview(memory)[HEAD.size :]).digest() != checksum:
        raise SnapshotError("a snapshot is not what was written")
    header = _header(memory, header_bytes)
    try:
        return Snapshot(header["fields"], {name: _array(memory, *place) for name, *place in header["arrays"]})
    except (KeyError, TypeError, ValueError):
        raise SnapshotError("a snapshot's header is not what was written") from None


def read_fields(path: Path) -> Fields:
    """What a file says of its arrays, without reading or checking them; raises SnapshotError as above."""
    memory = _map(path)
    _, header_bytes, _ = _head(memory)
    fields: Fields = _header(memory, header_bytes)["fields"]
    return fields


def list_seqs(folder: Path) -> list[int]:
    """The seqs of a folder's files, ascending; none where there is no folder."""
    with suppress(FileNotFoundError):
        return sorted(int(path.name) for path in folder.iterdir() if SEQ_NAME.fullmatch(path.name))
    return []


def read_latest(folder: Path, at_most: int | None = None) -> tuple[int, Snapshot] | None:
    """The newest file that is whole, with its seq; those that are damaged are passed over.

    Args:
        folder: Where they are.
        at_most: The greatest seq that is wanted, or None for any.
    """
    for seq in reversed(list_seqs(folder)):
        if at_most is None or seq <= at_most:
            with suppress(SnapshotError):
                return seq, read_snapshot(folder / str(seq))
    return None


def prune_snapshots(folder: Path, keep: int) -> None:
    """Deletes all but the newest `keep` files, and what killed processes left; whoever has mapped one keeps it."""
    delete_temporary_files(folder)
    for seq in list_seqs(folder)[:-keep]:
        (folder / str(seq)).unlink(missing_ok=True)


def delete_temporary_files(folder: Path) -> None:
    """Deletes what a killed process was writing; nobody writes to the folder meanwhile."""
    if folder.is_dir():
        for path in folder.glob(".*"):
            path.unlink(missing_ok=True)


def _content(fields: Fields, arrays: Arrays) -> list[bytes]:
    """The parts of a file, in order."""
    stored = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    places = [[name, array.dtype.str, list(array.shape), 0] for name, array in stored.items()]
    # Offsets are written in equal width, so that the header's length does not depend on them.
    reserved = len(orjson.dumps({"arrays": places, "fields": fields})) + 20 * len(places)
    offset = HEAD.size
    offset += reserved
    parts = []
    for place, array in zip(places, stored.values(), strict=True):
        padding = -offset % ALIGNMENT
        place[3] = offset + padding
        parts += [bytes(padding), array.tobytes()]
        offset += padding + array.nbytes
    header = orjson.dumps({"arrays": places, "fields": fields}).ljust(reserved)
    digest = hashlib.sha256(header)
    for part in parts:
        digest.update(part)
    return [HEAD.pack(MAGIC, FORMAT_VERSION, reserved, offset, digest.digest()), header, *parts]


def _map(path: Path) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise SnapshotError("a snapshot cannot be read") from error


def _head(memory: mmap.mmap) -> tuple[int, int, bytes]:
    """Size, header's length and checksum, as the file says."""
    if len(memory) < HEAD.size:
        raise SnapshotError("a snapshot ends within its head")
    magic, version, header_bytes, size, checksum = HEAD.unpack_from(memory)
    if (magic, version) != (MAGIC, FORMAT_VERSION):
        raise SnapshotError("a file is no snapshot of this format")
    return size, header_bytes, checksum


def _header(memory: mmap.mmap, header_bytes: int) -> dict[str, Any]:
    try:
        header = orjson.loads(memory[HEAD.size : HEAD.size + header_bytes])
    except orjson.JSONDecodeError:
        raise SnapshotError("a snapshot's header is not JSON") from None
    if not isinstance(header, dict) or not isinstance(header.get("fields"), dict):
        raise SnapshotError("a snapshot's header is not what was written")
    return header


def _array(memory: mmap.mmap, dtype: str, shape: list[int], offset: int) -> NDArray[Any]:
    """One array over the mapped file; its place is checked, though the checksum says that it was written so."""
    if dtype not in DTYPES:
        raise SnapshotError("a snapshot holds an array of a type that it may not hold")
    size = math.prod(shape)
    if offset % ALIGNMENT or offset < 0 or size < 0 or offset + size * np.dtype(dtype).itemsize > len(memory):
        raise SnapshotError("a snapshot's array does not lie within its file")
    return np.frombuffer(memory, dtype, size, offset).reshape(shape)
