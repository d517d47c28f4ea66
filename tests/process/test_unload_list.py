"""The list of unloaded models: readers always see a whole list, and the newest one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import ACKNOWLEDGED, PAGE_BYTES, PID, STATUSES, SharedMemory
from service.process.unload_list import all_workers_applied, publish_unload_list, read_unload_list
from tests.support.processes import SECONDS, run_fake


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_the_newest_list_is_read(texts: list[bytes]) -> None:
    """Each list has the next generation and is read whole, also after a longer one."""
    memory = SharedMemory(1, 1)
    assert read_unload_list(memory) == (0, b"")
    for generation, text in enumerate(texts, 1):
        assert publish_unload_list(memory, text) == generation
        assert read_unload_list(memory) == (generation, text)


def test_a_list_longer_than_a_page_is_rejected() -> None:
    """A list of exactly one page fits; a longer one raises and the one before stays current."""
    memory = SharedMemory(1, 1)
    publish_unload_list(memory, b"x" * PAGE_BYTES)
    publish_unload_list(memory, b"y" * PAGE_BYTES)
    with pytest.raises(ValueError, match="bytes"):
        publish_unload_list(memory, b"z" * (PAGE_BYTES + 1))
    assert read_unload_list(memory) == (2, b"y" * PAGE_BYTES)
    assert not any(memory.cells[memory.slot(0) : memory.slot(0) + STATUSES])


def test_a_list_is_applied_once_all_running_workers_say_so() -> None:
    """Empty slots are not waited for; a worker that has not served yet is."""
    memory = SharedMemory(3, 1)
    generation = publish_unload_list(memory, b"[]")
    assert all_workers_applied(memory, generation)
    for slot in (0, 1):
        memory.cells[memory.slot(slot) + PID] = 1000 + slot
    assert not all_workers_applied(memory, generation)
    for slot in (0, 1):
        assert not all_workers_applied(memory, generation)
        memory.cells[memory.slot(slot) + ACKNOWLEDGED] = generation
    assert all_workers_applied(memory, generation)


def test_lists_are_whole_in_another_process() -> None:
    """A process that reads while another publishes as fast as it can sees only whole lists."""
    with run_fake("race") as program:
        assert program.wait(SECONDS) == 0
