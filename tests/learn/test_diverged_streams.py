"""A replica whose state differs from that of others says so, is not ready, and folds all events again."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.errors import LogUnavailableError
from service.learn.stream_learner import StreamLearner
from service.store.log.events import SEQ_MAX
from service.store.log.shared_facts import Replica
from service.store.states.status import read_status
from tests.support.feedback_log_contract import correction, forget, rollback
from tests.support.shared_log_rig import EVENTS, SharedLogRig
from tests.support.shared_memory_log import MemoryStates, SharedMemoryLog


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedLogRig:
    return SharedLogRig(tmp_path, monkeypatch)


def test_a_replica_that_agrees_is_ready(rig: SharedLogRig) -> None:
    rig.append(rig.stream, 0, 2 * EVENTS + 3)
    rig.learn(lambda: rig.is_published(2 * EVENTS + 3))
    assert sorted(state.position.seq for state in rig.states.digests) == [EVENTS, 2 * EVENTS]
    assert rig.memory.divergences == 0
    assert read_status(rig.folder.path)["state"] == "following"


def test_events_after_a_refolding_are_read(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared log tells once that a stream has moved, so a learner looks again when it has refolded."""
    last = 2 * EVENTS + 5
    rig.append(rig.stream, 0, last)
    rig.log.append([correction(rig.stream, "right", 8), rollback(rig.stream, "back", last - 5)])
    rig.log.append([forget(rig.stream, "gone", "4")])
    monkeypatch.setattr(SharedMemoryLog, "moved_streams", lambda _: set())
    rig.learn(lambda: rig.is_published(last + 3))


def test_a_learner_whose_batch_fails_starts_again(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is lost while a correction is applied, when the learner has half of it; another one continues."""
    rig.append(rig.stream, 0, EVENTS + 3)
    rig.learn(lambda: rig.is_published(EVENTS + 3))
    rig.log.append([correction(rig.stream, "right", 8)])
    learner = rig.process._learners[rig.stream.number]  # whether it is dropped shows nowhere else

    def lose_log(*_: object) -> None:
        raise LogUnavailableError("the log is lost")

    with monkeypatch.context() as patch:
        patch.setattr(SharedMemoryLog, "read_admin_events", lose_log)
        with pytest.raises(LogUnavailableError):
            rig.process._learn_all(time.monotonic())  # one step of the process's loop
    rig.learn(lambda: rig.is_published(EVENTS + 4))
    assert rig.process._learners[rig.stream.number] is not learner


def test_a_replica_that_differs_folds_again(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the artifact, although the log has a newer state, and is not ready until it agrees."""
    compare = MemoryStates.compare
    wrong: list[int] = []

    def compare_or_differ(states: MemoryStates, state: Any, content: bytes) -> bool:
        return compare(states, state, content) and state.position.seq not in wrong

    monkeypatch.setattr(MemoryStates, "compare", compare_or_differ)
    rig.append(rig.stream, 0, EVENTS + 3)
    rig.learn(lambda: rig.is_published(EVENTS + 3))
    wrong.append(2 * EVENTS)
    rig.append(rig.stream, EVENTS + 3, 2 * EVENTS + 2)
    began: list[int] = []
    make = StreamLearner.__init__

    def note_start(learner: StreamLearner, *arguments: Any, **options: Any) -> None:
        make(learner, *arguments, **options)
        began.append(learner.follower.seq)

    monkeypatch.setattr(StreamLearner, "__init__", note_start)
    rig.learn(lambda: rig.memory.has_diverged)
    status = read_status(rig.folder.path)
    assert (status["state"], rig.memory.divergences) == ("held", 1)
    assert "other replicas" in status["reason"]
    wrong.clear()
    rig.learn(lambda: began != [])
    assert read_status(rig.folder.path)["state"] == "diverged"
    rig.learn(lambda: rig.is_published(2 * EVENTS + 2))
    assert began == [0]
    rig.learn(lambda: read_status(rig.folder.path)["state"] == "following")


def test_rows_are_erased_once_no_replica_has_them(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that were seen lately count."""
    others: list[Replica] = []
    reported: dict[str, dict[int, int]] = {}

    class Facts:
        """`SharedFacts` of one replica and some others."""

        def report_replica(self, name: str, erased: dict[int, int], role: str, halted: set[int]) -> None:
            assert (role, halted) == ("all", set())
            reported[name] = erased

        def list_replicas(self) -> list[Replica]:
            return [Replica(name, 0.0, erased) for name, erased in reported.items()] + others

    # The log in memory has no facts.
    monkeypatch.setattr(rig.process._replicas._replicas, "_facts", Facts())
    monkeypatch.setattr("service.learn.replica_list.REPORT_SECONDS", 0.01)
    number = rig.stream.number
    rig.append(rig.stream, 0, 3)
    rig.learn(lambda: rig.is_published(3))
    # No file has what is known of the others alone.
    (publisher,) = (learner.publisher for learner in rig.process._learners.values())
    assert publisher.erased_elsewhere == SEQ_MAX
    for listed, expected in (
        ([Replica("live", 1.0, {number: 3}), Replica("slow", 14.0, {number: 2, number + 1: 9})], 2),
        ([Replica("live", 1.0, {number: 3}), Replica("gone", 16.0, {})], 3),
        ([Replica("live", 1.0, {})], 0),
    ):
        others[:] = listed
        rig.learn(lambda expected=expected: publisher.erased_elsewhere == expected)
    assert list(reported.values()) == [{number: 0}]
