"""A simulated disk: it applies recorded operations, and makes what a real disk may hold after a loss of power.

What was synced is kept. Of the rest, each sector of 512 bytes, each truncation and each change of names is kept or not.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.disk_faults import SECTOR, apply_write
from tests.torture.recording_disk import MakeFolder, Rename, Sync, Write

# Chances that an unsynced sector or name has reached the disk; one is drawn for each loss of power.
CHANCES = (0.0, 0.3, 0.7, 1.0)


@dataclass
class Node:
    """A file or a folder: its synced part, and the operations since then.

    Attributes:
        content: The synced content of a file.
        writes: Writes since then.
        names: The synced names of a folder; None for a file.
        changes: Changes of names since then.
        visible: The names as the running system sees them.
    """

    content: bytearray = field(default_factory=bytearray)
    writes: list[Write] = field(default_factory=list)
    names: dict[str, "Node"] | None = None
    changes: list[dict[str, "Node | None"]] = field(default_factory=list)
    visible: dict[str, "Node"] = field(default_factory=dict)

    def sync(self) -> None:
        """Move every operation into the synced part."""
        for write in self.writes:
            apply_write(self.content, write.offset, write.data)
        self.writes.clear()
        if self.names is not None:
            self.names = dict(self.visible)
            self.changes.clear()

    def change_names(self, changes: dict[str, "Node | None"]) -> None:
        """Change names in one step, which reaches the disk completely or not at all."""
        self.changes.append(changes)
        self.visible.update({name: node for name, node in changes.items() if node is not None})
        for name in [name for name, node in changes.items() if node is None]:
            self.visible.pop(name, None)


def empty_folder() -> Node:
    """Return an empty folder."""
    return Node(names={})


class SimulatedDisk:
    """A disk to which recorded operations are applied.

    Args:
        root: The folder that they were recorded below.
        lying: Whether syncs of files do nothing.
    """

    def __init__(self, root: Path, *, lying: bool = False) -> None:
        self._root = root
        self._lying = lying
        self._top = empty_folder()

    def apply(self, operation: Any) -> None:
        """Apply one operation; ignore notes."""
        match operation:
            case Write():
                self._file(operation.path).writes.append(operation)
            case MakeFolder():
                parent, name = self._parent(operation.path)
                parent.change_names({name: empty_folder()})
            case Sync():
                node = self._find(operation.path)
                if node is not None and (node.names is not None or not self._lying):
                    node.sync()
            case Rename():
                self._rename(operation)

    def lose_power(self, to: Path, rng: random.Random) -> None:
        """Write to a folder what the disk may hold after a loss of power now."""
        _materialize(self._top, to, rng, rng.choice(CHANCES), rng.choice(CHANCES))

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._top
        for part in Path(path).relative_to(self._root).parts:
            node = node and node.visible.get(part)
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        parent = self._find(str(Path(path).parent))
        assert parent is not None, "an operation in a folder whose creation was not recorded"
        return parent, Path(path).name

    def _file(self, path: str) -> Node:
        parent, name = self._parent(path)
        if name not in parent.visible:
            parent.change_names({name: Node()})
        return parent.visible[name]

    def _rename(self, operation: Rename) -> None:
        parent, name = self._parent(operation.path)
        node = parent.visible.get(name)
        if node is None:  # a file that was never recorded is not on this disk
            return
        if operation.to is None:
            parent.change_names({name: None})
            return
        other, target = self._parent(operation.to)
        if other is parent:
            parent.change_names({name: None, target: node})
        else:
            parent.change_names({name: None})
            other.change_names({target: node})


def _materialize(node: Node, to: Path, rng: random.Random, name_chance: float, sector_chance: float) -> None:
    if node.names is None:
        to.write_bytes(_torn_content(node, rng, sector_chance))
        return
    to.mkdir(exist_ok=True)
    names: dict[str, Node | None] = dict(node.names)
    for change in node.changes:
        if rng.random() < name_chance:
            names.update(change)
    for name, child in names.items():
        if child is not None:
            _materialize(child, to / name, rng, name_chance, sector_chance)


def _torn_content(node: Node, rng: random.Random, sector_chance: float) -> bytearray:
    """Return the synced content of a file with a random part of the later writes."""
    content = bytearray(node.content)
    for write in node.writes:
        if write.data is None:
            if rng.random() < sector_chance:
                apply_write(content, write.offset, None)
            continue
        for start in range(0, len(write.data), SECTOR):
            if rng.random() < sector_chance:
                apply_write(content, write.offset + start, write.data[start : start + SECTOR])
    return content
