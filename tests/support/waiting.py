"""Waiting for a condition or for bytes, with a time limit."""

import select
import threading
from collections.abc import Callable
from typing import Protocol

SECONDS = 5.0


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail after some seconds."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("the condition did not hold in time")


class HasDescriptor(Protocol):
    """An open file or socket."""

    def fileno(self) -> int:
        """Return its descriptor."""


def is_readable(end: HasDescriptor | int, seconds: float = 0.0) -> bool:
    """Return whether something can be read within some seconds; unlike `select`, it takes any descriptor."""
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
