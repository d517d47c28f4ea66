"""Where in a file a bit is flipped."""

import random
from collections.abc import Callable
from pathlib import Path

import apsw

from service.store.directory.ack_marks import HEAD_BYTES, RECORD_BYTES
from service.store.states.snapshots import HEAD

# Of a file's content the place of a byte.
Place = Callable[[random.Random, bytes], int]


def anywhere(seeded: random.Random, content: bytes) -> int:
    """Any byte, most often one that is not zero."""
    if seeded.random() < 0.3:
        return seeded.randrange(len(content))
    return seeded.choice([at for at, byte in enumerate(content) if byte])


def tensors(seeded: random.Random, content: bytes) -> int:
    """Behind a snapshot's header."""
    header_bytes = HEAD.unpack_from(content)[2]
    return seeded.randrange(HEAD.size + header_bytes, len(content))


def header(seeded: random.Random, content: bytes) -> int:
    """In a snapshot's head or header."""
    return seeded.randrange(HEAD.size + HEAD.unpack_from(content)[2])


def marked(seeded: random.Random, content: bytes) -> int:
    """In the head of a file of marks, in a record that is written, or in the others."""
    records = [at for at in range(HEAD_BYTES, len(content), RECORD_BYTES) if any(content[at : at + RECORD_BYTES])]
    if seeded.random() < 0.2:
        return seeded.randrange(len(content))
    if seeded.random() < 0.1:
        return seeded.randrange(HEAD_BYTES)
    return seeded.choice(records) + seeded.randrange(RECORD_BYTES)


def index_pages(path: Path) -> list[int]:
    """The numbers of the pages, from 0, of the index of ids and of what it covers."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    sql = "SELECT pageno - 1 FROM dbstat WHERE name IN ('ids', 'slices')"
    pages = [page for (page,) in database.execute(sql)]
    database.close()
    return pages
