"""The selection of checkpoints: a ladder that is dense at its new end and sparse at its old end.

A state is folded from the newest checkpoint before it. If each event has a checkpoint before it within a quarter of
the event's age, then the way to its state is at most a quarter of the way since. So a ladder over n events has some 10
rungs for each power of ten. If they still take too many bytes, the rungs that cost least are deleted first. Seq 0
needs no checkpoint: it is the artifact.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from service.store.states.state_folder import delete_temporary_files, list_seqs

AGE_SHARE: Final = 4


def checkpoints_to_keep(sizes: Mapping[int, int], bytes_max: int) -> set[int]:
    """Return the seqs of the checkpoints that stay.

    Args:
        sizes: The bytes of each checkpoint by its seq.
        bytes_max: Bytes that all checkpoints together may take; the newest one stays in any case.
    """
    rungs = _thin(sorted(sizes))
    while len(rungs) > 1 and sum(sizes[seq] for seq in rungs) > bytes_max:
        rungs.remove(_cheapest_rung(rungs))
    return set(rungs)


def thin_checkpoints(folder: Path, bytes_max: int) -> None:
    """Delete the checkpoints of a folder that the ladder does not need, and temporary files."""
    delete_temporary_files(folder)
    sizes = {seq: (folder / str(seq)).stat().st_size for seq in list_seqs(folder)}
    for seq in sizes.keys() - checkpoints_to_keep(sizes, bytes_max):
        (folder / str(seq)).unlink(missing_ok=True)


def _thin(ascending: list[int]) -> list[int]:
    """Leave out each rung whose neighbors are near enough to each other for the events between them."""
    head = ascending[-1] if ascending else 0
    rungs = list(ascending)
    for at in range(len(ascending) - 2, -1, -1):
        older, newer = ([0, *rungs][at], rungs[at + 1])
        if AGE_SHARE * (newer - older) <= head - newer:
            del rungs[at]
    return rungs


def _cheapest_rung(rungs: Iterable[int]) -> int:
    """Return the rung, not the newest, without which the way to an event grows least relative to its age."""
    ladder = [0, *rungs]
    head = ladder[-1]
    costs = {
        ladder[at]: (ladder[at + 1] - ladder[at - 1]) / (head - ladder[at] + 1) for at in range(1, len(ladder) - 1)
    }
    return min(costs, key=costs.__getitem__)
