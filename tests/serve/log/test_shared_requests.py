"""Load and unload requests of a worker to all replicas of a shared log."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import orjson
import pytest
import uvloop

from service.access.audit_log import Action, AuditEntry
from service.errors import LoadPendingError, LogDamagedError, LogUnavailableError, LogUnsafeError, ModelNotFoundError
from service.process.shared_memory import PID, SharedMemory
from service.process.unload_list import UnloadList, publish_unload_list
from service.process.wakeup import Wakeup
from service.serve.log.shared_requests import SharedRequests, change_list
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import WriterCallbacks
from service.serve.models import load_unload
from service.serve.models.live_models import LiveModels
from service.serve.models.load_unload import LoadUnload
from service.store.log.postgres import PostgresLog
from service.store.log.shared_facts import MODELS_FACT
from tests.support.memory_log import MemoryLog
from tests.support.shared_memory_log import SharedMemoryLog

UNLOAD = AuditEntry("key:k7m2q9xd", Action.UNLOAD, "iris", request_id="r-17")


class Registry:
    """The models of a worker."""

    now = LiveModels()
    scans: int = 0

    async def rescan(self, *_: Any) -> None:
        """See ModelRegistry."""
        self.scans += 1


class Rig:
    """A worker's part with a writer over a shared log, without a learner."""

    def __init__(self) -> None:
        self.memory = SharedMemory(1, 1)
        self.memory.cells[self.memory.slot(0) + PID] = 1
        self.log = SharedMemoryLog()
        self.open_errors: list[Exception] = []
        callbacks = WriterCallbacks(self._open_log, lambda _: None, lambda *_: None, Wakeup(), lambda _: None)
        self.writer = Writer(callbacks, 10, 1000)
        self.registry = Registry()
        requests = SharedRequests(self.memory, self.writer)
        self.part = LoadUnload(self.memory, 0, self.registry, requests)  # type: ignore[arg-type]

    def _open_log(self) -> Any:
        if self.open_errors:
            raise self.open_errors.pop(0)
        return self.log

    @property
    def stored(self) -> bytes:
        """The list of the log."""
        return self.log.facts.read_changed({MODELS_FACT: 0})[MODELS_FACT][1]

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine with the writer."""

        async def run_and_close() -> None:
            self.writer.start()
            try:
                await scenario()
            finally:
                await self.writer.close()

        uvloop.run(run_and_close())


def test_a_request_is_a_change_with_a_note() -> None:
    """Each has a number of its own, also if the model was unloaded before, and the entry of the audit log.

    The number is the time at least, so it is not that of a change that a failover has lost.
    """
    log, now_ms = SharedMemoryLog(), time.time_ns() // 1_000_000
    entries = [UNLOAD, UNLOAD, UNLOAD._replace(action=Action.LOAD)]
    numbers = [change_list(log, entry) for entry in entries]
    assert numbers == sorted({now_ms, *numbers})[-3:]
    version, text = log.facts.read_changed({MODELS_FACT: 0})[MODELS_FACT]
    assert (version, UnloadList.parse(text)) == (3, (numbers[2], frozenset(), ((numbers[2], "iris"),)))
    entry = {"actor": "key:k7m2q9xd", "action": "unload", "object": "iris", "outcome": "done", "request_id": "r-17"}
    notes = [orjson.loads(note.content) for note in log.facts.read_notes(0, 10)]
    assert notes == [entry, entry, entry | {"action": "load"}]


def test_no_change_of_several_replicas_is_lost(address: str) -> None:
    """They change the list in PostgreSQL at one moment; each change has a number and a note of its own."""
    names = [f"m{number}" for number in range(12)]

    def change(name: str) -> list[int]:
        with closing(PostgresLog(address, copies=1)) as log:
            return [change_list(log, UNLOAD._replace(action=do, object=name)) for do in (Action.LOAD, Action.UNLOAD)]

    with ThreadPoolExecutor(4) as threads:
        numbers = [number for pair in threads.map(change, names) for number in pair]
    with closing(PostgresLog(address, copies=1)) as log:
        found = UnloadList.parse(log.facts.read_changed({MODELS_FACT: 0})[MODELS_FACT][1])
        notes = log.facts.read_notes(0, 100)
    assert found.unloaded == {*names}
    assert len(notes) == len(numbers) == len({*numbers}) == 2 * len(names)
    assert sorted(name for _, name in found.loads) == sorted(names)
    assert found.number == max(numbers)


def test_a_damaged_list_is_not_replaced() -> None:
    """An operator unloaded its models on purpose."""
    log = SharedMemoryLog()
    log.facts.change(MODELS_FACT, lambda _: b"{}")
    with pytest.raises(LogDamagedError, match=r"^the list of unloaded models has another form$"):
        change_list(log, UNLOAD)
    assert log.facts.read_changed({MODELS_FACT: 0}) == {MODELS_FACT: (1, b"{}")}
    assert log.facts.read_notes(0, 10) == []


def test_a_log_of_one_service_has_no_list() -> None:
    with pytest.raises(LogUnsafeError):
        change_list(MemoryLog(), UNLOAD)


def test_a_call_waits_until_its_change_is_applied() -> None:
    """A list from before does not count, a later one does."""
    rig = Rig()

    async def scenario() -> None:
        publish_unload_list(rig.memory, UnloadList().load("iris").dump())
        await rig.part.rescan_models()
        call = asyncio.create_task(rig.part.load_or_unload(UNLOAD))
        while not rig.log.facts.read_notes(0, 1):  # noqa: ASYNC110  # another thread writes it
            await asyncio.sleep(0)
        await asyncio.sleep(3 * load_unload.POLL_SECONDS)
        assert not call.done()
        publish_unload_list(rig.memory, UnloadList.parse(rig.stored).load("digits").dump())
        await asyncio.sleep(3 * load_unload.POLL_SECONDS)
        assert not call.done()
        await rig.part.rescan_models()
        await call
        assert rig.registry.scans == 2

    rig.run(scenario)


def test_a_list_that_is_not_followed_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the learner is down; the change itself is made."""
    monkeypatch.setattr(load_unload, "ACKNOWLEDGE_SECONDS", 0.05)
    rig = Rig()

    async def scenario() -> None:
        with pytest.raises(LoadPendingError):
            await rig.part.load_or_unload(UNLOAD)

    rig.run(scenario)
    assert UnloadList.parse(rig.stored).unloaded == {"iris"}


@contextmanager
def nothing_changes(rig: Rig) -> Iterator[None]:
    yield
    assert rig.log.facts.read_changed({MODELS_FACT: 0}) == {}
    assert rig.registry.scans == 0


def test_a_lost_log_refuses_at_once() -> None:
    """Nothing changes, and the call does not wait for workers."""
    rig = Rig()
    rig.open_errors.append(LogUnavailableError("the database cannot be reached"))

    async def scenario() -> None:
        with pytest.raises(LogUnavailableError):
            await rig.part.load_or_unload(UNLOAD)

    with nothing_changes(rig):
        rig.run(scenario)


def test_a_name_of_no_model_is_refused() -> None:
    """It would be in the list of every replica."""
    rig = Rig()

    async def scenario() -> None:
        with pytest.raises(ModelNotFoundError):
            await rig.part.load_or_unload(UNLOAD._replace(object="x" * 65))

    with nothing_changes(rig):
        rig.run(scenario)
