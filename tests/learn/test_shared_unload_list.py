"""The list of unloaded models of a shared log, as replicas follow it: all have the same, and heed each load once."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.access.audit_log import Action, AuditEntry
from service.errors import LogUnavailableError
from service.learn.shared_unload_list import SharedUnloadList
from service.process.shared_memory import PAGE_BYTES, SharedMemory
from service.process.unload_list import LOADS_MAX, UnloadList, read_unload_list
from service.serve.log import shared_requests
from service.serve.log.shared_requests import change_list
from service.serve.models.load_unload import LoadUnload
from service.store.directory.data_directory import DataDirectory
from service.store.log.shared_facts import MODELS_FACT
from tests.support.budgets import examples
from tests.support.memory_facts import MemoryFacts
from tests.support.shared_memory_log import SharedMemoryLog

NAMES = "abc"
REPLICAS = 3
LIST = UnloadList().load("b").unload("a").dump()


class Registry:
    """The models of a worker, which records the names that a scan reads again."""

    unloaded: Collection[str] = ()
    asked: frozenset[str] = frozenset()

    async def rescan(self, unloaded: Collection[str], is_asked: Callable[[str], bool]) -> None:
        """See ModelRegistry."""
        self.unloaded, self.asked = unloaded, frozenset(filter(is_asked, NAMES))


class Replica:
    """The learner's and a worker's part of a replica, and how many requests each has got."""

    def __init__(self, facts: MemoryFacts, folder: Path, requests: int) -> None:
        self.memory = SharedMemory(1, 1)
        self.shared = SharedUnloadList(self.memory, DataDirectory(folder))
        self.shared.begin(facts)
        self.version, self.followed, self.scanned = 0, requests, 0
        self.registry = Registry()
        self.worker = LoadUnload(self.memory, 0, self.registry, None)  # type: ignore[arg-type]
        self.scan()
        self.scanned = requests

    def follow(self, facts: MemoryFacts, requests: int) -> None:
        """Read the list if it has changed, as the learner does."""
        for version, text in facts.read_changed({MODELS_FACT: self.version}).values():
            self.version = version
            self.shared.follow(text)
        self.followed = requests

    def scan(self) -> None:
        """Scan the models directory, as the worker does."""
        asyncio.run(self.worker.rescan_models())
        self.scanned = self.followed

    @property
    def published(self) -> bytes:
        """The list that workers have."""
        return read_unload_list(self.memory)[1]


Step = tuple[str, int, str, int]
STEPS = st.tuples(
    st.sampled_from(["load", "unload", "follow", "scan", "restart"]),
    st.integers(0, REPLICAS - 1),
    st.sampled_from(NAMES),
    st.integers(0, 100),
)


@settings(max_examples=examples(100))
@given(st.lists(STEPS, max_size=30))
def test_replicas_agree_and_heed_each_load_once(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """Whoever gets the requests, whatever their clocks say, and whenever each replica looks."""
    folder, log = tmp_path_factory.mktemp("replicas"), SharedMemoryLog()
    facts, requests = log.facts, list[tuple[str, str]]()
    replicas = [Replica(facts, folder / str(number), 0) for number in range(REPLICAS)]
    for kind, number, name, clock in steps:
        if kind in {"load", "unload"}:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shared_requests.time, "time_ns", lambda clock=clock: clock * 1_000_000)
                change_list(log, AuditEntry("anyone", Action(kind), name))
            requests.append((kind, name))
        elif kind == "follow":
            replicas[number].follow(facts, len(requests))
        elif kind == "scan":
            scan_and_check(replicas[number], requests)
        else:
            replicas[number] = Replica(facts, folder / str(number), len(requests))
    last = {name: kind for kind, name in requests}
    for replica in replicas:
        replica.follow(facts, len(requests))
        scan_and_check(replica, requests)
        assert replica.registry.unloaded == {name for name, kind in last.items() if kind == "unload"}
        assert replica.published == replicas[0].published
        scan_and_check(replica, requests)


def scan_and_check(replica: Replica, requests: list[tuple[str, str]]) -> None:
    """Scan, and check that the models are read again whose loads were not heeded before."""
    new = requests[replica.scanned : replica.followed]
    replica.scan()
    assert replica.registry.asked == {name for kind, name in new if kind == "load"}


def test_a_replica_that_missed_loads_reads_every_model() -> None:
    """The list remembers the newest loads alone."""
    worker, memory = Registry(), SharedMemory(1, 1)
    part = LoadUnload(memory, 0, worker, None)  # type: ignore[arg-type]
    found = UnloadList()
    shared = shared_list(memory, Path("/nonexistent"))
    for _ in range(LOADS_MAX):
        found = found.load("a")
        shared.follow(found.dump())
        asyncio.run(part.rescan_models())
    assert worker.asked == {"a"}
    for _ in range(LOADS_MAX):
        found = found.load("a")
    shared.follow(found.dump())
    asyncio.run(part.rescan_models())
    assert worker.asked == set(NAMES)


def shared_list(memory: SharedMemory, folder: Path) -> SharedUnloadList:
    return SharedUnloadList(memory, DataDirectory(folder, create=False))


class LostFacts(MemoryFacts):
    """Facts of a database that cannot be reached."""

    def read_changed(self, known: Mapping[str, int]) -> NoReturn:  # noqa: ARG002  # as of any facts
        """See SharedFacts."""
        raise LogUnavailableError("the database cannot be reached")


def begin(folder: Path, facts: MemoryFacts) -> bytes:
    """Start a service; return the list that its workers get."""
    memory = SharedMemory(1, 1)
    shared_list(memory, folder).begin(facts)
    return read_unload_list(memory)[1]


def test_a_start_has_the_list_of_the_log_or_else_its_copy(tmp_path: Path) -> None:
    """The copy goes once the log has no list: another log may be in its place."""
    facts = MemoryFacts()
    assert begin(tmp_path, facts) == begin(tmp_path, LostFacts()) == b""
    facts.change(MODELS_FACT, lambda _: LIST)
    assert begin(tmp_path, LostFacts()) == b""
    assert begin(tmp_path, facts) == begin(tmp_path, LostFacts()) == LIST
    assert begin(tmp_path, MemoryFacts()) == begin(tmp_path, LostFacts()) == b""


@pytest.mark.parametrize("copy", [b"", b"{", b"[]", b" " * (PAGE_BYTES + 1)])
def test_a_damaged_copy_is_ignored(tmp_path: Path, copy: bytes) -> None:
    (tmp_path / "unloaded.json").write_bytes(copy)
    assert begin(tmp_path, LostFacts()) == b""


def test_a_damaged_list_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the workers and the copy keep the list before."""
    memory = SharedMemory(1, 1)
    shared = shared_list(memory, tmp_path)
    shared.follow(LIST)
    for text in (b"secret", b'{"number":1,"unloaded":["secret"]}', LIST.ljust(PAGE_BYTES + 1)):
        with caplog.at_level(logging.INFO, "softstep"):
            shared.follow(text)
        assert read_unload_list(memory) == (1, LIST)
        assert (tmp_path / "unloaded.json").read_bytes() == LIST
        assert messages(caplog) == ["the list of unloaded models stays as it was: "]


def test_the_same_list_is_published_once(tmp_path: Path) -> None:
    """A learner that starts again reads it once more; workers need not scan for that."""
    memory = SharedMemory(1, 1)
    for _ in range(3):
        shared_list(memory, tmp_path).follow(LIST)
    assert read_unload_list(memory) == (1, LIST)


def test_a_disk_that_fails_does_not_stop_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = SharedMemory(1, 1)
    with caplog.at_level(logging.INFO, "softstep"):
        shared_list(memory, tmp_path / "missing").follow(LIST)
    assert read_unload_list(memory) == (1, LIST)
    assert messages(caplog) == ["the list of unloaded models is not copied to the data directory: "]


def messages(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the messages of the log without their reasons, and empty it."""
    found = [record.getMessage().partition(": ") for record in caplog.records]
    caplog.clear()
    return [start + colon for start, colon, _ in found]
