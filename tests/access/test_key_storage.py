"""The file of API keys is changed by one process at a time, and is replaced whole."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from service.access import key_file
from service.access import key_storage as module
from service.access.audit_log import AuditEntry
from service.access.key_file import LimitsRecord, read_keys, render_document
from service.access.key_options import Expiry
from service.access.key_storage import FileKeyStorage
from service.access.key_store import KeyStore, NewKey
from service.access.scopes import Scope
from service.errors import ApiKeysError


def ignore(_entry: AuditEntry) -> None:
    """Write no entry."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist, in a folder that does not either."""
    return tmp_path / "data" / "keys.json"


@pytest.fixture
def store(path: Path) -> KeyStore:
    return KeyStore(FileKeyStorage(path, ignore), "user:ann")


def create(store: KeyStore) -> NewKey:
    return store.create("a test", [Scope.PREDICT], ("iris",), Expiry(None), LimitsRecord())


def test_a_copy_is_not_changed(store: KeyStore, path: Path) -> None:
    """It is read as the file of a service, and the sentence says where the keys are."""
    key = create(store)
    copy = render_document(store.read(), "a copy", is_copy=True)
    path.write_bytes(copy)
    assert store.read() == (key.record,)
    for change in (lambda: create(store), lambda: store.revoke(key.key.id)):
        with pytest.raises(ApiKeysError, match="--log"):
            change()
    assert path.read_bytes() == copy


def test_a_failed_entry_comes_after_the_change(path: Path) -> None:
    """A file and the audit log are two: what is recorded is done, and the other is free to change the file then."""

    def fail(_entry: AuditEntry) -> None:
        assert len(read_keys(path).keys) == 1
        with path.with_name("keys.json.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create(KeyStore(FileKeyStorage(path, fail), "user:ann"))


@pytest.mark.parametrize("umask", [0, 0o777])
def test_only_the_owner_may_read_the_files(store: KeyStore, path: Path, umask: int) -> None:
    """The file and its lock are private whatever the umask; a file that is replaced keeps its permissions."""
    path.parent.mkdir()
    before = os.umask(umask)
    try:
        create(store)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in sorted(path.parent.iterdir())]
        path.chmod(0o640)
        create(store)
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays(tmp_path: Path) -> None:
    """A link to the file is followed, and the file that it leads to is replaced."""
    real, link = tmp_path / "real" / "keys.json", tmp_path / "keys.json"
    real.parent.mkdir()
    link.symlink_to(real)
    key = create(KeyStore(FileKeyStorage(link, ignore), "user:ann"))
    assert link.is_symlink()
    assert read_keys(real).keys == (key.record,)


def test_a_command_that_hangs_does_not_block_others_forever(
    store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change waits for the lock of another one, and gives up after a time."""
    create(store)
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    with path.with_name("keys.json.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ApiKeysError, match="another command"):
            create(store)
    assert len(store.read()) == 1
    create(store)


def test_a_file_that_could_not_be_read_is_not_written(
    store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key too many is refused, and the file stays readable."""
    create(store)
    before = path.read_bytes()
    monkeypatch.setattr(key_file, "FILE_BYTES_MAX", len(before) + 100)
    with pytest.raises(ApiKeysError, match="larger than 8 MiB"):
        create(store)
    assert path.read_bytes() == before


def test_files_made_by_root_belong_to_the_service(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files get the owner of their folder, and a replaced one keeps its own, as far as that is permitted."""
    given: list[tuple[int, int]] = []

    def give(_descriptor: int, owner: int, group: int) -> None:
        given.append((owner, group))
        raise PermissionError

    path.parent.mkdir()
    monkeypatch.setattr(os, "fchown", give)
    create(store)
    create(store)
    assert given == [(os.getuid(), path.parent.stat().st_gid)] * 3


def test_a_disk_that_fails_leaves_the_keys(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new file cannot be synced, the old one stays, and nothing is left beside it."""
    create(store)
    before = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        create(store)
    assert path.read_bytes() == before
    assert sorted(path.name for path in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]
