"""A thread follows the facts of a real log: the API keys and the unloaded models."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.access.audit_log import Action, AuditEntry
from service.access.log_keys import LogKeyStorage
from service.errors import LogUnsafeError
from service.learn import facts_thread
from service.learn.facts_thread import THREAD_NAME, following_facts
from service.learn.followed_facts import FollowedFacts
from service.process.shared_memory import SharedMemory
from service.process.unload_list import UnloadList, read_unload_list
from service.settings import Settings
from service.store.log.postgres import PostgresLog
from service.store.log.shared_facts import MODELS_FACT
from tests.support.waiting import SECONDS, wait_until

ENTRY = AuditEntry("user:ann", Action.CREATE_KEY, "k7m2q9xd")
LIST = UnloadList().unload("iris").dump()


@pytest.fixture
def memory() -> SharedMemory:
    """The memory of a service that does not know yet whether there are keys."""
    memory = SharedMemory(1, 8)
    memory.keys_unknown.set(1)
    return memory


@pytest.fixture
def log(address: str) -> Iterator[PostgresLog]:
    with closing(PostgresLog(address, copies=1)) as log:
        yield log


def is_running() -> bool:
    return THREAD_NAME in [thread.name for thread in threading.enumerate()]


def test_keys_and_models_are_followed(log: PostgresLog, address: str, memory: SharedMemory, tmp_path: Path) -> None:
    """Until the end of the block."""
    settings = Settings(data=tmp_path, log=address, log_copies="1")
    with following_facts(settings, memory):
        wait_until(lambda: not memory.keys_unknown.get(), SECONDS)
        assert not settings.keys_path.exists()
        log.facts.change(MODELS_FACT, lambda _: LIST)
        LogKeyStorage(log.facts).change(lambda _: (), ENTRY)
        wait_until(lambda: read_unload_list(memory)[1] == LIST and settings.keys_path.exists(), SECONDS)
    wait_until(lambda: not is_running(), SECONDS)


def test_a_file_of_its_own_is_left_alone(log: PostgresLog, address: str, memory: SharedMemory, tmp_path: Path) -> None:
    """Such a service follows the models alone."""
    LogKeyStorage(log.facts).change(lambda _: (), ENTRY)
    log.facts.change(MODELS_FACT, lambda _: LIST)
    settings = Settings(data=tmp_path, log=address, log_copies="1", keys_file=tmp_path / "own.json")
    with following_facts(settings, memory):
        wait_until(lambda: read_unload_list(memory)[1] == LIST, SECONDS)
    assert not list(tmp_path.glob("keys*")) + list(tmp_path.glob("own*"))


def test_a_log_in_the_data_directory_has_no_thread(memory: SharedMemory, tmp_path: Path) -> None:
    with following_facts(Settings(data=tmp_path), memory):
        assert not is_running()


@pytest.mark.parametrize("error", [LogUnsafeError("another release"), ZeroDivisionError()])
def test_a_fault_is_logged_once_and_stops_nothing(
    memory: SharedMemory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """The next look tries again."""
    looks: list[float] = []

    def fail(_followed: FollowedFacts, now: float) -> None:
        looks.append(now)
        raise error

    monkeypatch.setattr(facts_thread, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(FollowedFacts, "look", fail)
    with following_facts(Settings(data=tmp_path, log="postgresql://127.0.0.1:1/none"), memory):
        wait_until(lambda: len(looks) > 2, SECONDS)
    assert len([message for message in caplog.messages if message.startswith("keys and models stay")]) == 1
