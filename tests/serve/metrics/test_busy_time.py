"""Busy time is what the kernel counts for the thread, or else its processor time."""

import time
from pathlib import Path

import pytest

from service.serve.metrics.busy_time import SCHEDSTAT, BusyTime

# The kernel brings its counts up to date at its ticks, of which the slowest are 10 ms apart.
TICK_NANOSECONDS = 10_000_000


def test_work_and_waits_for_a_core_are_added(tmp_path: Path) -> None:
    """Both numbers of the kernel count, from the first look on, and nothing counts twice."""
    path = tmp_path / "schedstat"
    path.write_text("100 20 3\n")
    busy = BusyTime(path)
    path.write_text("150 90 4\n")
    assert busy.passed() == (150 + 90) - (100 + 20)
    assert busy.passed() == 0
    path.write_text(f"{2**63 - 1} {2**63 - 1} {2**63 - 1}\n")
    assert busy.passed() == 2 * (2**63 - 1) - (150 + 90)
    busy.close()


@pytest.mark.parametrize("text", [None, "0 0 0\n"])
def test_without_counts_it_is_processor_time(tmp_path: Path, text: str | None) -> None:
    """A missing file and a kernel that does not count leave the processor time of the thread."""
    path = tmp_path / "schedstat"
    if text is not None:
        path.write_text(text)
    check_work_counts(BusyTime(path))


def check_work_counts(busy: BusyTime) -> None:
    """Work for a while, and find it, within the time that has passed."""
    began, worked = time.monotonic_ns(), time.thread_time_ns()
    busy.passed()
    while time.thread_time_ns() - worked < 5 * TICK_NANOSECONDS:
        pass
    passed = busy.passed()
    assert 4 * TICK_NANOSECONDS <= passed <= time.monotonic_ns() - began + TICK_NANOSECONDS
    busy.close()


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="this kernel does not count what a thread waits for")
def test_the_kernel_counts_the_thread() -> None:
    """The counts of the real kernel hold the work of the thread."""
    check_work_counts(BusyTime())
