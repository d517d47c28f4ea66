"""The storage of API keys, and that in a file; log_keys.py has that in a shared log.

<keys file>         replaced whole by each change (key_file.py); the file that a link leads to
<keys file>.lock    flock: the process that changes the keys; never deleted, so that all lock the same file
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from service.access.audit_log import AuditEntry
from service.access.key_file import FILE_NAME, KeyRecord, KeysDocument, read_keys, write_keys
from service.errors import ApiKeysError
from service.store.filesystem import make_folder, open_private_file

# Another command changes the file within milliseconds; one that takes longer is stopped or has a disk that hangs.
LOCK_SECONDS: Final = 10.0
LOCK_POLL_SECONDS: Final = 0.01
COPY: Final = (
    "this file is a copy of the keys of a log in PostgreSQL; name the log with --log or SOFTSTEP_LOG, or another file "
    "with --keys-file"
)

ChangeKeys = Callable[[tuple[KeyRecord, ...]], Sequence[KeyRecord] | None]
"""Returns all records after a change, or None to change nothing; may be called again if another change comes first."""


class KeyStorage(Protocol):
    """The place of the records of keys."""

    @property
    def name(self) -> str:
        """The name of the place, for errors."""

    def read(self) -> tuple[KeyRecord, ...]:
        """Return the records of all keys; there are none before the first one is made.

        Raises:
            ApiKeysError: They are damaged.
        """

    def change(self, change: ChangeKeys, entry: AuditEntry) -> None:
        """Change the records, by one process at a time; what `change` raises leaves them as they were.

        Args:
            change: The change.
            entry: What the audit log gets if the records are changed.

        Raises:
            ApiKeysError: The records are damaged, or cannot be changed here.
        """


class FileKeyStorage:
    """Keys in a file.

    Args:
        path: The file; it and its folder are made by the first key.
        record: Writes an entry of the audit log, after the change.
    """

    name = FILE_NAME

    def __init__(self, path: Path, record: Callable[[AuditEntry], None]) -> None:
        self.path: Final = path.resolve()
        self._record: Final = record

    def read(self) -> tuple[KeyRecord, ...]:
        """See KeyStorage."""
        return self._read().keys

    def change(self, change: ChangeKeys, entry: AuditEntry) -> None:
        """See KeyStorage."""
        with self._locked():
            document = self._read()
            if document.copy_of is not None:
                raise ApiKeysError(COPY)
            changed = change(document.keys)
            if changed is None:
                return
            write_keys(self.path, changed)
        self._record(entry)

    def _read(self) -> KeysDocument:
        try:
            return read_keys(self.path)
        except FileNotFoundError:
            return KeysDocument(keys=())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file meanwhile."""
        make_folder(self.path.parent)
        descriptor = open_private_file(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR)
        try:
            _wait_for_lock(descriptor)
            yield
        finally:
            os.close(descriptor)


def _wait_for_lock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ApiKeysError("another command is changing the API keys; try again when it has ended") from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return
