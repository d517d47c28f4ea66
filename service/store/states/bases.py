"""Bases: whole weights of a sparse model, for snapshots that hold only what has changed since.

    <stream>/bases/<name>    the array `base` and the position of its state, in the format of snapshots; the name is the
                             first 32 hexadecimal digits of the checksum in its head

A snapshot with the field "base", the name of one, has all arrays but that one. The base is written first. So a crash
between the two leaves a base that no snapshot names; the next snapshot deletes it. Names follow from contents, so a
base is never another one than the snapshot means.

The first base is the artifact: it has all arrays of store/artifact/mapped_artifact.py, and its position is seq 0 alone.
So its name follows from the artifact, and a worker that has read the artifact finds it. The learner writes it when a
version is loaded, and it stays. A worker maps it in place of what it has read, whether or not the stream has begun.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.store.artifact.artifact import Artifact
from service.store.artifact.mapped_artifact import BASE, mapped_arrays
from service.store.filesystem import make_folder, write_whole_file
from service.store.states.snapshots import BASE_NAME, Fields, encode_file, name_base, read_base, read_fields
from service.store.states.state_folder import list_seqs


def write_base(folder: Path, fields: Fields, base: NDArray[np.float32]) -> str:
    """Write a base that appears whole; return its name.

    Args:
        folder: The folder of the stream's bases, created if it is missing.
        fields: The position of the state.
        base: (N + 1, Kp), see softmax/sparse_weights.py.

    Raises:
        OSError: The disk failed.
    """
    make_folder(folder)
    parts = encode_file(fields, {BASE: base})
    name = name_base(parts[0])
    write_whole_file(folder / name, parts, durable=False)
    return name


def encode_first_base(artifact: Artifact) -> list[bytes]:
    """Return the parts of the file of an artifact's first base; `name_base` of the first part is its name."""
    return encode_file({"seq": 0}, mapped_arrays(artifact))


def write_first_base(folder: Path, artifact: Artifact) -> str:
    """Write the first base of an artifact of sparse rows unless it is there intact; return its name.

    Raises:
        OSError: The disk failed.
    """
    parts = encode_first_base(artifact)
    name = name_base(parts[0])
    try:
        read_base(folder / name)
    except SnapshotError:
        make_folder(folder)
        write_whole_file(folder / name, parts, durable=False)
    return name


def list_bases(folder: Path) -> set[str]:
    """Return the names of the bases in a folder; empty if it is missing."""
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if BASE_NAME.fullmatch(path.name)}
    return set()


def delete_bases(folder: Path, snapshots: Path, first: str | None = None) -> set[str]:
    """Delete the bases that no snapshot names, and temporary files; mapped files stay usable.

    Args:
        folder: The folder of the bases, to which no other process writes.
        snapshots: The folder of the snapshots.
        first: The name of the first base, which stays; None to delete it too.

    Returns:
        The names of the bases that are left.
    """
    named = {str(first)}
    for seq in list_seqs(snapshots):
        with suppress(SnapshotError):
            named.add(str(read_fields(snapshots / str(seq)).get(BASE)))
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)
    return list_bases(folder)
