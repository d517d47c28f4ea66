"""The table of buckets: entries are found again, reused when their buckets are full, and bounded."""

import time

import pytest

from service.errors import OverloadedError
from service.process.shared_memory import BUCKETS_MAX, SharedMemory
from service.serve.limits.bucket_kernels import CLAIMED
from service.serve.limits.bucket_table import BucketTable, tag_of
from service.serve.limits.buckets import Buckets

FAR = 1 << 60


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory(2, 1)


def test_a_bucket_keeps_its_entry(memory: SharedMemory) -> None:
    """Both workers find a bucket in the entry that the first one has claimed."""
    one, other = BucketTable(memory), BucketTable(memory)
    entry = one.find(5)
    assert other.find(5) == one.find(5)
    assert one.find(5).place == entry.place
    assert other.find(6).place != entry.place


def test_entries_of_full_buckets_are_reused(memory: SharedMemory) -> None:
    """The bucket that was full for longest gives its entry to another one; those in debt or in use keep theirs."""
    table = BucketTable(memory)
    table.times[:] = FAR
    table.tags[:] = 99
    table.times[[3, 7, 8]] = [20, 10, 5]
    table.in_flight[1, 8] = 1
    assert table.find(5).place == 7
    assert table.find(6).place == 3
    table.times[[3, 7]] = FAR
    with pytest.raises(OverloadedError):
        table.find(1)
    table.in_flight[1, 8] = 0
    table.times[4] = CLAIMED  # left by a crash
    assert {table.find(1).place, table.find(2).place} == {4, 8}


def test_a_moved_bucket_is_found_again(memory: SharedMemory) -> None:
    """Buckets whose entries were claimed meanwhile are taken from at their new places."""
    table = BucketTable(memory)
    buckets = Buckets(table, [5, 6])
    for number in range(2):
        buckets.set_cost(number, 1000, 0)
    place = table.find(6).place
    table.tags[place] = 77
    table.times[place] = FAR
    assert buckets.take() == 0
    assert table.find(6).place != place
    assert (table.tags[place], table.times[place]) == (77, FAR)
    assert buckets.take() > 0
    assert buckets.refused == 0
    assert table.times[table.find(6).place] > time.monotonic_ns() + 900 * 10**9


def test_a_full_table_refuses_new_buckets_only(memory: SharedMemory) -> None:
    """While every entry is in use, buckets that have one work on, and others are refused."""
    table = BucketTable(memory)
    buckets = Buckets(table, [5])
    buckets.set_cost(0, 1e-9, 0)
    table.times[:] = table.times.clip(min=FAR // 2)
    assert table.count_used() == BUCKETS_MAX
    assert buckets.take() > 0
    with pytest.raises(OverloadedError):
        Buckets(table, [6])


def test_a_worker_that_exited_has_nothing_in_flight(memory: SharedMemory) -> None:
    """The requests in flight of one worker are forgotten; those of the others stay."""
    table = BucketTable(memory)
    table.in_flight[:] = 3
    memory.forget_in_flight(0)
    assert not table.in_flight[0].any()
    assert (table.in_flight[1] == 3).all()
    assert not table.tags.any()


def test_tags_differ_by_actor_limit_and_model() -> None:
    """Each actor, limit and model has a tag of its own, which is positive."""
    tags = [tag_of(actor, limit, model) for actor in "ab" for limit in "ab" for model in ("", "a", "b")]
    assert len(set(tags)) == len(tags)
    assert min(tags) > 0
