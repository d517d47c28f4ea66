"""Which checkpoints are kept: a ladder that is dense at its new end and sparse at its old one.

A state is folded from the newest checkpoint before it. What lies at most a quarter of an event's age behind the event
makes the way back to it at most a quarter of the way since; so a ladder over n events has some 10 rungs for each power
of ten. Where it is too large all the same, the rungs that cost least go first. Seq 0 needs none: it is the artifact.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from service.errors import SnapshotError
from service.store.log.events import Position, Stream
from service.store.states.snapshots import delete_temporary_files, list_seqs, read_fields, read_snapshot

AGE_SHARE = 4


def checkpoints_to_keep(sizes: Mapping[int, int], bytes_max: int) -> set[int]:
    """The seqs that stay.

    Args:
        sizes: The bytes of each checkpoint by its seq.
        bytes_max: Bytes that all together may have; the newest one stays in any case.
    """
    rungs = _thinned(sorted(sizes))
    while len(rungs) > 1 and sum(sizes[seq] for seq in rungs) > bytes_max:
        rungs.remove(_cheapest(rungs))
    return set(rungs)


def thin_checkpoints(folder: Path, bytes_max: int) -> None:
    """Deletes the checkpoints of a folder that the ladder does not need, and what killed processes left."""
    delete_temporary_files(folder)
    sizes = {seq: (folder / str(seq)).stat().st_size for seq in list_seqs(folder)}
    for seq in sizes.keys() - checkpoints_to_keep(sizes, bytes_max):
        (folder / str(seq)).unlink(missing_ok=True)


def delete_states(folder: Path, epoch: int, holds: Callable[[int], bool]) -> list[int]:
    """Deletes the snapshots or checkpoints that hold an event that is forgotten now.

    Args:
        folder: Where they are.
        epoch: The number of forgets; a file whose field "epoch" is not smaller was folded without the event.
        holds: Whether the state at a seq was made of a forgotten event, as its lineage says.

    Returns:
        The seqs that are gone. A file that cannot be read goes too, for nobody knows what it holds.
    """
    gone = [seq for seq in list_seqs(folder) if _epoch(folder / str(seq)) < epoch and holds(seq)]
    for seq in gone:
        (folder / str(seq)).unlink(missing_ok=True)
    return gone


def stored_positions(folder: Path, stream: Stream, *, whole: bool = False) -> list[Position]:
    """Where in a stream's chain its snapshots or checkpoints stand; those that cannot be read tell nothing.

    Args:
        folder: Where they are.
        stream: Whose they are.
        whole: Whether each file is read to its end and held to its checksum, which takes a while.
    """
    positions = []
    for seq in list_seqs(folder):
        with suppress(SnapshotError, KeyError, TypeError, ValueError):
            path = folder / str(seq)
            fields = read_snapshot(path).fields if whole else read_fields(path)
            if fields["genesis"] == stream.genesis.hex():
                positions.append(Position(seq, bytes.fromhex(fields["hash"])))
    return positions


def _epoch(path: Path) -> int:
    with suppress(SnapshotError):
        epoch = read_fields(path).get("epoch")
        if isinstance(epoch, int):
            return epoch
    return -1


def _thinned(ascending: list[int]) -> list[int]:
    """Leaves out each rung whose neighbours are near enough to each other for the events between them."""
    head = ascending[-1] if ascending else 0
    rungs = list(ascending)
    for at in range(len(ascending) - 2, -1, -1):
        older, newer = ([0, *rungs][at], rungs[at + 1])
        if AGE_SHARE * (newer - older) <= head - newer:
            del rungs[at]
    return rungs


def _cheapest(rungs: Iterable[int]) -> int:
    """The rung, not the newest, without which the way to an event grows least in proportion to its age."""
    ladder = [0, *rungs]
    head = ladder[-1]
    costs = {
        ladder[at]: (ladder[at + 1] - ladder[at - 1]) / (head - ladder[at] + 1) for at in range(1, len(ladder) - 1)
    }
    return min(costs, key=costs.__getitem__)
