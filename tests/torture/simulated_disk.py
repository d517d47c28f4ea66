"""A disk that remembers what was done to it in which order, and what it may hold where the power goes.

SQLite's writes come through a VFS, all others through the calls of the operating system that this process makes:

    write, truncate    of a file, whole sectors of 512 bytes of which may reach the disk or not, in any order
    enter, leave       of names in a folder: files made, renamed and deleted, folders made; each happens or not
    sync               of a file: its content so far is on the disk, its name is not; of a folder: its names are
    anything else      what the recording program notes beside these, such as what was acknowledged

A file that is written by other calls is looked at when it is synced or renamed. Of SQLite two habits are taken as
documented: the first sync of a new write-ahead log syncs its folder too, and a deletion is synced.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from service.store.directory.ack_marks import HALF_BYTES, HEAD_BYTES, RECORD_BYTES, AckMarks
from service.store.log import log_connection as connection
from tests.support.disk_faults import SECTOR, Disk, _apply

CHANCES = (0.0, 0.3, 0.7, 1.0)


class Wrote(NamedTuple):
    """Bytes at an offset of a file, or with None a truncation to it."""

    path: str
    offset: int
    data: bytes | None


class Made(NamedTuple):
    """A folder."""

    path: str


class Moved(NamedTuple):
    """A name in another's place, or gone."""

    path: str
    to: str | None


class Synced(NamedTuple):
    """A file or a folder."""

    path: str


class Platter(Disk):
    """Records what is done below a folder.

    Args:
        root: The folder; what is in it now is on the disk.

    Attributes:
        done: What was done, in order; anything may be noted in it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.ops: list[Any] = []
        self._of_sqlite: set[str] = set()
        self._fresh: set[str] = set()
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self.ops.append(Made(str(path)))
            elif not path.name.endswith("-shm"):
                self._look_at(str(path))
                self.ops.append(Synced(str(path)))
        self.ops += [Synced(str(path)) for path in (root, *root.rglob("*")) if path.is_dir()]

    # What the VFS tells

    def written(self, name: str, offset: int, data: bytes | None) -> None:
        """See Disk."""
        if name not in self._of_sqlite:
            self._of_sqlite.add(name)
            self._fresh.add(name)
        self.ops.append(Wrote(name, offset, data))

    def synced(self, name: str) -> None:
        """See Disk."""
        self.ops.append(Synced(name))
        if name in self._fresh and not name.endswith(".sqlite"):
            self.ops.append(Synced(str(Path(name).parent)))
        self._fresh.discard(name)

    def dropped(self, name: str) -> None:
        """See Disk: here a sync that fails is one that never began, as where the process dies before it."""

    def deleted(self, name: str) -> None:
        """See Disk."""
        self._of_sqlite.discard(name)
        self.ops += [Moved(name, None), Synced(str(Path(name).parent))]

    # What the operating system is told

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the end of the block."""
        opened = connection.open_database

        def open_database(path: Path, make: Callable[[Any], None], _vfs: str | None = None) -> Any:
            return opened(path, make, self.name)

        with (
            patch.object(connection, "open_database", open_database),
            patch.object(os, "fsync", self._after(os.fsync, self._sync)),
            patch.object(os, "rename", self._after(os.rename, self._move, self._before_move)),
            patch.object(os, "replace", self._after(os.replace, self._move, self._before_move)),
            patch.object(os, "unlink", self._after(os.unlink, lambda path, **_: self._move(path, None))),
            patch.object(os, "mkdir", self._after(os.mkdir, lambda path, *_, **__: self._note(Made(str(path))))),
        ):
            yield

    def _after(
        self, call: Callable[..., Any], note: Callable[..., None], before: Callable[..., None] | None = None
    ) -> Callable[..., Any]:
        def noted(*arguments: Any, **more: Any) -> Any:
            if before is not None:
                before(*arguments)
            result = call(*arguments, **more)
            note(*arguments, **more)
            return result

        return noted

    def _note(self, op: Any) -> None:
        if Path(op.path).is_relative_to(self.root):
            self.ops.append(op)

    def _sync(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if Path(path).is_file():
            self._look_at(path)
        self._note(Synced(path))

    def _before_move(self, path: Any, _to: Any) -> None:
        if Path(path).is_file():
            self._look_at(str(path))

    def _move(self, path: Any, to: Any) -> None:
        self._note(Moved(str(path), None if to is None else str(to)))

    def _look_at(self, path: str) -> None:
        if path not in self._of_sqlite:
            self._note(Wrote(path, 0, Path(path).read_bytes()))


class NotedMarks(AckMarks):
    """Marks whose writes to mapped memory are noted, as what the system may write back at any time."""

    def __init__(self, path: Path, live: set[int], platter: Platter) -> None:
        super().__init__(path, live)
        self._path, self._platter = path, platter

    def set(self, stream: int, position: Any) -> None:
        """See Marks."""
        super().set(stream, position)
        record, is_second = divmod(self._next[stream] - HEAD_BYTES, RECORD_BYTES)
        at = HEAD_BYTES + record * RECORD_BYTES + (0 if is_second else HALF_BYTES)
        self._platter.ops.append(Wrote(str(self._path), at, self._memory[at : at + HALF_BYTES]))


@dataclass
class Node:
    """A file or a folder on the disk: what is there for certain, and what was done since."""

    content: bytearray = field(default_factory=bytearray)
    writes: list[Wrote] = field(default_factory=list)
    names: dict[str, "Node"] | None = None
    moves: list[dict[str, "Node | None"]] = field(default_factory=list)
    # As a running system sees the folder.
    seen: dict[str, "Node"] = field(default_factory=dict)

    def sync(self) -> None:
        """All that was done is on the disk."""
        for write in self.writes:
            _apply(self.content, write.offset, write.data)
        self.writes.clear()
        if self.names is not None:
            self.names = dict(self.seen)
            self.moves.clear()

    def enter(self, changes: dict[str, "Node | None"]) -> None:
        """Change names in one step, which happens or not."""
        self.moves.append(changes)
        self.seen.update({name: node for name, node in changes.items() if node is not None})
        for name in [name for name, node in changes.items() if node is None]:
            self.seen.pop(name, None)


def folder() -> Node:
    """An empty folder."""
    return Node(names={})


class Surface:
    """A disk on which operations are done again.

    Args:
        root: The folder that they were recorded below.
        lying: Whether syncs of files do nothing.
    """

    def __init__(self, root: Path, *, lying: bool = False) -> None:
        self._root = root
        self._lying = lying
        self._top = folder()

    def do(self, op: Any) -> None:
        """One operation; notes are passed over."""
        match op:
            case Wrote():
                self._file(op.path).writes.append(op)
            case Made():
                parent, name = self._place(op.path)
                parent.enter({name: folder()})
            case Synced():
                node = self._find(op.path)
                if node is not None and (node.names is not None or not self._lying):
                    node.sync()
            case Moved():
                self._move(op)

    def left(self, to: Path, seeded: random.Random) -> None:
        """Writes to a folder what the disk holds where the power goes now."""
        _leave(self._top, to, seeded, seeded.choice(CHANCES), seeded.choice(CHANCES))

    def _parts(self, path: str) -> tuple[str, ...]:
        return Path(path).relative_to(self._root).parts

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._top
        for part in self._parts(path):
            node = node and node.seen.get(part)
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        parent = self._find(str(Path(path).parent))
        assert parent is not None, "something was made in a folder that nobody made"
        return parent, Path(path).name

    def _file(self, path: str) -> Node:
        parent, name = self._place(path)
        if name not in parent.seen:
            parent.enter({name: Node()})
        return parent.seen[name]

    def _move(self, op: Moved) -> None:
        parent, name = self._place(op.path)
        node = parent.seen.get(name)
        if node is None:  # never looked at, and so never seen on the disk
            return
        if op.to is None:
            parent.enter({name: None})
            return
        other, target = self._place(op.to)
        if other is parent:
            parent.enter({name: None, target: node})
        else:
            parent.enter({name: None})
            other.enter({target: node})


def _leave(node: Node, to: Path, seeded: random.Random, of_names: float, of_sectors: float) -> None:
    if node.names is None:
        to.write_bytes(_torn(node, seeded, of_sectors))
        return
    to.mkdir(exist_ok=True)
    names: dict[str, Node | None] = dict(node.names)
    for move in node.moves:
        if seeded.random() < of_names:
            names.update(move)
    for name, child in names.items():
        if child is not None:
            _leave(child, to / name, seeded, of_names, of_sectors)


def _torn(node: Node, seeded: random.Random, of_sectors: float) -> bytearray:
    """What a file holds: what was synced, with any part of what was written since."""
    content = bytearray(node.content)
    for write in node.writes:
        if write.data is None:
            if seeded.random() < of_sectors:
                _apply(content, write.offset, None)
            continue
        for start in range(0, len(write.data), SECTOR):
            if seeded.random() < of_sectors:
                _apply(content, write.offset + start, write.data[start : start + SECTOR])
    return content
