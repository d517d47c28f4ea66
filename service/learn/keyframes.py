"""Keyframes: states of the past at even distances, so that an answer can be followed through the history of a model.

At most KEYFRAMES_MAX are kept, and at most KEYFRAME_BYTES_MAX bytes of them: the distance, a power of two, doubles as
the stream grows, and every second one is deleted. They are derived: one that is missing is not made again.

Those of a sparse model are whole: one with changes alone would keep its base, which is as large, for as long as it
stays. A model of more than KEYFRAME_BYTES_MAX has one keyframe, and writes one each time that the seq has doubled.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from service.learn.event_fold import Contents
from service.store.states.snapshots import write_snapshot
from service.store.states.state_folder import delete_temporary_files, list_seqs

KEYFRAMES_MAX: Final = 64
KEYFRAME_BYTES_MAX: Final = 16 << 20


class Keyframes:
    """The keyframes of one stream.

    Args:
        folder: Their folder.
        last: The last seq of the stream that is folded.

    Attributes:
        seqs: The seqs of the keyframes, ascending.
    """

    def __init__(self, folder: Path, last: int) -> None:
        self._folder: Final = folder
        self._most = KEYFRAMES_MAX
        self._distance = 1
        delete_temporary_files(folder)
        self.seqs = list_seqs(folder)
        self._thin(last)

    def next_seq(self, after: int) -> int:
        """Return the seq of the next keyframe after a seq."""
        return (after // self._distance + 1) * self._distance

    def write(self, seq: int, contents: Contents) -> None:
        """Write the keyframe of a seq that `next_seq` returned; it is left out if the disk fails."""
        self._thin(seq)
        if seq % self._distance == 0:
            with suppress(OSError):
                path = write_snapshot(self._folder, seq, *contents, durable=False)
                self.seqs = sorted({*self.seqs, seq})
                most = KEYFRAME_BYTES_MAX // path.stat().st_size
                if most < self._most:  # the states have grown
                    self._most = max(1, most)
                    self._thin(seq)

    def note_deleted(self) -> None:
        """Look at the folder again, after others deleted keyframes."""
        self.seqs = list_seqs(self._folder)

    def _thin(self, last: int) -> None:
        """Double the distance until the keyframes up to a seq are not too many, and delete those between."""
        while last // self._distance > self._most:
            self._distance *= 2
        kept = [seq for seq in self.seqs if seq % self._distance == 0]
        for seq in set(self.seqs).difference(kept):
            (self._folder / str(seq)).unlink(missing_ok=True)
        self.seqs = kept
