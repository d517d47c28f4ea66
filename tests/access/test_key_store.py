"""API keys are made, rotated and revoked, in a file and in a shared log; each has at most two live secrets."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access.audit_log import Action, AuditEntry, decode_note
from service.access.key_file import KeyRecord, KeyTable, LimitsRecord, utc_now
from service.access.key_options import Expiry
from service.access.key_storage import ChangeKeys, FileKeyStorage, KeyStorage
from service.access.key_store import KeyStore, NewKey
from service.access.log_keys import LogKeyStorage
from service.access.scopes import Scope
from service.errors import ApiKeysError
from tests.support.memory_facts import MemoryFacts

DAY = timedelta(days=1)
ACTOR = "user:ann"


class Storage:
    """A storage in which a further change may come first, and the entries of its audit."""

    def __init__(self, storage: KeyStorage, entries: Callable[[], list[AuditEntry]]) -> None:
        self.storage = storage
        self.entries = entries


@pytest.fixture(params=["file", "log"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage: a file in a folder that does not exist, or a log."""
    if request.param == "file":
        entries: list[AuditEntry] = []
        return Storage(FileKeyStorage(tmp_path / "data" / "keys.json", entries.append), lambda: entries)
    facts = MemoryFacts()

    def read_entries() -> list[AuditEntry]:
        members = [decode_note(note) for note in facts.read_notes(0, 100)]
        return [AuditEntry(one["actor"], Action(one["action"]), one["object"]) for one in members]

    return Storage(LogKeyStorage(facts), read_entries)


@pytest.fixture
def store(storage: Storage) -> KeyStore:
    return KeyStore(storage.storage, ACTOR)


def create(store: KeyStore, expiry: Expiry = Expiry(None)) -> NewKey:  # noqa: B008  # never changes
    return store.create("a test", [Scope.PREDICT], ("iris",), expiry, LimitsRecord())


def accepted(store: KeyStore, *keys: NewKey, after: timedelta = timedelta()) -> list[bool]:
    """Return which keys are accepted after some time."""
    table, now = KeyTable(store.read()), (utc_now() + after).timestamp()
    return [table.find(new.key.text.encode(), now) is not None for new in keys]


def test_a_new_key_is_accepted(store: KeyStore) -> None:
    """The first key makes the folder and the file; further ones keep those before."""
    assert store.read() == ()
    first, second = create(store), create(store, Expiry(utc_now() + DAY))
    assert store.read() == (first.record, second.record)
    assert first.record.secrets[0].created == first.record.created
    assert accepted(store, first, second) == [True, True]
    assert accepted(store, first, second, after=2 * DAY) == [True, False]


def test_a_rotated_key_has_two_secrets_for_a_time(store: KeyStore) -> None:
    """Both secrets are accepted until the overlap is over; the id stays, and the new secret lives as long."""
    old, other = create(store, Expiry(utc_now() + 10 * DAY)), create(store)
    new = store.rotate(old.key.id, DAY, None)
    assert (new.key.id, new.record.scopes) == (old.key.id, old.record.scopes)
    assert accepted(store, old, new, other) == [True, True, True]
    assert accepted(store, old, new, other, after=2 * DAY) == [False, True, True]
    assert accepted(store, old, new, other, after=11 * DAY) == [False, False, True]
    last = store.read()[0].secrets[-1]
    assert last.expires is not None
    assert timedelta(days=10) <= last.expires - last.created <= timedelta(days=10, seconds=2)
    assert store.rotate(other.key.id, DAY, None).record.secrets[-1].expires is None
    with pytest.raises(ApiKeysError, match="two of its secrets are live"):
        store.rotate(old.key.id, DAY, None)
    assert accepted(store, old, new) == [True, True]


def test_a_lifetime_may_end_after_all_dates(store: KeyStore, storage: Storage) -> None:
    """A key that ends with the year 9999 does so after a rotation too."""
    end = datetime(9999, 12, 31, tzinfo=UTC)
    key = create(store, Expiry(end))
    lifetime = end - key.record.created
    changed = key.record.secrets[0].model_copy(update={"created": end - lifetime - DAY})
    records = [key.record.model_copy(update={"secrets": (changed,)})]
    storage.storage.change(lambda _: records, AuditEntry(ACTOR, Action.ROTATE_KEY, key.key.id))
    assert store.rotate(key.key.id, DAY, None).record.secrets[-1].expires == end


def test_an_overlap_of_zero_ends_all_others(store: KeyStore) -> None:
    """Without an overlap only the new secret is accepted, at once."""
    old = create(store)
    middle = store.rotate(old.key.id, DAY, None)
    new = store.rotate(old.key.id, timedelta(), Expiry(utc_now() + DAY))
    assert accepted(store, old, middle, new) == [False, False, True]
    assert accepted(store, new, after=2 * DAY) == [False]
    assert len(new.record.secrets) == 1


def test_an_overlap_prolongs_nothing(store: KeyStore) -> None:
    """A secret that ends before the overlap ends then, and one that has ended is not kept."""
    old = create(store, Expiry(utc_now() + timedelta(hours=1)))
    new = store.rotate(old.key.id, DAY, Expiry(None))
    assert new.record.secrets[0].expires == old.record.secrets[0].expires
    ended = create(store, Expiry(utc_now()))
    assert len(store.rotate(ended.key.id, DAY, Expiry(None)).record.secrets) == 1


def test_a_revoked_key_stays_in_the_list(store: KeyStore) -> None:
    """Its secrets are gone and its record is kept; it cannot be rotated, and revoking it again changes nothing."""
    key, other = create(store), create(store)
    record = store.revoke(key.key.id)
    assert record is not None
    assert record.secrets == ()
    assert store.read() == (record, other.record)
    assert accepted(store, key, other) == [False, True]
    assert store.revoke(key.key.id) is None
    with pytest.raises(ApiKeysError, match="revoked"):
        store.rotate(key.key.id, DAY, None)
    assert store.read() == (record, other.record)


def test_an_unknown_id_changes_nothing(store: KeyStore, storage: Storage) -> None:
    """A key that is not there cannot be rotated or revoked, whatever the id."""
    create(store)
    before = store.read()
    for key_id in ("22222222", "", "\udcff"):
        for change in (lambda: store.rotate(key_id, DAY, None), lambda: store.revoke(key_id)):  # noqa: B023
            with pytest.raises(ApiKeysError, match="no key with this id"):
                change()
    assert store.read() == before
    assert len(storage.entries()) == 1


def test_changes_are_recorded(store: KeyStore, storage: Storage) -> None:
    """Once each; what changes nothing is not."""
    key = create(store)
    store.rotate(key.key.id, DAY, None)
    store.revoke(key.key.id)
    assert store.revoke(key.key.id) is None
    with pytest.raises(ApiKeysError):
        store.rotate(key.key.id, DAY, None)
    actions = [Action.CREATE_KEY, Action.ROTATE_KEY, Action.REVOKE_KEY]
    assert storage.entries() == [AuditEntry(ACTOR, action, key.key.id) for action in actions]


class ContestedStorage:
    """Another change comes before each one, so that it is made twice; only the last attempt counts."""

    name = "contested"

    def __init__(self, storage: KeyStorage, contest: Callable[[], object]) -> None:
        self._storage, self._contest = storage, contest

    def read(self) -> tuple[KeyRecord, ...]:
        """See KeyStorage."""
        return self._storage.read()

    def change(self, change: ChangeKeys, entry: AuditEntry) -> None:
        """See KeyStorage."""
        change(self.read())
        self._contest()
        self._storage.change(change, entry)


def test_the_last_attempt_counts(store: KeyStore, storage: Storage) -> None:
    """A key that is returned is the one that is stored, and what another command has changed is kept."""
    old = create(store)
    contested = KeyStore(ContestedStorage(storage.storage, lambda: create(store)), ACTOR)
    new = contested.rotate(old.key.id, DAY, None)
    assert accepted(store, old, new) == [True, True]
    assert accepted(store, create(contested)) == [True]
    assert len(store.read()) == 4
    revoked = KeyStore(ContestedStorage(storage.storage, lambda: store.revoke(old.key.id)), ACTOR)
    assert revoked.revoke(old.key.id) is None
    with pytest.raises(ApiKeysError, match="revoked"):
        revoked.rotate(old.key.id, DAY, None)
