"""Files that are read again when they change, as an operator or a certificate manager replaces them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from service.access.key_file import FileState, file_state
from service.errors import TlsFileError
from service.log_events import logger

T = TypeVar("T")


class WatchedFiles(Generic[T]):
    """The content of some files. While they cannot be read or are damaged, it stays as it was.

    Args:
        paths: The files.
        read: Reads all of them.
        name: What they are, for the log.

    Raises:
        TlsFileError: They cannot be read, or are damaged.
        OSError: As before.

    Attributes:
        value: The content.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T], name: str) -> None:
        self._paths: Final = tuple(paths)
        self._read: Final = read
        self._name: Final = name
        self._reported: str | None = None
        self._states: list[FileState | None] = self._stat()
        self.value: T = read()

    def read_changed(self, *, again: bool = False) -> T | None:
        """Return the content if the files have changed, else None; this reads the disk.

        Args:
            again: Read them even if they seem unchanged.
        """
        try:
            states = self._stat()
            if states == self._states and not again:
                return None
            value = self._read()
        except (OSError, TlsFileError) as error:
            self._report(str(error.strerror) if isinstance(error, OSError) else str(error))
            return None
        self._states, self._reported = states, None
        return value

    def use(self, value: T) -> None:
        """Use what `read_changed` has returned."""
        self.value = value
        logger.event("files_reread", files=self._name)

    def _stat(self) -> list[FileState | None]:
        return [file_state(path) for path in self._paths]

    def _report(self, reason: str) -> None:
        """Log files that cannot be read, once for each reason."""
        if reason != self._reported:
            self._reported = reason
            logger.event("files_not_reread", files=self._name, reason=reason)
