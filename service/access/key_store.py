"""Create, rotate and revoke keys: changes of the file of API keys, by one process at a time.

    <keys file>         replaced whole by each change (key_file.py); the file that a link leads to
    <keys file>.lock    flock: the process that changes the keys; never deleted, so that all lock the same file

A key that is rotated gets a further secret, and the other one ends after an overlap. At most two secrets are live at a
time.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from service.access.api_key import ApiKey, digest_of, make_key
from service.access.key_file import (
    SECRETS_MAX,
    KeyRecord,
    LimitsRecord,
    SecretRecord,
    read_keys,
    utc_now,
    write_keys,
)
from service.access.key_options import Expiry
from service.access.scopes import Scope
from service.errors import ApiKeysError
from service.store.filesystem import make_folder, open_private_file

# Another command changes the file within milliseconds; one that takes longer is stopped or has a disk that hangs.
LOCK_SECONDS: Final = 10.0
LOCK_POLL_SECONDS: Final = 0.01


class NewKey(NamedTuple):
    """A key that was made, and its record."""

    key: ApiKey
    record: KeyRecord


class KeyStore:
    """The file of API keys, for commands that change it.

    Args:
        path: The file; it and its folder are made by the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path.resolve()

    def read(self) -> tuple[KeyRecord, ...]:
        """Return the records of all keys; there are none without a file."""
        try:
            return read_keys(self.path).keys
        except FileNotFoundError:
            return ()

    def create(
        self, name: str, scopes: Sequence[Scope], models: tuple[str, ...] | None, expiry: Expiry, limits: LimitsRecord
    ) -> NewKey:
        """Make a key with the only secret of a new record."""
        with self._locked():
            records = self.read()
            taken = {record.id for record in records}
            key = next(key for key in iter(make_key, None) if key.id not in taken)
            now = utc_now()
            record = KeyRecord(
                id=key.id,
                name=name,
                created=now,
                scopes=tuple(scopes),
                models=models,
                secrets=(_secret_of(key, now, expiry),),
                limits=limits,
            )
            write_keys(self.path, (*records, record))
        return NewKey(key, record)

    def rotate(self, key_id: str, overlap: timedelta, expiry: Expiry | None) -> NewKey:
        """Make a new secret of a key, and end the others after an overlap.

        Args:
            key_id: The id of the key.
            overlap: How long the others are live; none stays with an overlap of zero.
            expiry: The end of the new secret. None: it gets the lifetime of the newest of the others.

        Raises:
            ApiKeysError: There is no such key, it is revoked, or two of its secrets are live.
        """
        with self._locked():
            records, record = self._find(key_id)
            if record.revoked is not None:
                raise ApiKeysError("this key is revoked; create another one")
            now = utc_now()
            live = [secret for secret in record.secrets if secret.end > now.timestamp()] if overlap else []
            if len(live) == SECRETS_MAX:
                raise ApiKeysError(
                    "this key was rotated a short time ago, and two of its secrets are live; rotate it again when the "
                    "older one has ended, or end both at once with --overlap 0s"
                )
            key = make_key(key_id)
            secret = _secret_of(key, now, expiry or _same_lifetime(record, now))
            secrets = (*(_ending(each, now + overlap) for each in live), secret)
            changed = record.model_copy(update={"secrets": secrets})
            write_keys(self.path, [changed if each is record else each for each in records])
        return NewKey(key, changed)

    def revoke(self, key_id: str) -> KeyRecord | None:
        """Remove every secret of a key; return its record, or None if it was revoked before.

        Raises:
            ApiKeysError: There is no such key.
        """
        with self._locked():
            records, record = self._find(key_id)
            if record.revoked is not None:
                return None
            changed = record.model_copy(update={"secrets": (), "revoked": utc_now()})
            write_keys(self.path, [changed if each is record else each for each in records])
        return changed

    def _find(self, key_id: str) -> tuple[tuple[KeyRecord, ...], KeyRecord]:
        """Return all records, and that of a key."""
        records = self.read()
        for record in records:
            if record.id == key_id:
                return records, record
        raise ApiKeysError("the file of API keys has no key with this id; softstep keys list shows all ids")

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


def _secret_of(key: ApiKey, now: datetime, expiry: Expiry) -> SecretRecord:
    """Return what is stored of a new key."""
    return SecretRecord(sha256=digest_of(key.text.encode()).hex(), created=now, expires=expiry.end)


def _same_lifetime(record: KeyRecord, now: datetime) -> Expiry:
    """Return the end of a secret that is made now and lives as long as the newest one of a record."""
    newest = record.secrets[-1]
    if newest.expires is None:
        return Expiry(None)
    try:
        return Expiry(now + (newest.expires - newest.created))
    except OverflowError:  # after the year 9999
        return Expiry(newest.expires)


def _ending(secret: SecretRecord, end: datetime) -> SecretRecord:
    """Return a secret that ends at a time, if it does not end before."""
    return secret if secret.end <= end.timestamp() else secret.model_copy(update={"expires": end})
