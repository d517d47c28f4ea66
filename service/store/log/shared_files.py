"""The interface of the files that the machines of a shared log have in common, beside its events.

A file is found by its SHA-256, and never changes. A log in a data directory needs none of this.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

ReadFiles = Callable[[], Sequence[bytes]]
"""Returns the contents of an artifact's files, the manifest last; called if the log lacks them."""


class SharedFiles(Protocol):
    """Files in a shared log. One thread at a time uses an object.

    All methods raise LogUnavailableError if the log cannot be used now.
    """

    def put(self, content: bytes) -> bytes:
        """Store a file unless it is there, and return its SHA-256; a failover may lose it."""

    def get(self, sha256: bytes) -> bytes | None:
        """Return a file, or None if there is none.

        Raises:
            LogDamagedError: The file is not the one that its hash says.
        """

    def has(self, sha256: bytes) -> bool:
        """Return whether there is a file."""

    def artifact_of(self, stream: int) -> list[bytes]:
        """Return the SHA-256 of each file of the artifact that a stream is bound to; none if it was never stored."""

    def bind_artifact(self, stream: int, files: Sequence[bytes]) -> None:
        """Store the files of the artifact of a stream that has none."""
