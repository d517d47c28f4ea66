"""The files of access are followed whatever happens to the disk."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access.key_file import KeyTable
from service.access.scopes import Scope
from service.errors import KeyMissingError
from service.serve.authorization import access_files
from service.serve.authorization.access_files import AccessFiles
from service.serve.authorization.authorizer import Authorizer
from service.serve.responses import RequestHead
from tests.support.api_keys import add_key
from tests.support.waiting import SECONDS


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_files, "WATCH_SECONDS", 0.01)


def follow_until(files: AccessFiles, happened: asyncio.Event) -> None:
    """Follow the files until something has happened; fail if that takes too long."""

    async def run() -> None:
        task = asyncio.create_task(files.follow())
        await asyncio.wait_for(happened.wait(), SECONDS)
        task.cancel()

    asyncio.run(run())


def test_keys_expire_while_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered heads of an expired key are forgotten although the file cannot be read."""
    key = add_key(tmp_path / "keys.json", expires=datetime.now(UTC) + timedelta(seconds=0.2))
    authorizer = Authorizer(tmp_path / "keys.json")
    assert authorizer.authorize(RequestHead(api_key=key.encode()), Scope.ADMIN)
    hangs, expired = threading.Event(), asyncio.Event()

    def hang() -> KeyTable | None:
        hangs.wait(SECONDS)
        return None

    monkeypatch.setattr(authorizer, "read_changed", hang)

    def note_expiry(_now: float) -> None:
        expired.set()
        hangs.set()

    authorizer.on_expiry.append(note_expiry)
    follow_until(AccessFiles(authorizer, ()), expired)


def test_a_fault_does_not_end_the_look_at_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault is logged, and a file that changes later is followed."""
    authorizer = Authorizer(tmp_path / "keys.json")
    changed = asyncio.Event()
    authorizer.on_change.append(changed.set)
    read, faults = authorizer.read_changed, [ValueError("on purpose")] * 3

    def fail_first() -> KeyTable | None:
        if faults:
            raise faults.pop()
        if not (tmp_path / "keys.json").exists():
            add_key(tmp_path / "keys.json")
        return read()

    monkeypatch.setattr(authorizer, "read_changed", fail_first)
    follow_until(AccessFiles(authorizer, ()), changed)
    with pytest.raises(KeyMissingError):
        authorizer.principal_of(RequestHead())
    assert [record.getMessage() for record in caplog.records] == ["the files of access could not be followed"]
