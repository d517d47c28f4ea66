"""A wakeup wakes a waiting process and never blocks the one that notifies."""

import subprocess
import sys

from service.process.wakeup import Wakeup
from tests.support.waiting import is_readable


def is_notified(wakeup: Wakeup) -> bool:
    """Return whether a waiting process would wake now."""
    return is_readable(wakeup.fd)


def test_notifications_are_merged() -> None:
    """One clear removes any number of notifications."""
    wakeup = Wakeup()
    assert not is_notified(wakeup)
    for _ in range(5000):
        wakeup.notify()
    assert is_notified(wakeup)
    wakeup.clear()
    assert not is_notified(wakeup)
    wakeup.clear()


def test_a_full_pipe_does_not_block() -> None:
    """A process that never looks does not block the others."""
    wakeup = Wakeup()
    for _ in range(100_000):
        wakeup.notify()
    wakeup.clear()
    assert not is_notified(wakeup)


def test_another_process_notifies() -> None:
    """Processes that are forked later share the pipe."""
    wakeup = Wakeup()
    # The write end, because another program has no Wakeup.
    program = f"import os; os.write({wakeup._write_fd}, b'0')"
    subprocess.run([sys.executable, "-c", program], pass_fds=[wakeup._write_fd], check=True)
    assert is_notified(wakeup)
