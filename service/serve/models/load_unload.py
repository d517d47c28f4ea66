"""Load and unload, carried out by every worker.

A worker that is asked sends a line to the parent, which alone gives orders. Each worker sees their number grow on the
shared board, looks at the models directory again, leaves out what is unloaded, and acknowledges; the one that was asked
answers when all have.
"""

import asyncio
import itertools
import os
from collections.abc import Callable
from typing import Final, Literal

import orjson

from service.errors import LoadPendingError, ModelNotFoundError
from service.process.shared_memory import ACKNOWLEDGED, HANDLED, PAGE_BYTES, SharedMemory
from service.process.unload_list import all_workers_applied, read_unload_list
from service.serve.models.registry import ModelRegistry
from service.store.artifact.repository import MODEL_NAME

POLL_SECONDS: Final = 0.02
# Every worker reads the models directory again in this time, or the caller is told to look later.
ANSWER_SECONDS: Final = 10.0


def apply_line(unloaded: frozenset[str], line: bytes) -> frozenset[str]:
    """What is unloaded after a worker's line; the parent uses this."""
    order = orjson.loads(line)
    names = unloaded - {order["name"]} if order["do"] == "load" else unloaded | {order["name"]}
    return names if len(orjson.dumps(sorted(names))) <= PAGE_BYTES else unloaded


def parse_slot_and_token(line: bytes) -> tuple[int, int]:
    """The slot and the token of a worker's line."""
    order = orjson.loads(line)
    return order["slot"], order["token"]


async def _until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110  # no event can cross the processes
        await asyncio.sleep(POLL_SECONDS)


class LoadUnload:
    """A worker's end of the orders."""

    def __init__(self, board: SharedMemory, slot: int, pipe: int, live: ModelRegistry) -> None:
        self._board = board
        self._slot = slot
        self._at = board.slot(slot)
        self._pipe = pipe
        self._live = live
        self._tokens = itertools.count(board.cells[self._at + HANDLED] + 1)

    def unloaded(self) -> tuple[int, frozenset[str]]:
        """The number of the orders in force, and the names that they unload."""
        number, text = read_unload_list(self._board)
        return number, frozenset(orjson.loads(text) if text else ())

    @property
    def pending(self) -> bool:
        """Whether orders are in force that this worker has not carried out."""
        return self._board.generation != self._board.cells[self._at + ACKNOWLEDGED]

    async def rescan_models(self) -> None:
        """Bring the live models in line with the disk and the orders, and acknowledge them."""
        number, unloaded = self.unloaded()
        await self._live.rescan(unloaded)
        self._board.cells[self._at + ACKNOWLEDGED] = number

    async def load_or_unload(self, do: Literal["load", "unload"], name: str) -> None:
        """Have every worker load or unload a model; returns when all have.

        Raises:
            ModelNotFoundError: No model can have that name.
            LoadPendingError: They have not in the time that a caller may wait.
        """
        # A name has at most 64 characters, so a pipe takes the line whole, also from several writers (PIPE_BUF is at
        # least 512); the parent could not read parts of lines.
        if not MODEL_NAME.fullmatch(name):
            raise ModelNotFoundError("Request for unknown model: no model can have that name.")
        token = next(self._tokens)
        line = orjson.dumps({"slot": self._slot, "token": token, "do": do, "name": name}) + b"\n"
        try:
            os.write(self._pipe, line)
            async with asyncio.timeout(ANSWER_SECONDS):
                # The board is plain memory that other processes write: there is nothing to wait on but time.
                await _until(lambda: self._board.cells[self._at + HANDLED] >= token)
                number = self._board.generation
                await _until(lambda: not self.pending and all_workers_applied(self._board, number))
        except (TimeoutError, BlockingIOError):
            raise LoadPendingError("Not every worker has carried this out yet; look again in a moment.") from None
