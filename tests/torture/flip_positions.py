"""Choice of the byte in which a bit is flipped."""

import random
from collections.abc import Callable
from pathlib import Path

import apsw

from service.store.directory.ack_marks import HEAD_BYTES, RECORD_BYTES
from service.store.states.snapshots import HEAD

# Returns the offset of a byte in the content of a file.
PositionChooser = Callable[[random.Random, bytes], int]


def anywhere(rng: random.Random, content: bytes) -> int:
    """Choose any byte, most often one that is not zero."""
    if rng.random() < 0.3:
        return rng.randrange(len(content))
    return rng.choice([at for at, byte in enumerate(content) if byte])


def in_tensors(rng: random.Random, content: bytes) -> int:
    """Choose a byte after a snapshot's header."""
    header_bytes = HEAD.unpack_from(content)[2]
    return rng.randrange(HEAD.size + header_bytes, len(content))


def in_header(rng: random.Random, content: bytes) -> int:
    """Choose a byte in a snapshot's head or header."""
    return rng.randrange(HEAD.size + HEAD.unpack_from(content)[2])


def in_marks(rng: random.Random, content: bytes) -> int:
    """Choose a byte of a marks file: in its head, in a written record, or anywhere."""
    records = [at for at in range(HEAD_BYTES, len(content), RECORD_BYTES) if any(content[at : at + RECORD_BYTES])]
    if rng.random() < 0.2:
        return rng.randrange(len(content))
    if rng.random() < 0.1:
        return rng.randrange(HEAD_BYTES)
    return rng.choice(records) + rng.randrange(RECORD_BYTES)


def index_pages(path: Path) -> list[int]:
    """Return the page numbers, from 0, of the id index and of its table of slices."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    sql = "SELECT pageno - 1 FROM dbstat WHERE name IN ('ids', 'slices')"
    pages = [page for (page,) in database.execute(sql)]
    database.close()
    return pages
