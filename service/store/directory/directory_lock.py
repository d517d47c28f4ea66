"""The lock of a data directory: one instance of the service uses it at a time."""

import fcntl
import time
from pathlib import Path
from typing import IO, Final

from service.errors import LogUnavailableError
from service.store.directory.data_directory import LOCK_NAME, RESTORE_NAME, DataDirectory

LOCK_POLL_SECONDS: Final = 0.02


def acquire_lock(data: DataDirectory, *, finishes_restore: bool = False, seconds: float = 0.0) -> IO[bytes]:
    """Lock a data directory for this process and those it forks, until the returned file is closed.

    Args:
        data: The data directory.
        finishes_restore: Whether this process finishes an interrupted restore; otherwise such a directory is refused.
        seconds: How long to wait for another instance.

    Raises:
        LogUnavailableError: Another instance uses the directory, or a restore was interrupted.
    """
    file = (data.path / LOCK_NAME).open("wb")
    try:
        _wait_for_lock(file, seconds)
        if not finishes_restore:
            refuse_unfinished_restore(data.path)
    except LogUnavailableError:
        file.close()
        raise
    return file


def refuse_unfinished_restore(path: Path) -> None:
    """Raise LogUnavailableError if a restore of a data directory was interrupted while it moved files into place."""
    if (path / RESTORE_NAME).exists():
        raise LogUnavailableError("a restore of the data directory was interrupted; run softstep restore again")


def _wait_for_lock(file: IO[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _try_lock(file):
        if time.monotonic() >= deadline:
            raise LogUnavailableError("another instance uses the data directory; stop it or choose another one")
        time.sleep(LOCK_POLL_SECONDS)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
