"""Reads of the files of a model folder: bounded in size, regular files only, and no links out of the folder."""

import os
import stat
from pathlib import Path

from service.errors import ArtifactError


def read_bounded(folder: Path, name: str, bytes_max: int) -> bytes:
    """Return the whole content of a file.

    Args:
        folder: The model folder.
        name: The file's name.
        bytes_max: Largest size; a larger file is refused before it is read.

    Raises:
        ArtifactError: The file is missing, too large or not a regular file of the folder, or cannot be read. The cause
            is an `OSError` if the system refused.
    """
    try:
        path = (folder / name).resolve(strict=True)
        # Kubernetes mounts files as links within their folder; a link out of it could show any file of the machine.
        if not path.is_relative_to(folder.resolve(strict=True)):
            raise ArtifactError(f"{name} is a link that leads out of its folder")
        # Opening a named pipe would wait for a writer; with O_NONBLOCK it does not, and is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _read_descriptor(descriptor, name, bytes_max)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ArtifactError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "its links form a loop"
        raise ArtifactError(f"{name} cannot be read: {reason}") from error


def _read_descriptor(descriptor: int, name: str, bytes_max: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{name} is not a regular file")
    if status.st_size > bytes_max:
        raise ArtifactError(f"{name} has {status.st_size} bytes, more than the limit of {bytes_max}")
    chunks, left = [], status.st_size + 1  # one byte more than expected detects a file that grows
    while left and (chunk := os.read(descriptor, left)):
        chunks.append(chunk)
        left -= len(chunk)
    if left != 1:
        raise ArtifactError(f"{name} changed while it was read")
    return b"".join(chunks)
