"""A watcher that finds new snapshots of all streams, many times a second and at little cost.

Each call looks once at each stream's folder, and not at all at versions without one. A folder is listed only if its
time of change differs from the one that was seen after it had settled.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.store.directory.data_directory import DataDirectory
from service.store.states.state_folder import list_seqs

# A folder's time of change stays equal within a tick of the kernel's clock, 10 ms at most. After this time it shows
# every change.
SETTLED_NANOSECONDS: Final = 100_000_000


class SnapshotWatcher:
    """Finds the streams that may have new snapshots.

    Args:
        data: The data directory.
    """

    def __init__(self, data: DataDirectory) -> None:
        self._root = str(data.streams)
        self._settled: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def changed_snapshots(self) -> dict[tuple[str, int], int]:
        """Return the newest seq of each stream whose folder of snapshots may have changed since the last call."""
        newest = {}
        for model in self._names_in(self._root):
            model_folder = f"{self._root}/{model}"
            for version in self._names_in(model_folder):
                folder = f"{model_folder}/{version}/snapshots"
                if self._may_have_changed(folder) and (seqs := list_seqs(Path(folder))):
                    newest[model, int(version)] = seqs[-1]
        return newest

    def recheck(self, model: str, version: int) -> None:
        """Let the next call report a stream even if its folder has not changed."""
        self._settled.pop(f"{self._root}/{model}/{version}/snapshots", None)

    def _names_in(self, folder: str) -> list[str]:
        """Return the names in a folder without those that begin with a dot."""
        if self._may_have_changed(folder):
            with suppress(FileNotFoundError):
                names = os.listdir(folder)  # noqa: PTH208  # here as below: names alone, and many times a second
                self._names[folder] = [name for name in names if not name.startswith(".")]
        return self._names.get(folder, [])

    def _may_have_changed(self, folder: str) -> bool:
        """Return whether a folder may have other names than at the last look; False if it is missing."""
        try:
            changed = os.stat(folder).st_mtime_ns  # noqa: PTH116
        except FileNotFoundError:
            return False
        if changed == self._settled.get(folder):
            return False
        if time.time_ns() - changed > SETTLED_NANOSECONDS:
            self._settled[folder] = changed
        return True
