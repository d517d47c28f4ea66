"""The parent of the workers, over real processes that do fake work."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from subprocess import Popen
from typing import NamedTuple

import pytest

from service.process.supervisor import listen
from tests.support.processes import SECONDS, children, kill, lives, run_fake, seconds_until_exit
from tests.support.servers import wait_until


class Fake(NamedTuple):
    """A running program of fakes.py."""

    process: Popen[str]

    def line(self) -> list[str]:
        """The words of the next line that it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def worker(self) -> int:
        """The process of the next worker that it tells of."""
        word, process = self.line()
        assert word == "worker"
        return int(process)

    def errors(self) -> str:
        """What it wrote to standard error, when it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def fake(name: str) -> Iterator[Fake]:
    """Run a program of fakes.py until the end of the block."""
    with run_fake(name) as process:
        try:
            running = Fake(process)
            assert running.line()[0] == "parent"
            yield running
        finally:
            process.kill()


def test_a_killed_learner_is_replaced_and_the_worker_lives_on() -> None:
    """The learner's death is no worker's."""
    with fake("learning") as running:
        processes = dict(running.line() for _ in range(2))
        kill(int(processes["learner"]))
        name, successor = running.line()
        assert name == "learner"
        assert successor != processes["learner"]
        assert lives(int(processes["worker"]))
        running.process.kill()
        wait_until(lambda: not lives(int(successor)) and not lives(int(processes["worker"])))


def test_workers_stop_before_the_learner() -> None:
    """What a worker accepts until its end finds a learner that still runs."""
    with fake("learning") as running:
        assert {running.line()[0] for _ in range(2)} == {"worker", "learner"}
        running.process.terminate()
        assert [running.line()[0] for _ in range(3)] == ["end-worker", "end-learner", "stopped"]


def test_a_worker_that_does_not_hear_sigterm_is_killed() -> None:
    """After its time to finish, and the exit code is 0 all the same."""
    with fake("deaf") as running:
        worker = running.worker()
        running.process.terminate()
        assert seconds_until_exit(running.process) < 5
        assert running.process.returncode == 0
        assert not lives(worker)
        assert "killing 1 workers that did not stop in time" in running.errors()


def test_a_worker_that_dies_at_once_is_started_again_with_growing_pauses() -> None:
    """Each pause is about twice as long as the one before, so a broken worker costs nearly nothing."""
    with fake("mortal") as running:
        births = [float(running.line()[1]) for _ in range(5)]
        pauses = [later - earlier for earlier, later in pairwise(births)]
        assert all(longer > 1.4 * shorter for shorter, longer in pairwise(pauses)), pauses
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0


def test_a_worker_that_raises_is_told_and_started_again() -> None:
    """The log has the trace; the parent's own code never runs in a worker."""
    with fake("broken") as running:
        assert [running.line() for _ in range(3)] == [["born"]] * 3
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert running.line() == ["stopped"]
        assert running.line() == []
        errors = running.errors()
        assert errors.count("worker 0 crashed") >= 2
        assert errors.count("RuntimeError: the worker's own fault") >= 2


def test_a_system_without_a_free_process_is_asked_again() -> None:
    """The parent lives on when it cannot fork."""
    with fake("crowded") as running:
        assert lives(running.worker())
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert running.errors().count("cannot be started: no process left") == 2


def test_children_of_others_are_buried_too() -> None:
    """The first process of a container inherits what other processes leave behind."""
    with fake("orphanage") as running:
        first = running.worker()
        wait_until(lambda: children(running.process.pid) == [first])
        kill(first)
        second = running.worker()
        assert second != first
        assert running.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_parent_ends_with_its_workers(number: signal.Signals) -> None:
    """By either signal, with exit code 0 and nobody left."""
    with fake("idle") as running:
        workers = [running.worker(), running.worker()]
        running.process.send_signal(number)
        assert running.process.wait(SECONDS) == 0
        assert not any(map(lives, workers))


def test_workers_die_with_a_killed_parent() -> None:
    """Nobody is left to keep the port."""
    with fake("idle") as running:
        workers = [running.worker(), running.worker()]
        running.process.kill()
        wait_until(lambda: not any(map(lives, workers)))


def test_listening_takes_ipv6_addresses() -> None:
    """An address with a colon is one of IPv6."""
    with listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"
