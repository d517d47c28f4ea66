"""With this folder on PYTHONPATH the clock of a process differs by CLOCK_OFFSET seconds, which may be negative.

`time.time` and `time.time_ns` are set so, before any other module is imported. A monotonic clock has no such offset.
"""

import os
import time

OFFSET = int(os.environ["CLOCK_OFFSET"])

true_time, true_time_ns = time.time, time.time_ns
time.time = lambda: true_time() + OFFSET
time.time_ns = lambda: true_time_ns() + OFFSET * 10**9
