"""The limits of disk and write-ahead log above which feedback is refused, while admin calls still fit."""

import os
from collections.abc import Sequence
from pathlib import Path

from service.errors import LogFullError
from service.store.filesystem import free_bytes
from service.store.log.events import Draft
from service.store.log.log_connection import LogConnection


class DiskLimits:
    """Checks the limits before a batch is appended.

    Args:
        path: The database.
        reserve_bytes: Free bytes of the disk below which feedback is refused.
        wal_bytes_max: Bytes of the write-ahead log above which feedback is refused.
    """

    def __init__(self, path: Path, reserve_bytes: int, wal_bytes_max: int) -> None:
        # Made once: they are used for every batch, and making a path costs more than the look at the disk.
        self._folder, self._wal = path.parent, f"{path}-wal"
        self._reserve_bytes = reserve_bytes
        self._wal_bytes_max = wal_bytes_max

    def fullness(self, drafts: Sequence[Draft], connection: LogConnection) -> LogFullError | None:
        """Return the error for feedback if a limit is exceeded, or None; a write-ahead log that is too long is moved.

        Args:
            drafts: The batch.
            connection: The connection that the batch is written with.
        """
        if self._wal_file_is_long() and connection.wal_bytes > self._wal_bytes_max:
            connection.checkpoint_wal()
            if connection.wal_bytes > self._wal_bytes_max:
                return LogFullError("a long read keeps the write-ahead log from being checkpointed; try again")
        # Everything is written twice, to the write-ahead log and to its place.
        needed = self._reserve_bytes + 2 * sum(len(draft.payload) for draft in drafts)
        if free_bytes(self._folder) < needed:
            return LogFullError("the disk is nearly full; feedback is accepted again once there is space")
        return None

    def _wal_file_is_long(self) -> bool:
        """Return whether the write-ahead log may be too long: its content is never longer than its file."""
        try:
            return os.stat(self._wal).st_size > self._wal_bytes_max  # noqa: PTH116
        except FileNotFoundError:
            return False
