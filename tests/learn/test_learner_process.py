"""The learner's process: one stream's trouble is its own, be it a disk that refuses, an error, or the process's death.

Every learner here is a real process, forked from this one, over a real log; several of them share one board.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.learn import learner_process as loop
from service.learn.event_fold import EventFold
from service.learn.failure_tracker import FAILURES_MAX, FailureTracker
from service.learn.replay import StreamReplay
from service.learn.stream_learner import HOLD_SECONDS, HOLD_SECONDS_MAX, RetryDelay
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.hashing import hash_tensors
from service.store.log.admin_payloads import dump_classes, dump_seq
from service.store.log.events import Kind
from service.store.states.snapshots import list_seqs, read_fields
from service.store.states.status import read_status
from tests.support.data_directories import History, iris
from tests.support.servers import wait_until

Histories = tuple[History, ...]


def begun(path: Path, versions: int) -> None:
    """Streams without an event; no connection is left that a fork would carry over."""
    for version in range(1, versions + 1):
        History(path, version).close()


def die_of(*ids: str) -> Callable[[], None]:
    """What makes a process die of the events with these ids."""

    def poison() -> None:
        take = EventFold.fold_events

        def take_or_die(fold: EventFold, events: Any) -> Any:
            chosen = list(events)
            if any(event.id.decode() in ids for event in chosen):
                os.kill(os.getpid(), signal.SIGKILL)
            return take(fold, chosen)

        EventFold.fold_events = take_or_die  # type: ignore[method-assign]

    return poison


def fail_at(id_: str) -> Callable[[], None]:
    """What makes a process raise an error at an event, behind those that come before it in a batch."""

    def poison() -> None:
        take = EventFold.fold_events

        def take_or_fail(fold: EventFold, events: Any) -> Any:
            scored: list[Any] = []
            for event in events:
                if event.id.decode() == id_:
                    raise RuntimeError("a fault of the fold")
                scored += take(fold, [event])
            return scored

        EventFold.fold_events = take_or_fail  # type: ignore[method-assign]

    return poison


def learner(path: Path, board: SharedMemory, heard: Wakeup, poison: Callable[[], None] = lambda: None) -> int:
    """Fork a learner; its process id."""
    process = os.fork()
    if process == 0:
        try:
            poison()
            loop.run_learner(Settings(data=path), board, heard, [])
        finally:
            os._exit(0)
    return process


@contextmanager
def learning(path: Path, versions: int, poison: Callable[[], None] = lambda: None) -> Iterator[Histories]:
    """A learner that is born again whenever it dies, as under the supervisor, and the first of its streams."""
    if not (path / "log.sqlite").exists():
        begun(path, versions)
    board, heard = SharedMemory(1, 4), Wakeup()
    keeper = os.fork()
    if keeper == 0:
        # The parent of the learners has no open log, so that each may open its own.
        current = 0

        def stop(_number: int, _frame: object) -> None:
            os.kill(current, signal.SIGTERM)
            os.waitpid(current, 0)
            os._exit(0)

        signal.signal(signal.SIGTERM, stop)
        while True:
            current = learner(path, board, heard, poison)
            os.waitpid(current, 0)
    histories = tuple(History(path, version) for version in range(1, versions + 1))
    try:
        yield histories
    finally:
        for history in histories:
            history.close()
        os.kill(keeper, signal.SIGTERM)
        os.waitpid(keeper, 0)


def test_a_new_stream_is_met_at_once(tmp_path: Path) -> None:
    """Though its first event comes with those of another stream, which keep the learner busy."""
    with learning(tmp_path, 1) as (known,):
        known.teach("a")
        wait_until(lambda: snapshot_contents(known) == 1)
        heard = []
        for version in range(2, 8):
            new = History(tmp_path, version)
            known.teach(f"with {version}")
            new.teach(f"first {version}")
            heard.append(new)
        for new in heard:
            wait_until(lambda new=new: snapshot_contents(new) == 1)  # type: ignore[misc]
            new.close()


def snapshot_contents(history: History) -> int:
    """The seq that is served."""
    return max(list_seqs(history.folder.snapshots), default=0)


def status(history: History) -> dict[str, Any]:
    """How a stream stands, as the metadata would tell it."""
    return read_status(history.folder.path)


def served_is_the_fold(history: History) -> None:
    """What is served at the last seq is what the log folds to, by a process that nothing befell."""
    replay = StreamReplay(history.stream, iris(), history.log)
    list(replay.fold_to(replay.last))
    fields = read_fields(history.folder.snapshots / str(replay.last))
    assert fields["progressive"]["events"] == replay.fold.events
    assert fields["hash"] == replay.position().hash.hex()
    learned = replay.fold.state.served_parameters()
    assert fields["weights_sha256"] == hash_tensors(learned.tensors())


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_disk_that_refuses_one_stream_holds_up_no_other(tmp_path: Path, *, is_begun: bool) -> None:
    """Its status says so without a path; once the disk takes files again it goes on, and nothing is lost."""
    begun(tmp_path, 2)
    folder = tmp_path / "streams" / "iris" / "1" / "snapshots"
    if not is_begun:
        folder.write_bytes(b"a file in the place of a folder")
    with learning(tmp_path, 2) as (bad, good):
        if is_begun:
            bad.teach("first")
            wait_until(lambda: snapshot_contents(bad) == 1)
            folder.rename(tmp_path / "aside")
            folder.write_bytes(b"a file in the place of a folder")
        for turn in range(5):
            bad.teach(f"bad {turn}")
            last = good.teach(f"good {turn}")
            # Each is served while the other stream is tried again.
            wait_until(lambda last=last: snapshot_contents(good) == last, 2)  # type: ignore[misc]
        wait_until(lambda: status(bad).get("state") == "held")
        assert status(bad)["reason"].startswith("the disk refuses: ")
        assert str(tmp_path) not in status(bad)["reason"]
        assert status(good)["state"] == "following"
        served_is_the_fold(good)
        folder.unlink()
        wait_until(lambda: snapshot_contents(bad) == bad.log.stream_state(bad.stream.number).seq)
        wait_until(lambda: status(bad)["state"] == "following")
        served_is_the_fold(bad)


def test_a_stream_that_cannot_be_taken_up_holds_up_no_other(tmp_path: Path) -> None:
    """Its artifact is damaged; once it is mended the learner goes on without a restart."""
    begun(tmp_path, 2)
    manifest = tmp_path / "streams" / "iris" / "2" / "artifact" / "model.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-9])
    with learning(tmp_path, 1) as (good,):
        for turn in range(3):
            last = good.teach(turn)
            wait_until(lambda last=last: snapshot_contents(good) == last, 2)  # type: ignore[misc]
        told = tmp_path / "streams" / "iris" / "2"
        wait_until(lambda: read_status(told).get("state") == "held")
        assert str(tmp_path) not in read_status(told)["reason"]
        manifest.write_bytes(whole)
        wait_until(lambda: read_status(told)["state"] == "following")


def test_an_event_that_kills_stalls_its_stream_alone(tmp_path: Path) -> None:
    """Two streams have one each, and others go on in between; what is skipped is the fatal event and no other."""
    with learning(tmp_path, 3, die_of("deadly 1", "deadly 2")) as (first, second, well):
        first.teach(*range(30), "deadly 1", *range(31, 40))
        second.teach("a", "deadly 2", "b")
        for turn in range(40):
            well.teach(f"well {turn}")
        wait_until(lambda: status(first).get("state") == status(second).get("state") == "stalled")
        assert (status(first)["seq"], status(second)["seq"]) == (31, 2)
        last = well.teach("later")
        wait_until(lambda: snapshot_contents(well) == last)
        served_is_the_fold(well)
        for history, seq in ((first, 31), (second, 2)):
            skip = history.append([history.draft(Kind.SKIP, f"skip {seq}", dump_seq(seq))])
            wait_until(lambda history=history, skip=skip: snapshot_contents(history) == skip)  # type: ignore[misc]
            wait_until(lambda history=history: status(history)["state"] == "following")  # type: ignore[misc]
            served_is_the_fold(history)


def test_an_event_that_raises_stalls_its_stream_and_is_folded_by_nobody(tmp_path: Path) -> None:
    """The events before it in its batch are folded once, though the batch was begun again and again."""
    with learning(tmp_path, 2, fail_at("bad")) as (broken, well):
        broken.teach(*range(20), "bad", *range(21, 30))
        wait_until(lambda: status(broken).get("state") == "stalled")
        assert status(broken)["seq"] == 21
        last = well.teach("well")
        wait_until(lambda: snapshot_contents(well) == last)
        skip = broken.append([broken.draft(Kind.SKIP, "skip", dump_seq(21))])
        wait_until(lambda: snapshot_contents(broken) == skip)
        served_is_the_fold(broken)


def test_an_admin_event_that_kills_is_rolled_back(tmp_path: Path) -> None:
    """There is no skipping it, so a rollback to before it is the way past it, and from then on as ever."""
    with learning(tmp_path, 1, die_of("deadly")) as (history,):
        good = history.teach(*range(20))
        history.append([history.draft(Kind.CLASSES, "deadly", dump_classes(["another"]))])
        history.teach("late", classes=4)
        wait_until(lambda: status(history).get("state") == "stalled")
        assert status(history)["seq"] == good + 1
        # Back to a state that is made of it as well: no way past.
        history.append([history.draft(Kind.ROLLBACK, "too late", dump_seq(good + 1))])
        back = history.append([history.draft(Kind.ROLLBACK, "back", dump_seq(good))])
        wait_until(lambda: snapshot_contents(history) == back)
        wait_until(lambda: status(history)["state"] == "following")
        served_is_the_fold(history)
        last = history.teach("on", "and on")
        wait_until(lambda: snapshot_contents(history) == last)
        served_is_the_fold(history)


# Blame, by itself


def died(board: SharedMemory, stream: int, seq: int, events: int) -> FailureTracker:
    """A learner dies of a batch, and this is its successor's blame."""
    FailureTracker(board).start_batch(stream, seq, events)
    return FailureTracker(board)


def test_suspects_are_folded_one_by_one() -> None:
    """Those of the batch that did not go well, and no event before or behind them with them."""
    blame = died(SharedMemory(1, 4), 7, 100, 50)
    assert [blame.batch_limit(7, after, 64) for after in (0, 90, 98, 99, 148, 149)] == [64, 9, 1, 1, 1, 64]
    assert blame.batch_limit(8, 120, 64) == 64
    assert not blame.is_fatal(7, 100)


def test_an_event_is_fatal_after_some_failures_whatever_others_do() -> None:
    """Events of other streams that go well in between acquit nobody; the same event that goes well is acquitted."""
    board = SharedMemory(1, 4)
    for failures in range(1, FAILURES_MAX + 1):
        blame = died(board, 7, 5, 1)
        assert blame.is_fatal(7, 5) is (failures == FAILURES_MAX)
        blame.start_batch(8, 5, 1)
        blame.finish_batch()
        died(board, 9, failures, 1)
    assert FailureTracker(board).is_fatal(7, 5)
    assert not FailureTracker(board).is_fatal(7, 6)
    blame = FailureTracker(board)
    blame.start_batch(7, 5, 1)
    blame.finish_batch()
    assert not FailureTracker(board).is_fatal(7, 5)
    assert not died(board, 7, 5, 1).is_fatal(7, 5)


def test_a_disk_that_fails_accuses_no_event() -> None:
    """What was begun and was let go of is forgotten by the next learner."""
    board = SharedMemory(1, 4)
    for _ in range(FAILURES_MAX):
        blame = FailureTracker(board)
        blame.start_batch(7, 5, 1)
        blame.discard_batch()
    assert not FailureTracker(board).is_fatal(7, 5)
    assert FailureTracker(board).batch_limit(7, 4, 64) == 64


def test_a_batch_that_goes_well_up_to_its_end_is_no_suspect_any_more() -> None:
    """Only once its last event is folded."""
    board = SharedMemory(1, 4)
    blame = died(board, 7, 10, 3)
    for seq in (10, 11, 12):
        assert blame.batch_limit(7, seq - 1, 64) == 1
        blame.start_batch(7, seq, 1)
        blame.finish_batch()
    assert blame.batch_limit(7, 9, 64) == FailureTracker(board).batch_limit(7, 9, 64) == 64


def test_more_streams_than_rows_have_suspects() -> None:
    """The newest are remembered."""
    board = SharedMemory(1, 4)
    for stream in range(1, 100):
        for _ in range(FAILURES_MAX):
            died(board, stream, 5, 1)
    assert FailureTracker(board).is_fatal(99, 5)
    assert not FailureTracker(board).is_fatal(1, 5)


@pytest.mark.parametrize("failures", [1, 3, 40])
def test_a_hold_grows_and_is_bounded(failures: int) -> None:
    """And begins anew after a turn that went well."""
    hold = RetryDelay()
    for _ in range(failures):
        hold.begin("why", 10.0)
    assert hold.due == 10.0 + min(HOLD_SECONDS * 2 ** (failures - 1), HOLD_SECONDS_MAX)
    hold.end()
    hold.begin("why", 20.0)
    assert (hold.due, hold.reason) == (20.0 + HOLD_SECONDS, "why")
