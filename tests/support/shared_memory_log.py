"""A log in memory with the files, states and facts that replicas share."""

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from service.store.log.shared_states import ComparedState
from tests.support.memory_facts import MemoryFacts
from tests.support.memory_log import MemoryLog
from tests.support.memory_snapshots import MemorySnapshots


class MemoryFiles:
    """`SharedFiles` in memory."""

    def __init__(self) -> None:
        self.contents: dict[bytes, bytes] = {}
        self.artifacts: dict[int, list[bytes]] = {}

    def put(self, content: bytes) -> bytes:
        """See SharedFiles."""
        sha256 = hashlib.sha256(content).digest()
        self.contents[sha256] = content
        return sha256

    def get(self, sha256: bytes) -> bytes | None:
        """See SharedFiles."""
        return self.contents.get(sha256)

    def has(self, sha256: bytes) -> bool:
        """See SharedFiles."""
        return sha256 in self.contents

    def artifact_of(self, stream: int) -> list[bytes]:
        """See SharedFiles."""
        return self.artifacts.get(stream, [])

    def bind_artifact(self, stream: int, files: Sequence[bytes]) -> None:
        """See SharedFiles."""
        self.artifacts.setdefault(stream, [self.put(content) for content in files])


class MemoryStates:
    """`SharedStates` in memory."""

    def __init__(self, files: MemoryFiles) -> None:
        self.files = files
        self.digests: dict[ComparedState, bytes] = {}
        self.compared = 0

    def compare(self, state: ComparedState, content: bytes) -> bool:
        """See SharedStates."""
        self.compared += 1
        return self.digests.setdefault(state, self.files.put(content)) == hashlib.sha256(content).digest()

    def newest(self, stream: int) -> list[tuple[ComparedState, bytes]]:
        """See SharedStates."""
        found = [(state, sha256) for state, sha256 in self.digests.items() if state.stream == stream]
        return sorted(found, key=lambda one: one[0].position.seq, reverse=True)

    def drop_before(self, stream: int, epoch: int) -> None:
        """See SharedStates."""
        self.digests = {
            state: sha256 for state, sha256 in self.digests.items() if state.stream != stream or state.epoch >= epoch
        }


class SharedMemoryLog(MemoryLog):
    """A log of several machines, each of which uses this object."""

    is_shared: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.files = files = MemoryFiles()
        self.states = MemoryStates(files)
        self.facts = MemoryFacts()
        self.snapshots = MemorySnapshots()
