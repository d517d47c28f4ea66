"""Threads behind the event loop: they give way to it.

Where a worker has one core, or more threads than cores, the scheduler would let a thread finish its slice of
milliseconds while a request waits. With a higher niceness than the loop's it lets the loop go first (measured by hand:
docs/benchmarks/shortfalls.md, figure L8). The niceness is no higher because a thread that waits long for a core may
hold the interpreter's lock.
"""

import os
import threading
from typing import Final

NICE: Final = 10


def give_way() -> None:
    """Let the thread that calls this give way to the event loop's."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
