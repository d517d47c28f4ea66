"""Durable writes: files that appear whole, and syncs of files and folders."""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE
from typing import Final

# The permissions of a file that only its owner may use.
OWNER_ONLY: Final = 0o600


def write_whole_file(
    path: Path, content: Iterable[bytes], *, durable: bool, private: bool = False, replace: bool = True
) -> None:
    """Write a file so that a reader sees all of it or none, by a rename from a temporary file in the same folder.

    The temporary name is `.<name>.<random>`, so several processes may write one file at once.

    Args:
        path: The file; its folder exists.
        content: The parts of the content, in order.
        durable: Whether the file must survive a loss of power; content and name are synced then.
        private: Whether only its owner may use the file, whatever the umask. A private file that is replaced keeps its
            owner and its permissions, so that a service that could read it still can.
        replace: Whether an existing file is replaced. If not, an existing file stays and nothing is raised.

    Raises:
        OSError: The disk failed; an existing file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        mode = OWNER_ONLY if private else 0o666
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            if private:
                replaced = path.stat() if path.exists() else None
                mode = OWNER_ONLY if replaced is None else S_IMODE(replaced.st_mode)
                _set_access(descriptor, replaced or path.parent.stat(), mode)
            file.writelines(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            temporary.rename(path)
        else:
            with suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def write_synced_file(path: Path, content: bytes) -> None:
    """Write a file and make its content durable; its name is durable once its folder is synced."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def open_private_file(path: Path, flags: int) -> int:
    """Open a file and return its descriptor; if it is missing, create it so that only its owner may use it.

    Args:
        path: The file; its folder exists.
        flags: How to open it, such as `os.O_WRONLY | os.O_APPEND`.
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
        _set_access(descriptor, path.parent.stat(), OWNER_ONLY)
        sync_folder(path.parent)
        return descriptor


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, and sync the names of those that were created."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable, whichever process wrote it."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a loss of power can remove a new or renamed file until then."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable, and its name."""
    for path in folder.rglob("*"):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(folder)
    sync_folder(folder.parent)


def total_bytes(folder: Path) -> int:
    """Return the size of the disk that holds a folder."""
    status = os.statvfs(folder)
    return status.f_blocks * status.f_frsize


def free_bytes(folder: Path) -> int:
    """Return the free bytes, for this process, of the disk that holds a folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _set_access(descriptor: int, pattern: os.stat_result, mode: int) -> None:
    """Give a new file its permissions, and the owner of another file or folder.

    The owner matters if root runs a command on the files of a service that runs as another user.
    """
    os.fchmod(descriptor, mode)
    with suppress(PermissionError):  # only root may give a file away
        os.fchown(descriptor, pattern.st_uid, pattern.st_gid)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
