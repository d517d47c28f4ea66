"""Threads of lower priority than the event loop.

If a worker has one core, or more threads than cores, the scheduler would let a thread finish its slice of milliseconds
while a request waits. With a higher niceness than the event loop's, the thread yields to it (measured by hand; see
docs/benchmarks/shortfalls.md, figure L8). The niceness is no higher, because a thread that waits long for a core may
hold the interpreter lock.
"""

import os
import threading
from typing import Final

NICE: Final = 10


def lower_thread_priority() -> None:
    """Lower the priority of the calling thread below the event loop's."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
