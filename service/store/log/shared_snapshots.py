"""The interface through which learners of a shared log pass snapshots on to replicas that fold nothing.

A stream has at most one snapshot there: the file of a snapshot and, of a sparse model, that of the base it names. Any
learner may replace it by a later one. It may vanish with a crash of the log's server, because learners have it too.

The limit: after a snapshot the stream rests for as long as its bytes take at BYTES_PER_SECOND, and for REST_SECONDS at
least. So between two snapshots no more bytes are sent than that, whatever their sizes, and by all learners together.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from service.store.log.events import Position

# Of each stream. Ten large models take a tenth of a network of 1 Gbit/s then, and one of 4 MB is passed on every 4 s.
BYTES_PER_SECOND: Final = 1_000_000
# A smaller snapshot is sent ten times a second at most: each leaves a row for the server to clean up.
REST_SECONDS: Final = 0.1

ReadBase = Callable[[], bytes]
"""Returns the file of a base; called if the log lacks it."""


class SharedSnapshot(NamedTuple):
    """A snapshot without its bytes.

    Attributes:
        stream: The stream's number.
        position: The last event that it covers.
        epoch: The number of FORGET events up to there.
        sha256: The SHA-256 of its file.
        base: The name of the base that it names, or "".
    """

    stream: int
    position: Position
    epoch: int
    sha256: bytes
    base: str


class SharedSnapshots(Protocol):
    """The snapshots in a shared log. One thread at a time uses an object.

    All methods raise LogUnavailableError if the log cannot be used now, and LogUnsafeError if it has no place for
    snapshots, because an earlier release made its tables.
    """

    def list_snapshots(self) -> list[SharedSnapshot]:
        """Return the snapshot of each stream that has one."""

    def replace(
        self, snapshot: SharedSnapshot, content: bytes, read_base: ReadBase, lost: Position | None = None
    ) -> int:
        """Replace the snapshot of a stream unless the stream rests, or has one that is as late.

        Args:
            snapshot: The snapshot.
            content: Its file.
            read_base: Returns the file of the base that it names.
            lost: The position of a snapshot that is replaced even if it is later: the log has lost it.

        Returns:
            The bytes that were sent; 0 if the snapshot was not replaced.
        """

    def get(self, snapshot: SharedSnapshot) -> bytes | None:
        """Return the file of a snapshot, or None if it was replaced meanwhile."""

    def get_base(self, stream: int, name: str) -> bytes | None:
        """Return the file of a base, or None if there is none now; the caller checks it against its name."""

    def drop_before(self, stream: int, epoch: int) -> None:
        """Delete the snapshot of a stream if it has fewer FORGET events, and return once its bytes are gone.

        Raises:
            LogUnavailableError: A long read keeps them.
        """


def rest_seconds(size: int) -> float:
    """Return for how long a stream rests after a snapshot of so many bytes."""
    return max(REST_SECONDS, size / BYTES_PER_SECOND)
