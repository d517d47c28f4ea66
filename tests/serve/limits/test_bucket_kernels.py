"""Kernels of buckets: each equals a plain model, and nothing is lost when processes take at one moment."""

import os
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.shared_memory import SharedMemory
from service.serve.limits.bucket_kernels import (
    CLAIMED,
    COST,
    MOVED,
    PLAN_CELLS,
    ROOM,
    TAG,
    TAG_ADDRESS,
    TIME_ADDRESS,
    claim,
    give,
    keep,
    take,
)
from service.serve.limits.bucket_table import BucketTable

BUCKETS: Final = 3
small = st.integers(0, 20)


class Rig:
    """Some buckets at addresses of their own, and a plan of all of them.

    Attributes:
        times: (BUCKETS,) the time of each.
        tags: (BUCKETS,) the tag of each, 1 and up.
        plan: The plan.
    """

    def __init__(self, times: np.ndarray, tags: np.ndarray) -> None:
        self.times, self.tags = times, tags
        self.plan = np.zeros(1 + BUCKETS * PLAN_CELLS, np.int64)
        self.address = self.plan.ctypes.data
        for number in range(BUCKETS):
            tags[number] = number + 1
            self.cells(number)[[TIME_ADDRESS, TAG_ADDRESS, TAG]] = [*self.addresses(number), number + 1]

    def addresses(self, number: int) -> tuple[int, int]:
        return self.times.ctypes.data + 8 * number, self.tags.ctypes.data + 8 * number

    def cells(self, number: int) -> np.ndarray:
        start = 1 + number * PLAN_CELLS
        return self.plan[start : start + PLAN_CELLS]

    def set(self, number: int, cost: int, room: int) -> None:
        self.cells(number)[[COST, ROOM]] = [cost, room]


@pytest.fixture
def rig() -> Rig:
    return Rig(np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64))


Step = tuple[int, list[tuple[int, int]], bool]
steps = st.lists(st.tuples(small, st.lists(st.tuples(small, small), min_size=1, max_size=BUCKETS), st.booleans()))


@given(steps)
def test_takes_equal_those_of_a_plain_model(history: list[Step]) -> None:
    """A request takes from all its buckets or from none; what is given back can be taken again."""
    rig = Rig(np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64))
    model, now = [0] * BUCKETS, 0
    for seconds, parts, gives in history:
        now += seconds
        for number, (cost, room) in enumerate(parts):
            rig.set(number, cost, room)
        waits = [model[number] - now - room for number, (_, room) in enumerate(parts)]
        refused = [number for number, wait in enumerate(waits) if wait > 0]
        wait = take(rig.address, len(parts), now)
        if refused:
            assert (wait, rig.plan[0]) == (waits[refused[0]], refused[0])
            # What the buckets before it gave back leaves them at least as full as they were.
            model[: refused[0]] = [max(model[number], now) for number in range(refused[0])]
        else:
            assert wait == 0
            model[: len(parts)] = [max(model[number], now) + cost for number, (cost, _) in enumerate(parts)]
            if gives:
                give(rig.address, len(parts))
                model[: len(parts)] = [model[number] - cost for number, (cost, _) in enumerate(parts)]
        assert rig.times.tolist() == model


def test_an_entry_of_another_bucket_is_left_alone(rig: Rig) -> None:
    """A process whose remembered entry was claimed for another bucket takes nothing from it, and gives nothing."""
    for number in range(BUCKETS):
        rig.set(number, 5, 100)
    assert take(rig.address, BUCKETS, 50) == 0
    assert claim(*rig.addresses(1), 77, 55) == 1
    before = rig.times.tolist()
    assert before[1] == 56
    assert take(rig.address, BUCKETS, 60) == MOVED
    assert rig.plan[0] == 1
    give(rig.address + 8 * PLAN_CELLS, 1)
    assert [rig.times[1], rig.times[2], *rig.tags] == [56, before[2], 1, 77, 3]
    rig.plan[1:] = np.roll(rig.plan[1:], -PLAN_CELLS)
    assert keep(rig.address, 1000) == MOVED
    rig.times[2] = CLAIMED
    rig.plan[1:] = np.roll(rig.plan[1:], -PLAN_CELLS)
    assert take(rig.address, 1, 60) == keep(rig.address, 1000) == MOVED


def test_only_a_full_bucket_is_claimed(rig: Rig) -> None:
    """An entry is claimed once its time has passed, or if a crash left it in the middle of a claim."""
    rig.times[:] = [10, 11, CLAIMED]
    assert [claim(*rig.addresses(number), 9, 10) for number in range(BUCKETS)] == [1, 0, 1]
    assert rig.times.tolist() == [11, 11, 11]
    assert rig.tags.tolist() == [9, 2, 9]


def test_an_entry_is_kept(rig: Rig) -> None:
    """Keeping an entry moves its time forward, never back."""
    assert keep(rig.address, 500) == 0
    assert keep(rig.address, 400) == 0
    assert rig.times.tolist() == [500, 0, 0]


def test_processes_take_exactly_what_there_is() -> None:
    """Four processes that take and give at one moment get together what one of them would get."""
    processes, amount = 4, 40_000
    table = BucketTable(SharedMemory(processes, 1))
    rig = Rig(table.times, table.tags)
    rig.set(0, 10, 10 * (amount - 1))
    rig.set(1, 1, 0)
    rig.times[1] = 5  # the second bucket is in debt, so that what the first one gave is given back
    pipes = [os.pipe() for _ in range(processes)]
    start = os.pipe()
    children = []
    for _, end in pipes:
        child = os.fork()
        if child == 0:
            os.read(start[0], 1)
            taken = tries = 0
            while True:
                tries += 1
                if tries % 3 == 0:
                    take(rig.address, 2, 0)
                elif take(rig.address, 1, 0) == 0:
                    taken += 1
                else:
                    break
            os.write(end, b"%d" % taken)
            os._exit(0)
        children.append(child)
    os.write(start[1], b"x" * processes)
    results = [int(os.read(reader, 20)) for reader, _ in pipes]
    for child in children:
        os.waitpid(child, 0)
    for pair in (*pipes, start):
        for end in pair:
            os.close(end)
    assert rig.times[0] == 10 * sum(results)
    assert sum(results) == amount
