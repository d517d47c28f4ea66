"""The snapshots that learners pass on, in memory."""

import time
from collections.abc import Callable

from service.store.log.events import Position
from service.store.log.shared_snapshots import ReadBase, SharedSnapshot, rest_seconds


class MemorySnapshots:
    """`SharedSnapshots` in memory.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        sent: The time of each snapshot that was stored and its bytes, those of its base included.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.sent: list[tuple[float, int]] = []
        self._stored: dict[int, tuple[SharedSnapshot, bytes]] = {}
        self._bases: dict[tuple[int, str], bytes] = {}
        self._due: dict[int, float] = {}

    def list_snapshots(self) -> list[SharedSnapshot]:
        """See SharedSnapshots."""
        return [snapshot for snapshot, _ in self._stored.values()]

    def replace(
        self, snapshot: SharedSnapshot, content: bytes, read_base: ReadBase, lost: Position | None = None
    ) -> int:
        """See SharedSnapshots."""
        stream, now = snapshot.stream, self.clock()
        present = self._stored.get(stream)
        if present is not None:
            is_earlier = present[0].position.seq < snapshot.position.seq
            if now < self._due[stream] or not (is_earlier or present[0].position == lost):
                return 0
        key, size = (stream, snapshot.base), len(content)
        if snapshot.base and key not in self._bases:
            self._bases = {**{one: base for one, base in self._bases.items() if one[0] != stream}, key: read_base()}
            size += len(self._bases[key])
        self._stored[stream] = snapshot, content
        self._due[stream] = now + rest_seconds(size)
        self.sent.append((now, size))
        return size

    def get(self, snapshot: SharedSnapshot) -> bytes | None:
        """See SharedSnapshots."""
        present = self._stored.get(snapshot.stream)
        return present[1] if present is not None and present[0] == snapshot else None

    def get_base(self, stream: int, name: str) -> bytes | None:
        """See SharedSnapshots."""
        return self._bases.get((stream, name))

    def drop_before(self, stream: int, epoch: int) -> None:
        """See SharedSnapshots."""
        if stream in self._stored and self._stored[stream][0].epoch < epoch:
            del self._stored[stream]

    def alter(self, stream: int, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of a snapshot, as a fault would."""
        snapshot, content = self._stored[stream]
        self._stored[stream] = snapshot, change(content)

    def empty(self) -> None:
        """Lose everything, as in a crash of the log's server."""
        self._stored.clear()
        self._bases.clear()
        self._due.clear()
