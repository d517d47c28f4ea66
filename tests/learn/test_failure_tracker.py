"""The failure tracker remembers in shared memory which events crash the learner."""

from service.learn.failure_tracker import FAILURES_MAX, FailureTracker
from service.process.shared_memory import SharedMemory


def tracker_after_crash(memory: SharedMemory, stream: int, seq: int, events: int) -> FailureTracker:
    """Return the tracker of the learner after one that crashed in a batch."""
    FailureTracker(memory).start_batch(stream, seq, events)
    return FailureTracker(memory)


def test_suspects_are_folded_one_by_one() -> None:
    """Batches end before the first suspect, contain one suspect each, and are full again after the last."""
    failures = tracker_after_crash(SharedMemory(1, 4), 7, 100, 50)
    assert [failures.batch_limit(7, after, 64) for after in (0, 90, 98, 99, 148, 149)] == [64, 9, 1, 1, 1, 64]
    assert failures.batch_limit(8, 120, 64) == 64
    assert not failures.is_fatal(7, 100)


def test_an_event_is_fatal_after_some_failures_whatever_other_streams_do() -> None:
    """Successes and failures of other streams do not matter; a success of the event itself clears it."""
    memory = SharedMemory(1, 4)
    for count in range(1, FAILURES_MAX + 1):
        failures = tracker_after_crash(memory, 7, 5, 1)
        assert failures.is_fatal(7, 5) is (count == FAILURES_MAX)
        failures.start_batch(8, 5, 1)
        failures.finish_batch()
        tracker_after_crash(memory, 9, count, 1)
    assert FailureTracker(memory).is_fatal(7, 5)
    assert not FailureTracker(memory).is_fatal(7, 6)
    failures = FailureTracker(memory)
    failures.start_batch(7, 5, 1)
    failures.finish_batch()
    assert not FailureTracker(memory).is_fatal(7, 5)
    assert not tracker_after_crash(memory, 7, 5, 1).is_fatal(7, 5)


def test_a_failed_disk_makes_no_event_a_suspect() -> None:
    """A batch that was discarded is forgotten by the next learner."""
    memory = SharedMemory(1, 4)
    for _ in range(FAILURES_MAX):
        failures = FailureTracker(memory)
        failures.start_batch(7, 5, 1)
        failures.discard_batch()
    assert not FailureTracker(memory).is_fatal(7, 5)
    assert FailureTracker(memory).batch_limit(7, 4, 64) == 64


def test_suspects_are_cleared_once_the_last_of_them_is_folded() -> None:
    """Each event of a crashed batch is folded alone until then, also if later events are folded before."""
    memory = SharedMemory(1, 4)
    failures = tracker_after_crash(memory, 7, 10, 3)
    failures.start_batch(7, 20, 5)
    failures.finish_batch()
    for seq in (10, 11, 12):
        assert failures.batch_limit(7, seq - 1, 64) == 1
        failures.start_batch(7, seq, 1)
        failures.finish_batch()
    assert failures.batch_limit(7, 9, 64) == FailureTracker(memory).batch_limit(7, 9, 64) == 64


def test_the_newest_suspects_are_kept_when_the_rows_are_full() -> None:
    """More streams than rows have suspects; the oldest are dropped."""
    memory = SharedMemory(1, 4)
    for stream in range(1, 100):
        for _ in range(FAILURES_MAX):
            tracker_after_crash(memory, stream, 5, 1)
    assert FailureTracker(memory).is_fatal(99, 5)
    assert not FailureTracker(memory).is_fatal(1, 5)
