"""The list of unloaded models: its form and changes; readers always see a whole list, and the newest one."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import ACKNOWLEDGED, PAGE_BYTES, PID, STATUSES, SharedMemory
from service.process.unload_list import (
    LOADS_MAX,
    UnloadList,
    all_workers_applied,
    publish_unload_list,
    read_unload_list,
)
from tests.support.processes import SECONDS, run_fake

NUMBERS = st.integers(0, 1 << 62)
NAMES = st.text("ab-é", min_size=1, max_size=3)
FOREIGN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_the_form_of_the_list() -> None:
    """Names are sorted, and loads have the number of their change."""
    changed = UnloadList().load("iris").unload("digits").load("iris", 90).unload("claims", 5)
    text = b'{"number":91,"unloaded":["claims","digits"],"loads":[[1,"iris"],[90,"iris"]]}'
    assert changed.dump() == text
    assert UnloadList.parse(text) == changed == (91, {"claims", "digits"}, ((1, "iris"), (90, "iris")))
    assert UnloadList.parse(b"") == UnloadList()
    assert UnloadList.parse(UnloadList().dump()) == UnloadList()


@given(st.lists(st.tuples(st.booleans(), NAMES, NUMBERS), max_size=50))
def test_changes_are_numbered_upwards(changes: list[tuple[bool, str, int]]) -> None:
    """Whatever the clocks say; the last request for a model counts, and the newest loads are remembered."""
    found, loads, last = UnloadList(), list[tuple[int, str]](), dict[str, bool]()
    for is_load, name, lowest in changes:
        after = found.load(name, lowest) if is_load else found.unload(name, lowest)
        assert after.number == max(found.number + 1, lowest)
        found = UnloadList.parse(after.dump())
        assert found == after
        last[name] = is_load
        if is_load:
            loads.append((found.number, name))
    assert found.unloaded == {name for name, is_load in last.items() if not is_load}
    assert list(found.loads) == loads[-LOADS_MAX:]


def test_only_loads_that_are_new_are_heeded() -> None:
    """A list that may lack loads that came since the last one asks for every model."""
    first = UnloadList().load("a").load("b")
    assert [name for name in "abc" if first.loads_after(())(name)] == ["a", "b"]
    second = first.unload("c").load("c")
    assert [name for name in "abc" if second.loads_after(first.loads)(name)] == ["c"]
    assert not any(map(second.loads_after(second.loads), "abc"))
    third = second
    for _ in range(LOADS_MAX - 1):
        third = third.load("d")
    assert [name for name in "abcd" if third.loads_after(second.loads)(name)] == ["d"]
    assert all(map(third.load("d").loads_after(second.loads), "abcd"))


def test_loads_after_a_lost_change_are_heeded() -> None:
    """A failover has lost a load that was heeded; the next one has another number because time has passed."""
    before = UnloadList().load("a", 1000)
    lost = before.load("a", 2000)
    assert [name for name in "ab" if before.loads_after(lost.loads)(name)] == []
    assert before.load("a", 3000).loads_after(lost.loads)("a")


@given(
    st.binary(max_size=40)
    | FOREIGN.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"number": NUMBERS | FOREIGN, "unloaded": st.lists(NAMES) | FOREIGN, "loads": st.lists(FOREIGN) | FOREIGN}
    ).map(lambda value: json.dumps(value).encode())
)
def test_foreign_texts_are_refused(text: bytes) -> None:
    """Whatever a text has, it is parsed or refused, and the error repeats nothing of it."""
    with suppress(ValueError):
        found = UnloadList.parse(text)
        assert UnloadList.parse(found.dump()) == found
        assert not any(map(found.loads_after(found.loads), found.unloaded))
        return
    with pytest.raises(ValueError, match=r"^the list of unloaded models (has another form|may have 65536 bytes)$"):
        UnloadList.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[]", b"{}", b"null", b"\xff", b'{"number":1}', b'{"number":1,"unloaded":[]}',
        b'{"number":true,"unloaded":[],"loads":[]}', b'{"number":-1,"unloaded":[],"loads":[]}',
        b'{"number":1,"unloaded":[2],"loads":[]}', b'{"number":1,"unloaded":[[]],"loads":[]}',
        b'{"number":1,"unloaded":[],"loads":[[1]]}', b'{"number":1,"unloaded":[],"loads":["1a"]}',
        b'{"number":1,"unloaded":[],"loads":[[1,2]]}', b'{"number":1,"unloaded":[],"loads":[[-1,"a"]]}',
        b'{"number":1,"unloaded":[],"loads":[]}'.ljust(PAGE_BYTES + 1),
    ],
)  # fmt: skip
def test_a_damaged_list_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the list of unloaded models "):
        UnloadList.parse(text)


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
