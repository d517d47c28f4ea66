r"""Whether a directory's file system keeps what SQLite writes: shared memory and locks must work, and a sync must sync.

On network and pass-through file systems they do not: a write-ahead log on virtiofs or gRPC-FUSE is damaged within a
minute, and NFS locks fail between machines. The type is read from Linux's table of mounts, proc(5) section mountinfo:

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
                     mount point, \040 for a space  type
"""

import os
import re
from pathlib import Path
from typing import Final

from service.errors import LogUnsafeError

MOUNTS: Final = Path("/proc/self/mountinfo")
UNSAFE: Final = re.compile(
    "fuse.*|virtiofs|9p|nfs.*|cifs|smb.*|ceph|afs|lustre|glusterfs|gfs2|ocfs2|beegfs|gpfs|davfs.*|vboxsf|vmhgfs|prl_fs|ncpfs"
)
ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def refuse_unsafe_filesystem(folder: Path) -> None:
    """Raises LogUnsafeError where a folder lies on a file system that does not keep what is written to it.

    Where the system has no table of mounts, as on macOS, the folder is taken.
    """
    try:
        table = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return
    kind = mount_type(table, folder.resolve())
    if kind is not None and UNSAFE.fullmatch(kind):
        raise LogUnsafeError(
            f"the data directory lies on a file system of type {kind}, which does not keep what a database writes; "
            "use a local disk or a volume of the container engine"
        )


def mount_type(table: str, path: Path) -> str | None:
    """The type of the file system that an absolute path lies on, or None where the table does not tell.

    Args:
        table: The text of /proc/self/mountinfo. Of two mounts at one point the later one lies on top.
        path: The path, without links.
    """
    found: tuple[int, str] | None = None
    for line in table.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5 or not right:  # noqa: PLR2004  # the mount point is the fifth
            continue
        point = Path(ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), right.split(" ")[0]
    return found[1] if found else None


def free_bytes(folder: Path) -> int:
    """The bytes that the disk below a folder has left for this process."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def make_folder(path: Path) -> None:
    """Makes a folder and those above it that are missing, so that a loss of power does not take them with their files.

    Where it is there already nothing is synced.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Makes the content of a file durable, whoever wrote it."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a new or renamed file can be lost until its folder is synced."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Makes everything in a folder durable, and its name."""
    for path in folder.rglob("*"):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(folder)
    sync_folder(folder.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
