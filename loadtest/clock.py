"""A clock of processor time, for work in this process that other work on the machine interrupts."""

import time


class Clock:
    """The seconds of processor time, and of elapsed time, in all its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = self.elapsed = 0.0

    def __enter__(self) -> None:
        self.seconds -= time.process_time()
        self.elapsed -= time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time()
        self.elapsed += time.perf_counter()
