"""Load and unload models in every worker.

A worker that receives such a request has the list of unloaded models changed (process/unload_list.py):

    by the parent           the worker writes a line to it, and the parent publishes the list that it keeps
    in the shared log       replicas have one list, which the learner of each follows (serve/log/shared_requests.py)

Each worker notices the new generation of the list in shared memory, scans the models directory without the unloaded
models, and acknowledges. The worker with the request responds when all workers of its service have acknowledged.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import orjson

from service.access.audit_log import Action, AuditEntry
from service.errors import LoadPendingError, ModelNotFoundError
from service.log_events import logger
from service.process.shared_memory import ACKNOWLEDGED, HANDLED, SharedMemory
from service.process.unload_list import Load, UnloadList, all_workers_applied, read_unload_list
from service.serve.models.registry import ModelRegistry
from service.store.artifact.version_folders import MODEL_NAME

POLL_SECONDS: Final = 0.02
# The time in which every worker must acknowledge; after it the client is asked to look again later.
ACKNOWLEDGE_SECONDS: Final = 10.0
PENDING: Final = "Not every worker has done this yet; check the model again in a moment."


class LoadRequests:
    """The parent's list of unloaded models, which a restart of the service forgets."""

    def __init__(self) -> None:
        self._list = UnloadList()

    def apply_line(self, line: bytes) -> tuple[int, int, bytes]:
        """Apply a worker's line; return its slot, its token, and the list to publish."""
        request: dict[str, Any] = orjson.loads(line)
        change = self._list.load if request["do"] == Action.LOAD else self._list.unload
        self._list = change(request["name"])
        return request["slot"], request["token"], self._list.dump()


class ListRequests(Protocol):
    """How a worker has the list of unloaded models changed."""

    async def send(self, entry: AuditEntry) -> Callable[[], bool]:
        """Request a load or an unload; return a function that says whether the list with it is published.

        Args:
            entry: What is requested, as the audit log has it.

        Raises:
            LoadPendingError: Too many requests wait.
            LogError: The list is in a log that cannot be used now.
        """


class ParentRequests:
    """Requests to the parent, which keeps the list of a service alone.

    Args:
        memory: The shared memory.
        slot: The worker's slot.
        pipe: The descriptor to which lines for the parent are written.
    """

    def __init__(self, memory: SharedMemory, slot: int, pipe: int) -> None:
        self._cells: Final = memory.cells
        self._slot: Final = slot
        self._handled: Final = memory.slot(slot) + HANDLED
        self._pipe: Final = pipe
        self._tokens: Final = itertools.count(self._cells[self._handled] + 1)

    async def send(self, entry: AuditEntry) -> Callable[[], bool]:
        """See ListRequests."""
        # A name has at most 64 characters, so the kernel writes the line whole, also with several writers (PIPE_BUF is
        # at least 512). The parent could not parse parts of lines.
        token = next(self._tokens)
        line = orjson.dumps({"slot": self._slot, "token": token, "do": entry.action, "name": entry.object}) + b"\n"
        try:
            os.write(self._pipe, line)
        except BlockingIOError:
            raise LoadPendingError(PENDING) from None
        return lambda: self._cells[self._handled] >= token


async def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # an asyncio event cannot be set by another process
        await asyncio.sleep(POLL_SECONDS)


class LoadUnload:
    """One worker's part in loading and unloading models.

    Args:
        memory: The shared memory.
        slot: The worker's slot.
        registry: The worker's models.
        requests: How the list of unloaded models is changed.
    """

    def __init__(self, memory: SharedMemory, slot: int, registry: ModelRegistry, requests: ListRequests) -> None:
        self._memory = memory
        self._slot_start = memory.slot(slot)
        self._registry = registry
        self._requests = requests
        self._heeded: Collection[Load] = ()

    @property
    def pending(self) -> bool:
        """Whether this worker has not applied the current list of unloaded models yet."""
        return self._memory.generation != self._memory.cells[self._slot_start + ACKNOWLEDGED]

    async def rescan_models(self) -> None:
        """Scan the models directory without the unloaded models, and acknowledge the list's generation."""
        generation, text = read_unload_list(self._memory)
        found = UnloadList.parse(text)
        await self._registry.rescan(found.unloaded, found.loads_after(self._heeded))
        self._heeded = found.loads
        self._memory.cells[self._slot_start + ACKNOWLEDGED] = generation

    async def load_or_unload(self, entry: AuditEntry) -> None:
        """Make every worker load or unload a model; return when all have.

        Args:
            entry: What to do, as the audit log has it: Action.LOAD or Action.UNLOAD, and the model.

        Raises:
            ModelNotFoundError: The name is not valid for a model.
            LoadPendingError: A worker has not acknowledged in time.
            LogError: The list is in a log that cannot be used now.
        """
        if not MODEL_NAME.fullmatch(entry.object):
            raise ModelNotFoundError("Request for unknown model: the name is not valid for a model.")
        is_published = await self._requests.send(entry)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                # Other processes write the shared memory, so the only way to wait is to poll.
                await _wait_until(is_published)
                generation = self._memory.generation
                await _wait_until(lambda: not self.pending and all_workers_applied(self._memory, generation))
        except TimeoutError:
            raise LoadPendingError(PENDING) from None
        if entry.object in self._registry.now.list_names():  # a name of no model is the client's own
            logger.event("load_applied", action=entry.action, model=entry.object)
