"""The list of unloaded models and of load requests, and how one process gives it to all workers.

The list is a JSON object. Each change has a number, which is higher than those before:

    number    that of the last change; 0 if nothing was changed yet
    unloaded  the names of the models that are unloaded, sorted
    loads     the newest requests to load a model, each as [number, name], oldest first

A worker applies a list by serving all models but the unloaded ones, and by reading the files of those again whose load
it has not heeded yet.

In shared memory there are two pages. The page GENERATION % 2 is current. The other page is written before GENERATION
grows, so readers never see half a list, also if the writer is killed. Only one process publishes at a time: the parent;
with a shared log the parent before the first fork, and then the learner (learn/shared_unload_list.py).
"""

from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, Self

import orjson

from service.process.shared_memory import (
    ACKNOWLEDGED,
    GENERATION,
    PAGE_BYTES,
    PAGE_LENGTHS,
    PAGES_START,
    PID,
    SharedMemory,
)

# Load requests that the list remembers. A worker that missed more of them reads every model again.
LOADS_MAX: Final = 32
# Room for the numbers and loads in a page: a name of 64 characters, a number of 20 digits, brackets, quotes and commas.
LOADS_BYTES: Final = (LOADS_MAX + 1) * 96

Load = tuple[int, str]


class UnloadList(NamedTuple):
    """Which models are unloaded, and which loads were requested.

    Attributes:
        number: The number of the last change.
        unloaded: The names of the unloaded models.
        loads: The number and the model of the newest load requests, oldest first; at most LOADS_MAX.
    """

    number: int = 0
    unloaded: frozenset[str] = frozenset()
    loads: tuple[Load, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return the list of a text; an empty one has no models.

        Raises:
            ValueError: The text has another form, or is longer than a page; the message repeats nothing of it.
        """
        if not text:
            return cls()
        if len(text) > PAGE_BYTES:
            raise ValueError(f"the list of unloaded models may have {PAGE_BYTES} bytes")
        try:
            members: dict[str, Any] = orjson.loads(text)
            loads = tuple((number, name) for number, name in members["loads"])
            found = cls(members["number"], frozenset(members["unloaded"]), loads)
        except (KeyError, TypeError, ValueError):  # orjson's error is a ValueError, which repeats a part of the text
            raise ValueError("the list of unloaded models has another form") from None
        numbers = (found.number, *(number for number, _ in loads))
        names = (*found.unloaded, *(name for _, name in loads))
        if {*map(type, numbers)} != {int} or {*map(type, names)} - {str} or min(numbers) < 0:
            raise ValueError("the list of unloaded models has another form")
        return found

    def dump(self) -> bytes:
        """Return the text of the list; it fits a page."""
        return orjson.dumps({"number": self.number, "unloaded": sorted(self.unloaded), "loads": self.loads})

    def load(self, name: str, lowest: int = 0) -> Self:
        """Return the list after a request to load a model; its number is `lowest` at least."""
        number = max(self.number + 1, lowest)
        return self._replace(
            number=number, unloaded=self.unloaded - {name}, loads=(*self.loads, (number, name))[-LOADS_MAX:]
        )

    def unload(self, name: str, lowest: int = 0) -> Self:
        """Return the list after a request to unload a model, unless it would have more names than a page has room for.

        Its number is `lowest` at least.
        """
        names = self.unloaded | {name}
        fits = len(orjson.dumps(sorted(names))) + LOADS_BYTES <= PAGE_BYTES
        return self._replace(number=max(self.number + 1, lowest), unloaded=names if fits else self.unloaded)

    def loads_after(self, heeded: Collection[Load]) -> Callable[[str], bool]:
        """Return a function that says whether a load of a model is not among those of an earlier list."""
        if len(self.loads) >= LOADS_MAX and not any(load in heeded for load in self.loads):
            return lambda _name: True  # there may have been more
        return {name for number, name in self.loads if (number, name) not in heeded}.__contains__


def publish_unload_list(memory: SharedMemory, text: bytes) -> int:
    """Make a list the current one.

    Returns:
        The generation of the list.

    Raises:
        ValueError: The text is longer than a page.
    """
    if len(text) > PAGE_BYTES:
        raise ValueError(f"the list of unloaded models may have {PAGE_BYTES} bytes")
    generation = memory.generation + 1
    start = PAGES_START + (generation % 2) * PAGE_BYTES
    memory.raw_bytes[start : start + len(text)] = text
    memory.cells[PAGE_LENGTHS + generation % 2] = len(text)
    memory.cells[GENERATION] = generation
    return generation


def read_unload_list(memory: SharedMemory) -> tuple[int, bytes]:
    """Return the generation and the text of the current list."""
    while True:
        generation = memory.generation
        start = PAGES_START + (generation % 2) * PAGE_BYTES
        text = memory.raw_bytes[start : start + memory.cells[PAGE_LENGTHS + generation % 2]]
        # The page may be written again once a newer list is current, and then the copy may be a mixture.
        if memory.generation == generation:
            return generation, text


def all_workers_applied(memory: SharedMemory, generation: int) -> bool:
    """Return whether every running worker has applied the list of that generation.

    A worker that is starting counts too: it applies the list before it answers its first request.
    """
    starts = map(memory.slot, range(memory.workers))
    return all(memory.cells[start + ACKNOWLEDGED] >= generation for start in starts if memory.cells[start + PID])
