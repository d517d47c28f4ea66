"""Memory that the processes of one service share: 64-bit cells of one anonymous mapping, made before the first fork.

    head    DRAIN_END (nanoseconds of the monotonic clock; 0: the service goes on), GENERATION, FAULTS, KEYED (1: calls
            need a key), KEYS_UNKNOWN (1: a shared log was not asked yet whether there are keys), then the lengths of
            the two pages
    pages   two copies of the list of unloaded models; unload_list.py reads and writes them
    slot 0  PID, RESTARTS, READY, ACKNOWLEDGED, HANDLED, CONNECTIONS, IN_FLIGHT, BODY_BYTES, COMMITS,
            COMMIT_NANOSECONDS, QUEUE_NANOSECONDS, SHEDDING, SEQ_WAITERS, BUSY_NANOSECONDS, then one cell for each HTTP
            status, then one for each error code, then the counter rows and FIELD_ROWS rows for fields, both of
            counter_rows.py
    slot 1  ...
    last    the learner's slot: PID, RESTARTS, LOG_FORKS, CAUGHT_UP (1: what a shared log had at the start is
            published), DIVERGENCES, DIVERGED (streams whose state differs from that of other replicas now), LOG_LOST
            (1: the last look at the log failed), LEARNERS (replicas of a shared log that fold), LOG_DOUBTS (how often
            the log lacked an event that was learned), then the cells of learn/failure_tracker.py
    table   the buckets of limits (serve/limits/): a column of tags, one of times, and one for each worker with the
            requests that it has in flight; BUCKETS_MAX cells each

Every cell but FAULTS, KEYED, tags and times has one writer. The parent writes the head, the pages, PID (0: no process),
RESTARTS and HANDLED, and clears READY, ACKNOWLEDGED, SEQ_WAITERS and the column of a worker after a crash. With a
shared log GENERATION, the pages with their lengths, and KEYS_UNKNOWN are the learner's once it runs. Each worker writes
the rest of its slot, and its column. Readers need no lock, because an aligned 64-bit cell is read and written whole. A
killed worker leaves its slot as it was and its successor counts on, so no count is lost while the parent runs.
"""

import mmap
from typing import Final

from service.process.process_lock import ProcessLock

DRAIN_END, GENERATION, FAULTS, KEYED, KEYS_UNKNOWN, PAGE_LENGTHS, HEAD_CELLS = 0, 1, 2, 3, 4, 5, 7
# 256 unloaded models with names of 64 characters fit four times.
PAGE_BYTES: Final = 1 << 16
PAGES_START: Final = HEAD_CELLS * 8
PID, RESTARTS, READY, ACKNOWLEDGED, HANDLED, CONNECTIONS, IN_FLIGHT, BODY_BYTES, COMMITS = range(9)
COMMIT_NANOSECONDS, QUEUE_NANOSECONDS, SHEDDING, SEQ_WAITERS, BUSY_NANOSECONDS, STATUSES = range(9, 15)
# Of the learner's slot, after RESTARTS.
LOG_FORKS, CAUGHT_UP, DIVERGENCES, DIVERGED, LOG_LOST, LEARNERS, LOG_DOUBTS, LEARNER_CELLS = range(2, 10)
STATUS_MAX: Final = 600
REFUSALS: Final = STATUSES + STATUS_MAX
# More error codes than there are.
CODES_MAX: Final = 128
ROWS_START: Final = REFUSALS + CODES_MAX
# Cells of one counter row: the name, then the counters. A name is 64 bytes, a slash and a version of 18 digits.
KEY_CELLS: Final = 12
COUNTERS: Final = 88
ROW_CELLS: Final = KEY_CELLS + COUNTERS
# Further counter rows of each slot, with the missing and unknown values of 44 fields each.
FIELD_ROWS: Final = 512
# Buckets of limits that are not full at one time: 5,000 keys with two limits a second, or with feedback for two models.
BUCKETS_MAX: Final = 1 << 14
# The columns of the table of buckets before those of the workers.
BUCKET_TAGS, BUCKET_TIMES, BUCKET_WORKERS = range(3)


class SharedCell:
    """One cell of the head, as a number that every process sees. Several may write it; each writes it whole."""

    def __init__(self, cells: memoryview, index: int) -> None:
        self._cells = cells
        self._index = index

    def get(self) -> int:
        """Return the current value."""
        value: int = self._cells[self._index]
        return value

    def set(self, value: int) -> None:
        """Replace the value."""
        self._cells[self._index] = value


class SharedMemory:
    """The shared cells of a service with some workers and a learner.

    Args:
        workers: Number of workers. Lower slot numbers are the workers'; this one is the learner's.
        rows: Counter rows of each slot; the last row counts all names that do not fit, as "other".

    Attributes:
        raw_bytes: The whole mapping as bytes.
        cells: The same memory as signed 64-bit integers.
        slots: Number of slots.
        bucket_lock: Held by the process that searches or changes the tags of buckets.
    """

    def __init__(self, workers: int, rows: int) -> None:
        self.workers: Final = workers
        self.slots: Final = workers + 1
        self.rows: Final = rows
        self._slot_cells: Final = ROWS_START + (rows + FIELD_ROWS) * ROW_CELLS
        self._slots_start: Final = HEAD_CELLS + 2 * PAGE_BYTES // 8
        self._buckets_start: Final = self._slots_start + self.slots * self._slot_cells
        self.raw_bytes: Final = mmap.mmap(-1, 8 * (self._buckets_start + (BUCKET_WORKERS + workers) * BUCKETS_MAX))
        self.cells: Final = memoryview(self.raw_bytes).cast("B").cast("q")
        self.bucket_lock: Final = ProcessLock()

    @property
    def disk_faults(self) -> SharedCell:
        """The number of disk faults in the processes that share the log."""
        return SharedCell(self.cells, FAULTS)

    @property
    def keyed(self) -> SharedCell:
        """Whether calls need a key, 1 from the first worker on that has read keys."""
        return SharedCell(self.cells, KEYED)

    @property
    def keys_unknown(self) -> SharedCell:
        """Whether it is unknown if there are keys, 1 until a shared log that the service has keys of has said so."""
        return SharedCell(self.cells, KEYS_UNKNOWN)

    @property
    def draining(self) -> bool:
        """Whether the service is about to stop."""
        return bool(self.cells[DRAIN_END])

    @property
    def drain_end(self) -> float | None:
        """The end of the drain, in seconds of the monotonic clock, or None if the service goes on."""
        return self.cells[DRAIN_END] / 1e9 or None

    def drain_until(self, seconds: float) -> None:
        """Begin the drain; only the parent may call this."""
        self.cells[DRAIN_END] = int(seconds * 1e9)

    @property
    def generation(self) -> int:
        """The number of the current list of unloaded models."""
        return self.cells[GENERATION]

    @property
    def log_forks(self) -> int:
        """How often a stream of the log had other events than the learner had folded."""
        return self.learner_cells[LOG_FORKS]

    @property
    def is_caught_up(self) -> bool:
        """Whether all is published that a shared log had when the service started."""
        return bool(self.learner_cells[CAUGHT_UP])

    @property
    def divergences(self) -> int:
        """How often the state of a stream was another one than that of other replicas."""
        return self.learner_cells[DIVERGENCES]

    @property
    def has_diverged(self) -> bool:
        """Whether the state of a stream is another one than that of other replicas, and is not folded again yet."""
        return self.learner_cells[DIVERGED] > 0

    @property
    def is_log_lost(self) -> bool:
        """Whether the learner's last look at the log failed."""
        return bool(self.learner_cells[LOG_LOST])

    @property
    def learners(self) -> int:
        """How many replicas of a shared log fold events, this one included."""
        return self.learner_cells[LEARNERS]

    @property
    def learner_cells(self) -> memoryview:
        """The cells of the learner's slot."""
        start = self.slot(self.workers)
        return self.cells[start : start + self._slot_cells]

    def slot(self, number: int) -> int:
        """Return the index of the first cell of a slot."""
        return self._slots_start + number * self._slot_cells

    @property
    def buckets(self) -> memoryview:
        """The columns of the table of buckets, one after another."""
        return self.cells[self._buckets_start :]

    def forget_in_flight(self, worker: int) -> None:
        """Set the requests in flight of a worker that has exited to 0."""
        start = self._buckets_start + (BUCKET_WORKERS + worker) * BUCKETS_MAX
        self.cells[start : start + BUCKETS_MAX] = memoryview(bytes(8 * BUCKETS_MAX)).cast("q")

    def sum_over_workers(self, cell: int) -> int:
        """Sum one cell of the slots over all workers."""
        return sum(self.cells[self.slot(slot) + cell] for slot in range(self.workers))
