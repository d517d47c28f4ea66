"""A bell wakes a process that waits, however often it was rung, and never blocks who rings."""

import select
import subprocess
import sys

from service.process.wakeup import Wakeup


def rings(bell: Wakeup) -> bool:
    """Whether a listener would wake now."""
    return bool(select.select([bell.fd], [], [], 0)[0])


def test_a_ring_wakes_until_it_is_taken() -> None:
    """However many rings there were, one look takes them all."""
    bell = Wakeup()
    assert not rings(bell)
    for _ in range(5000):
        bell.notify()
    assert rings(bell)
    bell.clear()
    assert not rings(bell)
    bell.clear()


def test_a_full_bell_does_not_block() -> None:
    """A listener that never looks stops nobody."""
    bell = Wakeup()
    for _ in range(100_000):
        bell.notify()
    bell.clear()
    assert not rings(bell)


def test_another_process_rings() -> None:
    """The pipe is shared by all that were forked after it was made."""
    bell = Wakeup()
    program = f"import os; os.write({bell._write_fd}, b'0')"
    subprocess.run([sys.executable, "-c", program], pass_fds=[bell._write_fd], check=True)
    assert rings(bell)
