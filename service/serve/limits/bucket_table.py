"""The table of buckets that all workers share: find the entry of a bucket, or claim an unused one.

An entry is found by a 64-bit tag of the actor, the limit and the model. A process searches the whole table under the
lock, and remembers where the entry is. That is rare: once for each bucket and process, and again if the entry was
claimed for another bucket meanwhile. An entry can be claimed when its bucket is full and no worker has requests in
flight there, so a bucket is never emptied or filled by a search.
"""

import time
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np

from service.errors import OverloadedError
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import BUCKET_TAGS, BUCKET_TIMES, BUCKET_WORKERS, BUCKETS_MAX, SharedMemory
from service.serve.limits.bucket_kernels import CLAIMED, claim

ITEM_BYTES: Final = 8


class Entry(NamedTuple):
    """The place of a bucket.

    Attributes:
        place: Its number in each column.
        time_address: The address of its time.
        tag_address: The address of its tag.
    """

    place: int
    time_address: int
    tag_address: int


class BucketTable:
    """The buckets as one process sees them; used in one thread.

    Args:
        memory: The memory that the processes share.

    Attributes:
        tags: (BUCKETS_MAX,) the tag of each entry; 0 if it was never used.
        times: (BUCKETS_MAX,) when each bucket is full again, in nanoseconds of the monotonic clock.
        in_flight: (workers, BUCKETS_MAX) the requests in flight of each worker.
    """

    def __init__(self, memory: SharedMemory) -> None:
        columns = np.frombuffer(memory.buckets, np.int64).reshape(-1, BUCKETS_MAX)
        self.tags: Final = columns[BUCKET_TAGS]
        self.times: Final = columns[BUCKET_TIMES]
        self.in_flight: Final = columns[BUCKET_WORKERS:]
        self._lock: Final = memory.bucket_lock
        self._lines: Final = LineLimit()
        self._tags_address: Final = int(self.tags.ctypes.data)
        self._times_address: Final = int(self.times.ctypes.data)

    def find(self, tag: int) -> Entry:
        """Return the entry of a bucket, which is full if it had none.

        Raises:
            OverloadedError: Every entry is in use.
        """
        with self._lock.hold():
            found = np.flatnonzero(self.tags == tag)
            index = int(found[0]) if len(found) else self._claim(tag)
        if index < 0:
            if self._lines.is_due("full"):
                logger.event("limits_full", buckets=BUCKETS_MAX)
            raise OverloadedError("The server counts too many limits at one time; try again in a moment.")
        return self._entry(index)

    def count_used(self) -> int:
        """Return the number of entries that are in use: their buckets are not full, or have requests in flight."""
        return int(((self.times > time.monotonic_ns()) | self.in_flight.any(axis=0)).sum())

    def _claim(self, tag: int) -> int:
        """Claim the entry that was full first, and return its index; -1 if every entry is in use."""
        now = time.monotonic_ns()
        # A crash during a claim leaves its entry free.
        free = ((self.times <= now) | (self.times == CLAIMED)) & ~self.in_flight.any(axis=0)
        order = np.where(free, np.where(self.times == CLAIMED, 0, self.times), CLAIMED)
        while order[index := int(order.argmin())] != CLAIMED:
            entry = self._entry(index)
            if claim(entry.time_address, entry.tag_address, tag, now):
                return index
            order[index] = CLAIMED  # another process was faster
        return -1

    def _entry(self, index: int) -> Entry:
        offset = index * ITEM_BYTES
        return Entry(index, self._times_address + offset, self._tags_address + offset)


def tag_of(actor: str, limit: str, model: str = "") -> int:
    """Return the tag of a bucket: 63 bits that no two buckets share in practice, and never 0."""
    digest = blake2b(f"{actor}\0{limit}\0{model}".encode(), digest_size=ITEM_BYTES).digest()
    return (int.from_bytes(digest) >> 1) | 1
