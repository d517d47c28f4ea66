r"""Detection of file systems on which SQLite is unsafe.

SQLite needs shared memory, locks and syncs that work. On network and pass-through file systems they do not: a
write-ahead log on virtiofs or gRPC-FUSE is damaged within a minute, and NFS locks fail between machines. The type of a
file system is read from Linux's table of mounts, proc(5) section mountinfo:

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
                     mount point, \040 for a space  type
"""

import re
from pathlib import Path
from typing import Final

from service.errors import LogUnsafeError

MOUNTS: Final = Path("/proc/self/mountinfo")
UNSAFE: Final = re.compile(
    "fuse.*|virtiofs|9p|nfs.*|cifs|smb.*|ceph|afs|lustre|glusterfs|gfs2|ocfs2|beegfs|gpfs|davfs.*|vboxsf|vmhgfs|prl_fs|ncpfs"
)
ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def refuse_unsafe_filesystem(folder: Path) -> None:
    """Raise LogUnsafeError if a folder is on a file system that is unsafe for SQLite.

    Systems without a table of mounts, such as macOS, are not checked.
    """
    try:
        table = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return
    kind = mount_type(table, folder.resolve())
    if kind is not None and UNSAFE.fullmatch(kind):
        raise LogUnsafeError(
            f"the data directory is on a file system of type {kind}, which is unsafe for a database; "
            "use a local disk or a volume of the container engine"
        )


def mount_type(table: str, path: Path) -> str | None:
    """Return the type of the file system that holds a path, or None if the table does not name it.

    Args:
        table: The text of /proc/self/mountinfo. Of two mounts at one point the later one is on top.
        path: An absolute path without links.
    """
    best: tuple[int, str] | None = None
    for line in table.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5 or not right:  # noqa: PLR2004  # the mount point is the fifth
            continue
        point = Path(ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = len(point.parts), right.split(" ")[0]
    return best[1] if best else None
