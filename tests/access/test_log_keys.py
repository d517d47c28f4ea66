"""API keys of a shared log: hostile documents leave them as they were, and a copy is written only if it differs."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.access.audit_log import Action, AuditEntry
from service.access.key_file import COPY_BYTES, FILE_BYTES_MAX, KeyRecord, read_keys, render_document
from service.access.key_storage import FileKeyStorage
from service.access.log_keys import KeysCopy, LogKeyStorage, copy_keys, follows_keys
from service.errors import ApiKeysError
from service.settings import Settings
from service.store.log.shared_facts import API_KEYS_FACT, FACT_BYTES_MAX
from tests.support.api_keys import add_key
from tests.support.memory_facts import MemoryFacts

ENTRY = AuditEntry("user:ann", Action.CREATE_KEY, "k7m2q9xd")
LOG = "postgresql://127.0.0.1:1/none"
CLOSED = "every call is refused until the log was asked for keys"
HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"format": 2, "keys": []}',
    b'{"format": 1, "keys": [], "more": 1}',
    b'{"format": 1, "keys": [{"id": "k7m2q9xd"}]}',
    b'{"format": 1, "keys": ' + b"[" * 100_000 + b"}",
    b" " * (9 << 20),
]


@pytest.fixture
def records(tmp_path: Path) -> tuple[KeyRecord, ...]:
    """The record of one key."""
    add_key(tmp_path / "made" / "keys.json")
    return read_keys(tmp_path / "made" / "keys.json").keys


def store(facts: MemoryFacts, document: bytes) -> None:
    """Write a document as another program could."""
    facts.change(API_KEYS_FACT, lambda _: document)


def test_a_document_of_the_largest_size_can_be_read() -> None:
    """A file and a fact have one limit, and what a file may be, its copy may be too."""
    assert FILE_BYTES_MAX == FACT_BYTES_MAX
    assert len(render_document((), "a copy", is_copy=True)) - len(render_document((), "a file")) <= COPY_BYTES


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_document_is_neither_read_nor_replaced(document: bytes) -> None:
    """The error names the log, and repeats nothing of the document."""
    facts = MemoryFacts()
    store(facts, document)
    storage = LogKeyStorage(facts)
    before = facts.read_changed({API_KEYS_FACT: 0})
    with pytest.raises(ApiKeysError, match="the document of API keys in the log"):
        storage.read()
    with pytest.raises(ApiKeysError, match="the document of API keys in the log"):
        storage.change(lambda _: (), ENTRY)
    assert facts.read_changed({API_KEYS_FACT: 0}) == before
    assert facts.read_notes(0, 10) == []


def test_the_document_is_that_of_a_file(tmp_path: Path, records: tuple[KeyRecord, ...]) -> None:
    """So an operator may move one to the other, byte for byte."""
    facts = MemoryFacts()
    assert LogKeyStorage(facts).read() == ()
    LogKeyStorage(facts).change(lambda _: records, ENTRY)
    FileKeyStorage(tmp_path / "keys.json", lambda _: None).change(lambda _: records, ENTRY)
    ((_, document),) = facts.read_changed({API_KEYS_FACT: 0}).values()
    assert document == (tmp_path / "keys.json").read_bytes()
    assert list(json.loads(document)) == ["format", "keys"]


def test_a_copy_is_replaced_if_it_differs(tmp_path: Path, records: tuple[KeyRecord, ...]) -> None:
    """It is private, says what it is, and has the keys; another file in its place is replaced."""
    path = tmp_path / "keys.json"
    copy = KeysCopy(path)
    assert copy.is_unchanged
    document = render_document(records, "the log")
    copy.write(document)
    assert copy.is_unchanged
    assert read_keys(path).keys == records
    assert read_keys(path).copy_of == "log"
    assert path.stat().st_mode & 0o777 == 0o600
    inode = path.stat().st_ino
    KeysCopy(path).write(document)
    copy.write(document)
    assert path.stat().st_ino == inode
    add_key(path)
    assert not copy.is_unchanged
    copy.write(document)
    assert copy.is_unchanged
    assert read_keys(path).keys == records
    path.unlink()
    assert not copy.is_unchanged


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_document_leaves_the_copy(tmp_path: Path, document: bytes, records: tuple[KeyRecord, ...]) -> None:
    """It counts as looked at, so it is not read again before it changes."""
    path = tmp_path / "keys.json"
    copy = KeysCopy(path)
    copy.write(render_document(records, "the log"))
    before = path.read_bytes()
    for one in (copy, KeysCopy(path)):
        with pytest.raises(ApiKeysError):
            one.write(document)
        assert one.is_unchanged
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "follows"),
    [
        ({"log": LOG}, True),
        ({}, False),
        ({"log": LOG, "keys_file": Path("keys.json")}, False),
        ({"log": LOG, "learn": False}, False),
    ],
)
def test_a_file_of_its_own_comes_before_the_log(tmp_path: Path, fields: dict[str, Any], follows: bool) -> None:  # noqa: FBT001
    assert follows_keys(Settings(data=tmp_path, **fields)) is follows


def test_a_copy_counts_while_the_log_cannot_be_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without one it is unknown whether there are keys."""
    settings = Settings(data=tmp_path, log=LOG, log_seconds=0.2)
    for can_write in (True, False):
        assert not copy_keys(settings, can_write=can_write)
    assert [message.partition(": ")[0] for message in caplog.messages] == [CLOSED, CLOSED]
    add_key(settings.keys_path)
    for can_write in (True, False):
        assert copy_keys(settings, can_write=can_write)
    assert len(caplog.messages) == 2
