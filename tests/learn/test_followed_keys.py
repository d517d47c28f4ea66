"""A replica follows the API keys of a shared log: its copy is replaced, and damage leaves it as it was."""

from pathlib import Path

import pytest

from service.access import log_keys
from service.access.audit_log import Action, AuditEntry
from service.access.key_file import read_keys
from service.access.log_keys import LogKeyStorage
from service.errors import LogUnavailableError
from service.learn.followed_facts import LOOK_SECONDS, FollowedFacts
from service.learn.followed_keys import FollowedKeys
from service.process.shared_memory import SharedMemory
from service.store.log.shared_facts import API_KEYS_FACT
from tests.support.api_keys import add_key
from tests.support.memory_facts import MemoryFacts

ENTRY = AuditEntry("user:ann", Action.CREATE_KEY, "k7m2q9xd")


class Rig:
    """A service whose log has the facts, and what its sink for the fact `models` has got."""

    def __init__(self, folder: Path) -> None:
        self.facts = MemoryFacts()
        self.storage = LogKeyStorage(self.facts)
        self.path = folder / "keys.json"
        self.memory = SharedMemory(1, 8)
        self.memory.keys_unknown.set(1)
        self.models: list[bytes] = []
        self.folder = folder
        self.now = 100.0
        self.followed = self.start()

    def start(self) -> FollowedFacts:
        """Return the follower of a process that has just started."""
        return FollowedFacts(
            self.facts, {"models": self.models.append}, FollowedKeys(self.path, self.memory.keys_unknown)
        )

    def look(self, followed: FollowedFacts | None = None) -> None:
        """Look, after the pause."""
        self.now += LOOK_SECONDS
        (followed or self.followed).look(self.now)

    def add_key(self) -> int:
        """Add a key to those of the log, and return how many there are."""
        add_key(self.folder / "another" / "keys.json")
        records = read_keys(self.folder / "another" / "keys.json").keys
        self.storage.change(lambda _: records, ENTRY)
        return len(records)

    @property
    def copied(self) -> int | None:
        """The number of keys in the copy, or None without one."""
        return len(read_keys(self.path).keys) if self.path.exists() else None


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_keys_are_copied_as_they_change(rig: Rig) -> None:
    """The process that follows may be a new one."""
    rig.look()
    assert rig.copied is None
    for number in (1, 2):
        assert rig.add_key() == number
        rig.look()
        assert rig.copied == number
    assert rig.add_key() == 3
    rig.look(rig.start())
    assert rig.copied == 3


def test_a_copy_that_was_changed_is_mended(rig: Rig) -> None:
    rig.add_key()
    rig.look()
    add_key(rig.path)
    assert rig.copied == 2
    rig.look()
    assert rig.copied == 1
    rig.path.unlink()
    rig.look()
    assert rig.copied == 1


@pytest.mark.parametrize(
    "document", [b"{", b'{"format": 2, "keys": []}', b" " * (9 << 20)], ids=["cut", "new", "9 MiB"]
)
def test_a_damaged_document_is_logged_once(rig: Rig, document: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Keys stay as they were, other facts are followed, and the next whole document counts."""
    rig.add_key()
    rig.look()
    rig.facts.change(API_KEYS_FACT, lambda _: document)
    rig.facts.change("models", lambda _: b"one")
    for _ in range(3):
        rig.look()
    assert rig.copied == 1
    assert rig.models == [b"one"]
    assert len([message for message in caplog.messages if "the document of API keys in the log" in message]) == 1
    rig.facts.change(API_KEYS_FACT, lambda _: b'{"format": 1, "keys": []}')
    rig.look()
    assert rig.copied == 0


def test_a_disk_that_fails_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once."""
    rig.add_key()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_keys, "write_whole_file", fail)
        for _ in range(2):
            rig.look()
    assert rig.copied is None
    assert caplog.messages == ["the API keys stay as they were: disk error: No space left on device"]
    rig.look()
    assert rig.copied == 1


def test_it_is_known_that_there_are_no_keys_once_the_log_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has some, or damaged ones, or cannot be asked does not say so."""

    def fail(*_: object) -> None:
        raise LogUnavailableError("the log is lost")

    def is_unknown() -> int:
        return rig.memory.keys_unknown.get()

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFacts, "read_changed", fail)
        rig.look()
    assert is_unknown()
    rig.facts.change(API_KEYS_FACT, lambda _: b"{")
    rig.look(rig.start())
    assert is_unknown()
    rig.facts.change(API_KEYS_FACT, lambda _: b'{"format": 1, "keys": []}')
    rig.look(rig.start())
    assert is_unknown()
    FollowedFacts(MemoryFacts(), {"models": rig.models.append}).look(100)
    assert is_unknown()
    FollowedFacts(MemoryFacts(), {}, FollowedKeys(rig.path, rig.memory.keys_unknown)).look(100)
    assert not is_unknown()
