"""The list of unloaded models and of load requests: the parent publishes it to all workers through shared memory.

serve/models/load_unload.py has its form. There are two pages.

The page GENERATION % 2 is current. The other page is written before GENERATION grows, so readers never see half a list.
"""

from service.process.shared_memory import (
    ACKNOWLEDGED,
    GENERATION,
    PAGE_BYTES,
    PAGE_LENGTHS,
    PAGES_START,
    PID,
    SharedMemory,
)


def publish_unload_list(memory: SharedMemory, text: bytes) -> int:
    """Make a list the current one; only the parent may call this.

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
