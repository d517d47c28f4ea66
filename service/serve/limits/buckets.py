"""Buckets that one request takes from together: from all or from none, in one call of machine code."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from service.serve.limits.bucket_kernels import (
    COST,
    MOVED,
    PLAN_CELLS,
    ROOM,
    TAG,
    TAG_ADDRESS,
    TIME_ADDRESS,
    give,
    keep,
    take,
)
from service.serve.limits.bucket_table import BucketTable

SECOND: Final = 1_000_000_000
# The largest cost, 36 years: times stay far from the end of 64 bits.
COST_MAX: Final = 1 << 60


class Buckets:
    """Some buckets of the table. Use them on the event loop's thread.

    Args:
        table: The table.
        tags: The tag of each bucket.

    Attributes:
        refused: After a refusal, the number of the bucket that refused.
        place: The place of the first bucket in the table.
    """

    def __init__(self, table: BucketTable, tags: Sequence[int]) -> None:
        self._table: Final = table
        self._tags: Final = tags
        self._cells: Final = np.zeros(1 + len(tags) * PLAN_CELLS, np.int64)
        self._address: Final = int(self._cells.ctypes.data)
        self._count: Final = len(tags)
        self.place = 0
        for number in range(len(tags)):
            self._locate(number)

    @property
    def refused(self) -> int:
        """The number of the bucket that refused last, or whose entry has moved."""
        return int(self._cells[0])

    def set_cost(self, number: int, cost: float, room: float) -> None:
        """Set the cost of the next `take` for one bucket.

        Args:
            number: The number of the bucket.
            cost: The time in which the bucket refills what is taken, in seconds.
            room: The longest time, in seconds, that the bucket may still need to be full; else it refuses.
        """
        start = 1 + number * PLAN_CELLS
        self._cells[start + COST] = min(max(round(cost * SECOND), 1), COST_MAX)
        self._cells[start + ROOM] = round(room * SECOND)

    def take(self) -> int:
        """Take from all buckets; return 0, or the nanoseconds until `refused` has enough.

        Raises:
            OverloadedError: The table is full.
        """
        while (wait := take(self._address, self._count, time.monotonic_ns())) == MOVED:
            self._locate(self.refused)
        return int(wait)

    def give(self) -> None:
        """Give back what was taken."""
        give(self._address, self._count)

    def keep(self, seconds: float) -> None:
        """Keep the entry of a single bucket for a time, whatever is taken.

        Raises:
            OverloadedError: The table is full.
        """
        while keep(self._address, time.monotonic_ns() + round(seconds * SECOND)) == MOVED:
            self._locate(0)

    def _locate(self, number: int) -> None:
        """Find the entry of a bucket again."""
        entry = self._table.find(self._tags[number])
        start = 1 + number * PLAN_CELLS
        self._cells[start + TIME_ADDRESS] = entry.time_address
        self._cells[start + TAG_ADDRESS] = entry.tag_address
        self._cells[start + TAG] = self._tags[number]
        if number == 0:
            self.place = entry.place
