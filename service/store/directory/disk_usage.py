"""Measure the disk of a data directory: what is free, and what the feedback log takes."""

import os
from pathlib import Path
from typing import NamedTuple

from service.store.directory.data_directory import DataDirectory


class DiskUsage(NamedTuple):
    """The disk of a data directory, in bytes.

    Attributes:
        free: What a process without privileges can still write.
        total: The size of the file system.
        log: The database of the feedback log.
        wal: The write-ahead log of the database.
    """

    free: int
    total: int
    log: int
    wal: int


def measure_disk(data: DataDirectory) -> DiskUsage | None:
    """Return the disk usage of a data directory, or None if the disk does not answer."""
    try:
        status = os.statvfs(data.path)
    except OSError:
        return None
    unit = status.f_frsize
    wal = data.log.with_name(f"{data.log.name}-wal")
    return DiskUsage(status.f_bavail * unit, status.f_blocks * unit, _size_of(data.log), _size_of(wal))


def _size_of(path: Path) -> int:
    """Return the size of a file, or 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
