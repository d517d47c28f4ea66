"""A recorder of the file operations of a service, for simulated_disk.py.

SQLite's writes are recorded through a VFS; the files of the service through calls of `os` in this process:

    Write              a write or truncation of a file; each sector of 512 bytes may reach the disk or not, in any order
    Rename, MakeFolder a change of names in a folder: create, rename, delete; each may reach the disk or not
    Sync               of a file: its content so far is on the disk, its name is not; of a folder: its names are
    anything else      notes of the recording program between these, such as acknowledgements

A file that is written by other calls is read when it is synced or renamed. Two behaviors of SQLite follow its
documentation: the first sync of a new write-ahead log also syncs its folder, and a deletion is synced.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from service.store.directory.ack_marks import HALF_BYTES, HEAD_BYTES, RECORD_BYTES, AckMarks
from service.store.log import log_connection
from tests.support.disk_faults import Disk


class Write(NamedTuple):
    """A write of bytes at an offset; with None a truncation to the offset."""

    path: str
    offset: int
    data: bytes | None


class MakeFolder(NamedTuple):
    """The creation of a folder."""

    path: str


class Rename(NamedTuple):
    """A rename; with None a deletion."""

    path: str
    to: str | None


class Sync(NamedTuple):
    """A sync of a file or a folder."""

    path: str


class RecordingDisk(Disk):
    """Record the operations below a folder.

    Args:
        root: The folder; its current content counts as on the disk.

    Attributes:
        operations: Operations in order; callers may append notes.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.operations: list[Any] = []
        self._sqlite_files: set[str] = set()
        self._unsynced_files: set[str] = set()
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self.operations.append(MakeFolder(str(path)))
            elif not path.name.endswith("-shm"):
                self._record_content(str(path))
                self.operations.append(Sync(str(path)))
        self.operations += [Sync(str(path)) for path in (root, *root.rglob("*")) if path.is_dir()]

    # Operations of the VFS

    def written(self, name: str, offset: int, data: bytes | None) -> None:
        """See Disk."""
        if name not in self._sqlite_files:
            self._sqlite_files.add(name)
            self._unsynced_files.add(name)
        self.operations.append(Write(name, offset, data))

    def synced(self, name: str) -> None:
        """See Disk."""
        self.operations.append(Sync(name))
        if name in self._unsynced_files and not name.endswith(".sqlite"):
            self.operations.append(Sync(str(Path(name).parent)))
        self._unsynced_files.discard(name)

    def dropped(self, name: str) -> None:
        """Record nothing: a failed sync counts as one that never began, as if the process had been killed before."""

    def deleted(self, name: str) -> None:
        """See Disk."""
        self._sqlite_files.discard(name)
        self.operations += [Rename(name, None), Sync(str(Path(name).parent))]

    # Calls of the operating system

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the end of the block."""
        open_original = log_connection.open_database

        def open_database(path: Path, make: Callable[[Any], None], _vfs: str | None = None) -> Any:
            return open_original(path, make, self.name)

        with (
            patch.object(log_connection, "open_database", open_database),
            patch.object(os, "fsync", self._after(os.fsync, self._sync)),
            patch.object(os, "rename", self._after(os.rename, self._rename, self._before_rename)),
            patch.object(os, "replace", self._after(os.replace, self._rename, self._before_rename)),
            patch.object(os, "unlink", self._after(os.unlink, lambda path, **_: self._rename(path, None))),
            patch.object(
                os, "mkdir", self._after(os.mkdir, lambda path, *_, **__: self._record(MakeFolder(str(path))))
            ),
        ):
            yield

    def _after(
        self, call: Callable[..., Any], record: Callable[..., None], before: Callable[..., None] | None = None
    ) -> Callable[..., Any]:
        def recorded(*arguments: Any, **more: Any) -> Any:
            if before is not None:
                before(*arguments)
            result = call(*arguments, **more)
            record(*arguments, **more)
            return result

        return recorded

    def _record(self, operation: Any) -> None:
        if Path(operation.path).is_relative_to(self.root):
            self.operations.append(operation)

    def _sync(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if Path(path).is_file():
            self._record_content(path)
        self._record(Sync(path))

    def _before_rename(self, path: Any, _to: Any) -> None:
        if Path(path).is_file():
            self._record_content(str(path))

    def _rename(self, path: Any, to: Any) -> None:
        self._record(Rename(str(path), None if to is None else str(to)))

    def _record_content(self, path: str) -> None:
        if path not in self._sqlite_files:
            self._record(Write(path, 0, Path(path).read_bytes()))


class RecordedMarks(AckMarks):
    """Marks whose writes to mapped memory are recorded, because the system may write them back at any time.

    The private fields of AckMarks say which half of which record was written last; nothing else needs them.
    """

    def __init__(self, path: Path, live: set[int], disk: RecordingDisk) -> None:
        super().__init__(path, live)
        self._path, self._disk = path, disk

    def set(self, stream: int, position: Any) -> None:
        """See AckMarks."""
        super().set(stream, position)
        record, is_second = divmod(self._next[stream] - HEAD_BYTES, RECORD_BYTES)
        at = HEAD_BYTES + record * RECORD_BYTES + (0 if is_second else HALF_BYTES)
        self._disk.operations.append(Write(str(self._path), at, self._memory[at : at + HALF_BYTES]))
