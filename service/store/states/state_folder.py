"""Folders of snapshots or checkpoints: listing, reading the newest, and deleting.

<folder>/<seq>            seq in decimal digits: the event up to which the state is folded
<folder>/.<seq>.<random>  being written, or left by a process that was killed
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import SnapshotError
from service.store.log.events import Position, Stream
from service.store.states.snapshots import Snapshot, read_fields, read_snapshot

# Readers open the newest snapshot by its name, so that it stays for a while after the next one.
SNAPSHOTS_KEPT: Final = 3
SEQ_NAME: Final = re.compile(r"0|[1-9][0-9]{0,12}")


def list_seqs(folder: Path) -> list[int]:
    """Return the seqs of a folder's files, ascending; empty if the folder is missing."""
    with suppress(FileNotFoundError):
        return sorted(int(path.name) for path in folder.iterdir() if SEQ_NAME.fullmatch(path.name))
    return []


def read_latest(folder: Path, at_most: int | None = None) -> tuple[int, Snapshot] | None:
    """Return the newest file that is valid, with its seq, or None if there is none.

    Args:
        folder: The folder.
        at_most: The greatest seq to consider, or None for any.
    """
    for seq in reversed(list_seqs(folder)):
        if at_most is None or seq <= at_most:
            with suppress(SnapshotError):
                return seq, read_snapshot(folder / str(seq))
    return None


def stored_positions(folder: Path, stream: Stream, *, checked: bool = False) -> list[Position]:
    """Return the positions of a stream's files in its chain; files that cannot be read are left out.

    Args:
        folder: The folder.
        stream: The stream.
        checked: Whether each file is read completely and its checksum verified, which takes a while.
    """
    positions = []
    for seq in list_seqs(folder):
        with suppress(SnapshotError, KeyError, TypeError, ValueError):
            path = folder / str(seq)
            fields = read_snapshot(path).fields if checked else read_fields(path)
            if fields["genesis"] == stream.genesis.hex():
                positions.append(Position(seq, bytes.fromhex(fields["hash"])))
    return positions


def prune_snapshots(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` files, and temporary files; mapped files stay usable."""
    delete_temporary_files(folder)
    for seq in list_seqs(folder)[:-keep]:
        (folder / str(seq)).unlink(missing_ok=True)


def delete_temporary_files(folder: Path) -> None:
    """Delete the temporary files of killed processes; no process may write to the folder meanwhile."""
    if folder.is_dir():
        for path in folder.glob(".*"):
            path.unlink(missing_ok=True)


def delete_states(folder: Path, epoch: int, is_affected: Callable[[int], bool]) -> list[int]:
    """Delete the files whose states include an event that is forgotten now.

    Args:
        folder: The folder.
        epoch: The number of FORGET events; a file with a field "epoch" of this number was folded without the event.
        is_affected: Returns whether a forgotten event is in the lineage of the state at a seq.

    Returns:
        The seqs of the deleted files. A file that cannot be read counts as affected, since its content is unknown.
    """
    seqs = [seq for seq in list_seqs(folder) if _read_epoch(folder / str(seq)) < epoch and is_affected(seq)]
    for seq in seqs:
        (folder / str(seq)).unlink(missing_ok=True)
    return seqs


def _read_epoch(path: Path) -> int:
    with suppress(SnapshotError):
        epoch = read_fields(path).get("epoch")
        if isinstance(epoch, int):
            return epoch
    return -1
