"""The API keys of a shared log, as one replica follows them: its copy is replaced when they change."""

from pathlib import Path
from typing import Final

from service.access.log_keys import KeysCopy
from service.errors import ApiKeysError
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import SharedCell


class FollowedKeys:
    """Replaces the copy, which workers follow.

    Args:
        path: The copy.
        unknown: Cleared once the log has answered without any keys, so a service that began closed may be open.
    """

    def __init__(self, path: Path, unknown: SharedCell) -> None:
        self._copy: Final = KeysCopy(path)
        self._unknown: Final = unknown
        self._faults: Final = LineLimit()

    @property
    def is_current(self) -> bool:
        """Whether the copy is as it was left; if not, the keys must be followed again."""
        return self._copy.is_unchanged

    def follow(self, document: bytes) -> bool:
        """Use the document that the log has now; a damaged one is logged once, and leaves the keys as they were.

        Returns:
            Whether the document need not be followed again: False if the disk has failed.
        """
        try:
            self._copy.write(document)
        except ApiKeysError as error:
            logger.event("keys_not_read", reason=str(error))
        except OSError as error:
            if self._faults.is_due(str(error.strerror)):
                logger.event("keys_not_read", reason=f"disk error: {error.strerror}")
            return False
        return True

    def note_missing(self) -> None:
        """Note that the log has no keys. An existing copy counts all the same."""
        self._unknown.set(0)
