"""Create, rotate and revoke keys: changes of a storage of API keys, by one process at a time.

A key that is rotated gets a further secret, and the other one ends after an overlap. At most two secrets are live at a
time.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from service.access.api_key import ApiKey, digest_of, make_key
from service.access.audit_log import Action, AuditEntry, escape_text
from service.access.key_file import SECRETS_MAX, KeyRecord, LimitsRecord, SecretRecord, utc_now
from service.access.key_options import Expiry
from service.access.key_storage import KeyStorage
from service.access.scopes import Scope
from service.errors import ApiKeysError


class NewKey(NamedTuple):
    """A key that was made, and its record."""

    key: ApiKey
    record: KeyRecord


class KeyStore:
    """The API keys, for commands that change them.

    Args:
        storage: Where they are.
        actor: Who changes them, for the audit log.
    """

    def __init__(self, storage: KeyStorage, actor: str) -> None:
        self._storage: Final = storage
        self._actor: Final = actor

    def read(self) -> tuple[KeyRecord, ...]:
        """Return the records of all keys."""
        return self._storage.read()

    def create(
        self, name: str, scopes: Sequence[Scope], models: tuple[str, ...] | None, expiry: Expiry, limits: LimitsRecord
    ) -> NewKey:
        """Make a key with the only secret of a new record."""
        taken = {record.id for record in self.read()}
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

        def add(records: tuple[KeyRecord, ...]) -> Sequence[KeyRecord]:
            if any(each.id == key.id for each in records):
                raise ApiKeysError("another key got the same id at this moment; try again")
            return (*records, record)

        self._storage.change(add, self._entry(Action.CREATE_KEY, key.id))
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
        made: list[NewKey] = []

        def add_secret(records: tuple[KeyRecord, ...]) -> Sequence[KeyRecord]:
            record = self._find(records, key_id)
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
            made[:] = [NewKey(key, changed)]
            return [changed if each is record else each for each in records]

        self._storage.change(add_secret, self._entry(Action.ROTATE_KEY, key_id))
        return made[0]

    def revoke(self, key_id: str) -> KeyRecord | None:
        """Remove every secret of a key; return its record, or None if it was revoked before.

        Raises:
            ApiKeysError: There is no such key.
        """
        revoked: list[KeyRecord] = []

        def remove_secrets(records: tuple[KeyRecord, ...]) -> Sequence[KeyRecord] | None:
            record = self._find(records, key_id)
            revoked.clear()
            if record.revoked is not None:
                return None
            changed = record.model_copy(update={"secrets": (), "revoked": utc_now()})
            revoked.append(changed)
            return [changed if each is record else each for each in records]

        self._storage.change(remove_secrets, self._entry(Action.REVOKE_KEY, key_id))
        return revoked[0] if revoked else None

    def _find(self, records: Sequence[KeyRecord], key_id: str) -> KeyRecord:
        """Return the record of a key."""
        for record in records:
            if record.id == key_id:
                return record
        raise ApiKeysError(f"{self._storage.name} has no key with this id; softstep keys list shows all ids")

    def _entry(self, action: Action, key_id: str) -> AuditEntry:
        return AuditEntry(self._actor, action, escape_text(key_id))


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
