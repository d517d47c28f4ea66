"""File systems on which SQLite is unsafe are recognized and refused."""

from pathlib import Path

import pytest

from service.errors import (
    LogUnsafeError,
)
from service.store import mount_types
from service.store.log.sqlite import SqliteLog
from service.store.mount_types import mount_type

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
24 22 0:22 / /proc rw,nosuid shared:13 - proc proc rw
40 22 0:45 / /mnt/share rw - nfs4 10.0.0.1:/export rw,vers=4.2
41 22 0:46 / /mnt/with\\040space rw - fuse.sshfs host: rw
42 22 0:47 / /data rw,relatime - virtiofs mount0 rw
43 42 0:48 / /data/local rw - tmpfs tmpfs rw
44 22 0:49 / /twice rw - 9p drvfs rw
45 44 0:50 / /twice rw master:1 propagate_from:2 - xfs /dev/vdb rw
a line of another kind
46 22 0:51 / /broken -
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/with space", "fuse.sshfs"),
        ("/data", "virtiofs"),
        ("/data/local/x", "tmpfs"),
        ("/twice", "xfs"),
        ("/broken", "ext4"),
    ],
)
def test_the_table_of_mounts_is_read(folder: str, kind: str) -> None:
    assert mount_type(MOUNTS, Path(folder)) == kind


def test_a_table_without_a_mount_says_nothing() -> None:
    assert mount_type("", Path("/data")) is None


def test_this_machine_has_a_table_that_can_be_read() -> None:
    """The table of this machine is parsed."""
    table = mount_types.MOUNTS.read_text()
    assert mount_type(table, Path("/")) is not None
    assert mount_type(table, Path("/proc/self")) == "proc"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuseblk", "fuse.gocryptfs", "virtiofs"])
def test_a_start_refuses_disks_that_keep_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path, table = tmp_path / "log.sqlite", tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - {kind} none rw\n")
    monkeypatch.setattr(mount_types, "MOUNTS", table)
    with pytest.raises(LogUnsafeError, match=kind):
        SqliteLog(path)
    table.write_text("1 0 0:1 / / rw - tmpfs none rw\n")
    SqliteLog(path).close()
    monkeypatch.setattr(mount_types, "MOUNTS", tmp_path / "missing")
    SqliteLog(path).close()
