"""Load and unload models in every worker.

A worker that receives such a request writes a line to the parent. Only the parent changes the list of unloaded models
and its generation. Each worker notices the new generation in shared memory, scans the models directory without the
unloaded models, and acknowledges. The worker with the request responds when all workers have acknowledged.

The list is a JSON object: "unloaded" has names, and "loads" the newest load requests as [number, name], from 1 on. A
worker reads the files of those models again that were asked for since its last scan.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

import orjson

from service.errors import LoadPendingError, ModelNotFoundError
from service.log_events import logger
from service.process.shared_memory import ACKNOWLEDGED, HANDLED, PAGE_BYTES, SharedMemory
from service.process.unload_list import all_workers_applied, read_unload_list
from service.serve.models.registry import ModelRegistry
from service.store.artifact.version_folders import MODEL_NAME

POLL_SECONDS: Final = 0.02
# The time in which every worker must acknowledge; after it the client is asked to look again later.
ACKNOWLEDGE_SECONDS: Final = 10.0
# Load requests that the list remembers. A worker that missed more of them reads every model again.
LOADS_MAX: Final = 32
# Room for them in the list: a name of 64 characters, a number of 19 digits, brackets, quotes and commas.
LOADS_BYTES: Final = LOADS_MAX * 96


class LoadRequests:
    """The parent's record of load and unload requests."""

    def __init__(self) -> None:
        self._unloaded: frozenset[str] = frozenset()
        self._loads: list[tuple[int, str]] = []

    def apply_line(self, line: bytes) -> tuple[int, int, bytes]:
        """Apply a worker's line; return its slot, its token, and the list to publish."""
        request = orjson.loads(line)
        name: str = request["name"]
        if request["do"] == "load":
            self._unloaded -= {name}
            number = self._loads[-1][0] + 1 if self._loads else 1
            self._loads = [*self._loads, (number, name)][-LOADS_MAX:]
        else:
            names = self._unloaded | {name}
            if len(orjson.dumps(sorted(names))) + LOADS_BYTES <= PAGE_BYTES:
                self._unloaded = names
        return request["slot"], request["token"], self._dump()

    def _dump(self) -> bytes:
        return orjson.dumps({"unloaded": sorted(self._unloaded), "loads": self._loads})


def loads_since(loads: Sequence[tuple[int, str]], number: int) -> Callable[[str], bool]:
    """Return a function that says whether a load of a model was requested after the load with this number."""
    if loads and loads[0][0] > number + 1:
        return lambda _name: True
    names = {name for each, name in loads if each > number}
    return names.__contains__


async def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # an asyncio event cannot be set by another process
        await asyncio.sleep(POLL_SECONDS)


class LoadUnload:
    """One worker's part in loading and unloading models.

    Args:
        memory: The shared memory.
        slot: The worker's slot.
        pipe: The descriptor to which lines for the parent are written.
        registry: The worker's models.
    """

    def __init__(self, memory: SharedMemory, slot: int, pipe: int, registry: ModelRegistry) -> None:
        self._memory = memory
        self._slot = slot
        self._slot_start = memory.slot(slot)
        self._pipe = pipe
        self._registry = registry
        self._tokens = itertools.count(memory.cells[self._slot_start + HANDLED] + 1)
        self._last_load = 0

    @property
    def pending(self) -> bool:
        """Whether this worker has not applied the current list of unloaded models yet."""
        return self._memory.generation != self._memory.cells[self._slot_start + ACKNOWLEDGED]

    async def rescan_models(self) -> None:
        """Scan the models directory without the unloaded models, and acknowledge the list's generation."""
        generation, text = read_unload_list(self._memory)
        page: dict[str, Any] = orjson.loads(text) if text else {"unloaded": [], "loads": []}
        unloaded: Collection[str] = frozenset(page["unloaded"])
        await self._registry.rescan(unloaded, loads_since(page["loads"], self._last_load))
        if page["loads"]:
            self._last_load = page["loads"][-1][0]
        self._memory.cells[self._slot_start + ACKNOWLEDGED] = generation

    async def load_or_unload(self, do: Literal["load", "unload"], name: str) -> None:
        """Make every worker load or unload a model; return when all have.

        Raises:
            ModelNotFoundError: The name is not valid for a model.
            LoadPendingError: A worker has not acknowledged in time.
        """
        # A name has at most 64 characters, so the kernel writes the line whole, also with several writers (PIPE_BUF is
        # at least 512). The parent could not parse parts of lines.
        if not MODEL_NAME.fullmatch(name):
            raise ModelNotFoundError("Request for unknown model: the name is not valid for a model.")
        token = next(self._tokens)
        line = orjson.dumps({"slot": self._slot, "token": token, "do": do, "name": name}) + b"\n"
        try:
            os.write(self._pipe, line)
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                # Other processes write the shared memory, so the only way to wait is to poll.
                await _wait_until(lambda: self._memory.cells[self._slot_start + HANDLED] >= token)
                generation = self._memory.generation
                await _wait_until(lambda: not self.pending and all_workers_applied(self._memory, generation))
        except (TimeoutError, BlockingIOError):
            raise LoadPendingError("Not every worker has done this yet; check the model again in a moment.") from None
        if name in self._registry.now.list_names():  # a name of no model is the client's own
            logger.event("load_applied", action=do, model=name)
