"""Waiting for a condition, with a time limit."""

import threading
from collections.abc import Callable

SECONDS = 5.0


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail after some seconds."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("the condition did not hold in time")
