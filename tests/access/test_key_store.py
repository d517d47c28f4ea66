"""The file of API keys is changed by one process at a time, and each key has at most two live secrets."""

import fcntl
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access import key_file
from service.access import key_store as module
from service.access.key_file import KeyTable, LimitsRecord, read_keys, utc_now, write_keys
from service.access.key_options import Expiry
from service.access.key_store import KeyStore, NewKey
from service.access.scopes import Scope
from service.errors import ApiKeysError

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    """A store without a file, in a folder that does not exist."""
    return KeyStore(tmp_path / "data" / "keys.json")


def create(store: KeyStore, expiry: Expiry = Expiry(None)) -> NewKey:  # noqa: B008  # never changes
    return store.create("a test", [Scope.PREDICT], ("iris",), expiry, LimitsRecord())


def accepted(store: KeyStore, *keys: NewKey, after: timedelta = timedelta()) -> list[bool]:
    """Return which keys are accepted after some time."""
    table, now = KeyTable(read_keys(store.path).keys), (utc_now() + after).timestamp()
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


def test_a_lifetime_may_end_after_all_dates(store: KeyStore) -> None:
    """A key that ends with the year 9999 does so after a rotation too."""
    end = datetime(9999, 12, 31, tzinfo=UTC)
    key = create(store, Expiry(end))
    lifetime = end - key.record.created
    changed = key.record.secrets[0].model_copy(update={"created": end - lifetime - DAY})
    write_keys(store.path, [key.record.model_copy(update={"secrets": (changed,)})])
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


def test_a_revoked_key_stays_in_the_file(store: KeyStore) -> None:
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


def test_an_unknown_id_changes_nothing(store: KeyStore) -> None:
    """A key that is not in the file cannot be rotated or revoked."""
    create(store)
    before = store.path.read_bytes()
    for change in (lambda: store.rotate("22222222", DAY, None), lambda: store.revoke("22222222")):
        with pytest.raises(ApiKeysError, match="no key with this id"):
            change()
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("umask", [0, 0o777])
def test_only_the_owner_may_read_the_files(store: KeyStore, umask: int) -> None:
    """The file and its lock are private whatever the umask; a file that is replaced keeps its permissions."""
    store.path.parent.mkdir()
    before = os.umask(umask)
    try:
        create(store)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in sorted(store.path.parent.iterdir())]
        store.path.chmod(0o640)
        create(store)
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o640


def test_a_link_stays(tmp_path: Path) -> None:
    """A link to the file is followed, and the file that it leads to is replaced."""
    real, link = tmp_path / "real" / "keys.json", tmp_path / "keys.json"
    real.parent.mkdir()
    link.symlink_to(real)
    key = create(KeyStore(link))
    assert link.is_symlink()
    assert read_keys(real).keys == (key.record,)


def test_a_command_that_hangs_does_not_block_others_forever(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change waits for the lock of another one, and gives up after a time."""
    create(store)
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    with store.path.with_name("keys.json.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ApiKeysError, match="another command"):
            create(store)
    assert len(store.read()) == 1
    create(store)


def test_a_file_that_could_not_be_read_is_not_written(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key too many is refused, and the file stays readable."""
    create(store)
    before = store.path.read_bytes()
    monkeypatch.setattr(key_file, "FILE_BYTES_MAX", len(before) + 100)
    with pytest.raises(ApiKeysError, match="larger than 8 MiB"):
        create(store)
    assert store.path.read_bytes() == before


def test_files_made_by_root_belong_to_the_service(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files get the owner of their folder, and a replaced one keeps its own, as far as that is permitted."""
    given: list[tuple[int, int]] = []

    def give(_descriptor: int, owner: int, group: int) -> None:
        given.append((owner, group))
        raise PermissionError

    store.path.parent.mkdir()
    monkeypatch.setattr(os, "fchown", give)
    create(store)
    create(store)
    assert given == [(os.getuid(), store.path.parent.stat().st_gid)] * 3


def test_a_disk_that_fails_leaves_the_keys(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new file cannot be synced, the old one stays, and nothing is left beside it."""
    create(store)
    before = store.path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        create(store)
    assert store.path.read_bytes() == before
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]
