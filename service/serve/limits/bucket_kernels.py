"""Kernels of buckets: take from several at once, give back, and claim an entry of the table for another bucket.

A bucket is one number, the time at which it is full again (generic cell rate algorithm), in nanoseconds of the
monotonic clock. Taking moves that time by the cost of what is taken. The bucket is in debt while the time is ahead of
now by more than its room; then nothing can be taken.

    entry   a tag, which names the bucket, and the time
    plan    the place where the bucket that refused is written, then PLAN_CELLS cells for each bucket

A time is changed by compare-and-swap, so whichever processes take at one moment, each of them is counted. An entry
whose time has passed is as good as new, and another bucket may claim it: the time becomes CLAIMED first, then the tag
changes. A process compares the tag after it has read the time. So it never takes from another bucket: the swap fails,
because the time of a claimed entry is later than any before.
"""

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from service.compiler import inlined, kernel
from service.softmax.kernels.single import numbers_at

# Cells of a bucket in a plan: the addresses of its time and its tag, the tag, what is taken, and the room, all but the
# addresses and the tag in nanoseconds.
TIME_ADDRESS, TAG_ADDRESS, TAG, COST, ROOM, PLAN_CELLS = range(6)
# The time of an entry that is being claimed; no bucket has it.
CLAIMED = np.iinfo(np.int64).max
# Returned in place of a wait: the entry belongs to another bucket now.
MOVED = -1


def _pointer(builder, address):
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def _load(_context, address):
    """The number at an address, read whole."""

    def codegen(_context, builder, _signature, arguments):
        return builder.load_atomic(_pointer(builder, arguments[0]), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _store(_context, address, number):
    """Write the number at an address whole."""

    def codegen(context, builder, _signature, arguments):
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _swap(_context, address, old, new):
    """Replace the number at an address if it is still the old one; return whether it was."""

    def codegen(_context, builder, _signature, arguments):
        at = _pointer(builder, arguments[0])
        return builder.extract_value(builder.cmpxchg(at, arguments[1], arguments[2], "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@inlined
def _take_one(plan, start, now):
    """Take the cost of a bucket; return 0, or the nanoseconds until it can be taken, or MOVED."""
    time_address = plan[start + TIME_ADDRESS]
    while True:
        full = _load(time_address)
        if full == CLAIMED or _load(plan[start + TAG_ADDRESS]) != plan[start + TAG]:
            return MOVED
        wait = full - now - plan[start + ROOM]
        if wait > 0:
            return wait
        if _swap(time_address, full, max(full, now) + plan[start + COST]):
            return 0


@inlined
def _give_one(plan, start):
    """Give the cost of a bucket back, if its entry still belongs to it."""
    time_address = plan[start + TIME_ADDRESS]
    while True:
        full = _load(time_address)
        if full == CLAIMED or _load(plan[start + TAG_ADDRESS]) != plan[start + TAG]:
            return
        if _swap(time_address, full, full - plan[start + COST]):
            return


@kernel("int64(int64,int64,int64)", unlocked=False)
def take(address, buckets, now):
    """Plan (1 + buckets · PLAN_CELLS,) -> wait: take from all buckets or from none.

    Returns 0, or nanoseconds or MOVED of the bucket whose number is written to plan[0].
    """
    plan = carray(numbers_at(address, np.int64), 1 + buckets * PLAN_CELLS)
    for number in range(buckets):
        wait = _take_one(plan, 1 + number * PLAN_CELLS, now)
        if wait != 0:
            plan[0] = number
            for taken in range(number):
                _give_one(plan, 1 + taken * PLAN_CELLS)
            return wait
    return 0


@kernel("void(int64,int64)", unlocked=False)
def give(address, buckets):
    """Plan (1 + buckets · PLAN_CELLS,): give back what was taken from all buckets."""
    plan = carray(numbers_at(address, np.int64), 1 + buckets * PLAN_CELLS)
    for number in range(buckets):
        _give_one(plan, 1 + number * PLAN_CELLS)


@kernel("int64(int64,int64)", unlocked=False)
def keep(address, until):
    """Plan (1 + PLAN_CELLS,) -> 0 or MOVED: prevent a claim of the entry of one bucket before a time."""
    plan = carray(numbers_at(address, np.int64), 1 + PLAN_CELLS)
    time_address = plan[1 + TIME_ADDRESS]
    while True:
        full = _load(time_address)
        if full == CLAIMED or _load(plan[1 + TAG_ADDRESS]) != plan[1 + TAG]:
            return MOVED
        if full >= until or _swap(time_address, full, until):
            return 0


@kernel("int64(int64,int64,int64,int64)", unlocked=False)
def claim(time_address, tag_address, tag, now):
    """Entry -> 1 or 0: give the entry to another bucket, full, if its time has passed.

    Only the holder of the table's lock may call this. An entry that is CLAIMED then was left by a process that crashed.
    """
    full = _load(time_address)
    if full != CLAIMED and full > now:
        return 0
    if not _swap(time_address, full, CLAIMED):
        return 0
    _store(tag_address, tag)
    _store(time_address, now + 1)
    return 1
