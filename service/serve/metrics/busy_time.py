"""How long the event loop's thread was busy: it worked, or was ready to and waited for a core.

A loop that has nothing to do sleeps in the kernel, so this is all its time but that sleep. Processor time alone is less
than that while other processes have the cores or the container's quota is used up, and would hide an overload.
"""

import os
import time
from pathlib import Path
from typing import Final

# Of the calling thread: nanoseconds on a core, nanoseconds ready without one, and the number of turns; see proc(5) and
# the kernel's sched-stats. All are 0 if the kernel does not count.
SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
# Longer than three numbers of 64 bits.
READ_BYTES: Final = 64


class BusyTime:
    """The busy time of the thread that makes this object; without the kernel's counts its processor time.

    Args:
        path: The kernel's counts of the calling thread.
    """

    def __init__(self, path: Path = SCHEDSTAT) -> None:
        self._fd: int | None
        try:
            # It stays open, so that a process without free descriptors measures too.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not Linux, or a sandbox without this file
            self._fd = None
        if not self._total():
            self.close()
        self._seen = self._total()

    def passed(self) -> int:
        """Return the busy nanoseconds since the last call."""
        total = self._total()
        passed, self._seen = total - self._seen, total
        return passed

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _total(self) -> int:
        if self._fd is None:
            return time.thread_time_ns()
        worked, waited, _ = os.pread(self._fd, READ_BYTES, 0).split()
        return int(worked) + int(waited)
