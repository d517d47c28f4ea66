"""Folders in which versions are written before they get their names, `.<version>.<random>`, and who removes them.

    flock on the folder   its writer runs; the kernel releases it when the writer exits, however that happens
    no lock               the writer was killed: the next one that writes beside it removes the folder

A writer locks its folder after creating it, so another one may remove it in between. Then it makes a new one. A file
system without locks on folders refuses them to both, so nothing is removed there.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

RANDOM_BYTES: Final = 8


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Make a locked folder beside a target, and remove what killed writers left there; on leaving, remove it too.

    Args:
        target: The folder that the temporary one will be renamed to; its parent exists.

    Raises:
        OSError: The folder cannot be made.
    """
    with suppress(OSError):  # the parent cannot be listed
        _remove_abandoned(target)
    folder, descriptor = _make_locked(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked(target: Path) -> tuple[Path, int]:
    """Return a new folder, and the descriptor that holds its lock."""
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(RANDOM_BYTES)}")
        folder.mkdir()
        with suppress(FileNotFoundError):  # another writer removed it before it was locked
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # the file system has no locks on folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary folders of the target and of versions beside it that no writer has locked.

    Raises:
        OSError: The parent cannot be listed.
    """
    abandoned = re.compile(rf"\.([0-9]+|{re.escape(target.name)})\.[0-9a-f]{{{2 * RANDOM_BYTES}}}")
    for folder in [path for path in target.parent.iterdir() if abandoned.fullmatch(path.name)]:
        with suppress(OSError):  # it is a file or a link, it is gone, or its writer runs
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
