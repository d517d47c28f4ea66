"""Requests to load or unload a model in all replicas of a shared log."""

import time
from collections.abc import Callable
from typing import Final

from service.access.audit_log import Action, AuditEntry, encode_entry
from service.errors import LogDamagedError, LogUnsafeError
from service.process.shared_memory import SharedMemory
from service.process.unload_list import UnloadList, read_unload_list
from service.serve.log.writer import Writer
from service.serve.models.load_unload import LoadUnload, ParentRequests
from service.serve.models.registry import ModelRegistry
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_facts import MODELS_FACT


class SharedRequests:
    """Changes the list of unloaded models in a shared log, whose learner publishes it to the workers of the service.

    The number of a change is the time in milliseconds, or one more than that of the change before if clocks differ. So
    it is not the number of a change that was lost in a failover, and each replica heeds each load once.

    Args:
        memory: The shared memory.
        writer: The writer of the log. The learner follows the list.
    """

    def __init__(self, memory: SharedMemory, writer: Writer) -> None:
        self._memory: Final = memory
        self._writer: Final = writer

    async def send(self, entry: AuditEntry) -> Callable[[], bool]:
        """See ListRequests."""
        number = await self._writer.call_with_log(lambda log: change_list(log, entry))
        return lambda: UnloadList.parse(read_unload_list(self._memory)[1]).number >= number


def make_load_unload(
    memory: SharedMemory, slot: int, pipe: int, registry: ModelRegistry, writer: Writer | None
) -> LoadUnload:
    """Make a worker's part in loading and unloading models.

    Args:
        memory: The shared memory.
        slot: The worker's slot.
        pipe: The pipe to the parent.
        registry: The worker's models.
        writer: The writer of a shared log, which has the list of unloaded models; None if the parent keeps it.
    """
    requests = ParentRequests(memory, slot, pipe) if writer is None else SharedRequests(memory, writer)
    return LoadUnload(memory, slot, registry, requests)


def change_list(log: FeedbackLog, entry: AuditEntry) -> int:
    """Change the list of unloaded models of a shared log, with an entry in its audit; return the number of the change.

    Raises:
        LogDamagedError: The log's list cannot be parsed.
        LogError: The log cannot be used now.
    """
    now_ms = time.time_ns() // 1_000_000

    def change(text: bytes | None) -> bytes:
        try:
            found = UnloadList.parse(text or b"")
        except ValueError as error:
            raise LogDamagedError(str(error)) from None
        after = found.load if entry.action is Action.LOAD else found.unload
        return after(entry.object, now_ms).dump()

    facts = log.facts
    if facts is None:
        raise LogUnsafeError("the feedback log is not one that replicas share")
    text = facts.change(MODELS_FACT, change, encode_entry(entry))
    return UnloadList.parse(text or b"").number
