"""Which replicas count for the erasure of forgotten rows: those that were seen lately, whatever servers' clocks say."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import pytest

from service.learn.replica_list import LIVE_SECONDS, REPORT_SECONDS, ReplicaList
from service.process.shared_memory import SharedMemory
from service.store.log.events import SEQ_MAX
from service.store.log.shared_facts import Replica

STREAM: Final = 7


class Facts:
    """`SharedFacts` of this replica and some others.

    Attributes:
        others: The others.
    """

    def __init__(self) -> None:
        self.others: list[Replica] = []
        self._own: list[Replica] = []

    def report_replica(self, name: str, erased: Mapping[int, int], *_more: object) -> None:
        """See SharedFacts."""
        self._own = [Replica(name, 0.0, erased)]

    def list_replicas(self) -> list[Replica]:
        """See SharedFacts."""
        return self._own + self.others


class Rig:
    """The list of a replica, with a clock that a test sets."""

    def __init__(self) -> None:
        self.facts = Facts()
        log: Any = SimpleNamespace(facts=self.facts)
        self.list = ReplicaList(log, "all", SharedMemory(1, 4).learner_cells)
        self.stream = SimpleNamespace(erased_epoch=0, erased_elsewhere=0)
        self.now = 100.0

    def erased_elsewhere(self, seconds: float, *others: Replica) -> int:
        """Let time pass, and return what all others have erased."""
        self.now += seconds
        self.facts.others = list(others)
        self.list.exchange(self.now, {STREAM: self.stream})
        return int(self.stream.erased_elsewhere)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_replicas_that_were_seen_lately_count(rig: Rig) -> None:
    slow = Replica("slow", 1.0, {STREAM: 2})
    assert rig.erased_elsewhere(0, Replica("live", 0.5, {STREAM: 3}), slow) == 2
    assert rig.erased_elsewhere(REPORT_SECONDS, Replica("live", 0.5, {STREAM: 3}), slow._replace(seconds=2.0)) == 2
    assert rig.erased_elsewhere(20, Replica("live", 0.5, {STREAM: 3}), slow._replace(seconds=22.0)) == 3
    assert rig.erased_elsewhere(20, slow._replace(seconds=42.0)) == SEQ_MAX


def test_a_server_whose_clock_is_ahead_makes_nobody_dead(rig: Rig) -> None:
    """After a failover to it all others seem to be away, until they report; one that does not report counts no more."""
    assert rig.erased_elsewhere(0, Replica("live", 1.0, {STREAM: 2})) == 2
    assert rig.erased_elsewhere(REPORT_SECONDS, Replica("live", 3602.0, {STREAM: 2})) == 2
    assert rig.erased_elsewhere(LIVE_SECONDS - 2.5, Replica("live", 3615.0, {STREAM: 2})) == 2
    assert rig.erased_elsewhere(REPORT_SECONDS, Replica("live", 3617.0, {STREAM: 2})) == SEQ_MAX


def test_a_server_whose_clock_is_behind_makes_nobody_dead(rig: Rig) -> None:
    assert rig.erased_elsewhere(0, Replica("live", 1.0, {STREAM: 2})) == 2
    assert rig.erased_elsewhere(REPORT_SECONDS, Replica("live", -3598.0, {STREAM: 2})) == 2


def test_a_replica_that_is_listed_no_more_is_forgotten(rig: Rig) -> None:
    """Its name may come again, with an old row."""
    assert rig.erased_elsewhere(0, Replica("gone", 1.0, {STREAM: 2})) == 2
    assert rig.erased_elsewhere(REPORT_SECONDS) == SEQ_MAX
    assert rig.erased_elsewhere(REPORT_SECONDS, Replica("gone", 100.0, {STREAM: 2})) == SEQ_MAX
