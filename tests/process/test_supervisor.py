"""The supervisor, as the parent of real processes that do fake work."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from subprocess import Popen
from typing import NamedTuple

import pytest

from tests.support.processes import SECONDS, children, is_running, kill, run_fake, seconds_until_exit
from tests.support.waiting import wait_until


class FakeService(NamedTuple):
    """A running program of fake_workers.py."""

    process: Popen[str]

    def line(self) -> list[str]:
        """Return the words of the next line that it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def worker(self) -> int:
        """Return the process id of the next worker that it names."""
        word, process = self.line()
        assert word == "worker"
        return int(process)

    def errors(self) -> str:
        """Return what it wrote to standard error after it ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def run_program(name: str) -> Iterator[FakeService]:
    """Run a program of fake_workers.py until the end of the block."""
    with run_fake(name) as process:
        try:
            running = FakeService(process)
            assert running.line()[0] == "parent"
            yield running
        finally:
            process.kill()


def test_a_killed_learner_is_replaced_and_the_worker_continues() -> None:
    """A crash of the learner does not affect the worker."""
    with run_program("learning") as running:
        processes = dict(running.line() for _ in range(2))
        kill(int(processes["learner"]))
        name, successor = running.line()
        assert name == "learner"
        assert successor != processes["learner"]
        assert is_running(int(processes["worker"]))
        running.process.kill()
        wait_until(lambda: not is_running(int(successor)) and not is_running(int(processes["worker"])))


def test_workers_stop_before_the_learner() -> None:
    """The learner still runs while workers finish their requests."""
    with run_program("learning") as running:
        assert {running.line()[0] for _ in range(2)} == {"worker", "learner"}
        running.process.terminate()
        assert [running.line()[0] for _ in range(3)] == ["end-worker", "end-learner", "stopped"]


def test_a_worker_that_ignores_sigterm_is_killed() -> None:
    """It is killed after its time to finish, and the exit code is 0."""
    with run_program("ignoring_sigterm") as running:
        worker = running.worker()
        running.process.terminate()
        assert seconds_until_exit(running.process) < 5
        assert running.process.returncode == 0
        assert not is_running(worker)
        assert "killing 1 workers that did not stop in time" in running.errors()


def test_a_worker_that_exits_at_once_is_restarted_with_growing_pauses() -> None:
    """Each pause is about twice as long as the one before."""
    with run_program("exiting") as running:
        starts = [float(running.line()[1]) for _ in range(5)]
        pauses = [later - earlier for earlier, later in pairwise(starts)]
        assert all(longer > 1.4 * shorter for shorter, longer in pairwise(pauses)), pauses
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0


def test_a_worker_that_raises_is_logged_and_restarted() -> None:
    """The log has the traceback, and the parent's own code never runs in a worker."""
    with run_program("raising") as running:
        assert [running.line() for _ in range(3)] == [["started"]] * 3
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert running.line() == ["stopped"]
        assert running.line() == []
        errors = running.errors()
        assert errors.count("worker 0 crashed") >= 2
        assert errors.count("RuntimeError: the worker's own fault") >= 2


def test_a_failed_fork_is_retried() -> None:
    """The parent continues when it cannot fork."""
    with run_program("failing_fork") as running:
        assert is_running(running.worker())
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert running.errors().count("cannot be started: no process left") == 2


def test_orphans_of_other_processes_are_reaped() -> None:
    """The first process of a container inherits the orphans of other processes."""
    with run_program("with_orphan") as running:
        first = running.worker()
        wait_until(lambda: children(running.process.pid) == [first])
        kill(first)
        second = running.worker()
        assert second != first
        assert running.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_parent_stops_with_its_workers(number: signal.Signals) -> None:
    """After either signal the exit code is 0 and no worker is left."""
    with run_program("idle") as running:
        workers = [running.worker(), running.worker()]
        running.process.send_signal(number)
        assert running.process.wait(SECONDS) == 0
        assert not any(map(is_running, workers))


def test_workers_exit_with_a_killed_parent() -> None:
    """No worker is left to keep the port."""
    with run_program("idle") as running:
        workers = [running.worker(), running.worker()]
        running.process.kill()
        wait_until(lambda: not any(map(is_running, workers)))
