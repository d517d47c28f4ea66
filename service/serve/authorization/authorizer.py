"""Decide who sent a request, by the key in its head, and whether they may make it.

    no keys file at the start, and no other source of identities    everybody may do everything
    otherwise                                                        each call needs a key with its scope

The file is looked at twice a second. A key that is revoked, or has expired, is refused within a second: what was
decided before is forgotten then, and so are the remembered heads. A file that disappears, or is damaged, leaves the
keys as they were; it never opens the service.
"""

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from service.access.key_file import FileState, KeyTable, file_state, read_keys
from service.access.principal import ANYONE, Principal
from service.access.scopes import Scope
from service.errors import ApiKeysError, KeyInvalidError, KeyMissingError, ModelNotPermittedError, ScopeMissingError
from service.log_events import logger
from service.serve.responses import RequestHead

# Time between two looks at the file: half of what a revocation may take.
WATCH_SECONDS: Final = 0.5
# Credentials whose principals are remembered: a few MiB at most.
REMEMBERED_MAX: Final = 4096
BEARER: Final = b"bearer "

OnChange = Callable[[], None]


class Authorizer:
    """Finds the principal of a request; used on the event loop's thread.

    Args:
        path: The file of API keys.

    Attributes:
        on_change: Called when what was decided before no longer holds.
    """

    def __init__(self, path: Path) -> None:
        self.on_change: Final[list[OnChange]] = []
        self._path: Final = path
        self._state: FileState | None = None
        self._table: KeyTable | None = None
        self._remembered: dict[bytes, Principal] = {}
        self._next_end = inf
        self._reported: str | None = None
        self.use(self.read_changed())

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return self._table is None

    def authorize(self, head: RequestHead, scope: Scope, model: str | None = None) -> Principal:
        """Return who sent a request.

        Args:
            head: Its head.
            scope: The scope of its call.
            model: The name of the model that it is for, if it is for one.

        Raises:
            AccessError: They may not make it.
        """
        if self._table is None:
            return ANYONE
        principal = self.principal_of(head)
        if scope not in principal.scopes:
            raise ScopeMissingError(f"The key has no scope {scope}; use one that has it.")
        if model is not None and not principal.permits_model(model):
            raise ModelNotPermittedError("The key does not permit this model; use one that does.")
        return principal

    def principal_of(self, head: RequestHead) -> Principal:
        """Return the sender of a request; raise KeyMissingError or KeyInvalidError if that is unknown."""
        table = self._table
        if table is None:
            return ANYONE
        credential = _credential_of(head)
        if credential is None:
            raise KeyMissingError("This call needs a key: send Authorization: Bearer <key>, or X-API-Key: <key>.")
        now = time.time()
        principal = self._remembered.get(credential)
        if principal is None:
            principal = table.find(credential, now)
            if principal is None:
                raise KeyInvalidError("The key is not valid: it is unknown, revoked or expired; use another one.")
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[credential] = principal
            self._next_end = min(self._next_end, principal.expires)
        elif principal.expires <= now:
            raise KeyInvalidError("The key is not valid: it is unknown, revoked or expired; use another one.")
        return principal

    def read_changed(self) -> KeyTable | None:
        """Return the keys if the file has changed since the last call, else None; this reads the disk.

        Raises:
            ApiKeysError: The file cannot be read, and it is the first time.
        """
        try:
            state = file_state(self._path)
            if state is None or state == self._state:
                return None
            table = KeyTable(read_keys(self._path).keys)
        except (OSError, ApiKeysError) as error:
            if self._table is None:
                raise ApiKeysError(str(error)) from None
            self._report(str(error) if isinstance(error, ApiKeysError) else str(error.strerror))
            return None
        self._state, self._reported = state, None
        return table

    def use(self, table: KeyTable | None) -> None:
        """Use the keys that `read_changed` has returned, and forget what has expired."""
        if table is not None:
            self._table = table
        elif self._next_end > time.time():
            return
        self._remembered = {}
        self._next_end = inf
        for forget in self.on_change:
            forget()

    def _report(self, reason: str) -> None:
        """Log a file that cannot be read, once for each reason."""
        if reason != self._reported:
            self._reported = reason
            logger.event("keys_not_read", reason=reason)


def _credential_of(head: RequestHead) -> bytes | None:
    """Return the key of a request: X-API-Key, which no proxy adds, before Authorization."""
    if head.api_key is not None:
        return head.api_key.strip()
    value = head.authorization
    if value is None or value[: len(BEARER)].lower() != BEARER:
        return None
    return value[len(BEARER) :].strip()
