"""The writer reports every submission once, in order, and only after its events are on disk.

The files, the thread and the loop are real. Faults come from a log whose `append` can be made to fail.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from service.errors import (
    ArtifactChangedError,
    ArtifactError,
    ClassesChangedError,
    IdConflictError,
    LogDamagedError,
    LogFullError,
    LogUnavailableError,
    OutcomeUnknownError,
    QueueFullError,
    SeqMovedError,
    StreamGoneError,
)
from service.serve.log import writer_thread
from service.serve.log.writer import Writer
from service.serve.metrics.counters import FEEDBACK_DUPLICATES, FEEDBACK_EVENTS, FEEDBACK_REFUSALS
from service.serve.wire.feedback_body import PostedEvent
from service.store.log.admin_payloads import dump_classes, dump_seq
from service.store.log.events import EventLocation, Kind, Position, Stream
from service.store.log.sqlite import SqliteLog
from tests.support.paths import ROOT
from tests.support.writer_rig import GENESIS, SECONDS, WriterRig, make_post, make_source, submit_events


@pytest.fixture
def rig(tmp_path: Path) -> WriterRig:
    return WriterRig(tmp_path)


# Results


def test_an_event_is_committed_and_marked_before_it_is_reported(rig: WriterRig) -> None:
    iris = make_source()

    async def scenario(writer: Writer) -> None:
        assert await writer.submit_event(iris, make_post("a", rows=3)) == EventLocation(1, 1)
        assert rig.committed == 1
        assert [(stream, position.seq) for stream, position in rig.marks] == [(1, 1)]
        assert rig.was_woken()
        assert rig.stored_ids() == [b"a"]
        assert writer.waiting == 0

    rig.run(scenario)
    log = SqliteLog(rig.path)
    (event,) = log.read_events(1, 0, 10)
    assert rig.marks == [(1, Position(1, event.hash))]
    assert log.list_streams() == [Stream(1, "iris", 1, GENESIS, 3)]
    assert (event.payload, event.kind) == (make_post("a", rows=3).payload, Kind.FEEDBACK)
    assert iris.counters.tolist() == [1, 3, 0, 0]
    (nanoseconds,) = rig.commits
    assert nanoseconds > 0


def test_a_retry_returns_the_same_seq(rig: WriterRig) -> None:
    """A retry marks no stream and sends no wakeup; another event with the same id is rejected."""
    iris = make_source()

    async def scenario(writer: Writer) -> None:
        await writer.submit_event(iris, make_post("a"))
        assert rig.was_woken()
        assert await writer.submit_event(iris, make_post("a")) == EventLocation(1, 1, duplicate=True)
        assert not rig.was_woken()
        with pytest.raises(IdConflictError):
            await writer.submit_event(iris, make_post("a", 1.0))
        assert len(rig.marks) == 1

    rig.run(scenario)
    assert iris.counters.tolist() == [1, 1, 1, 1]


def test_submissions_of_one_turn_are_one_batch_in_order(rig: WriterRig) -> None:
    async def scenario(writer: Writer) -> None:
        iris = make_source()
        futures = [writer.submit_event(iris, make_post(f"e{n}")) for n in range(100)]
        assert [(await future).seq for future in futures] == list(range(1, 101))

    rig.run(scenario)
    assert rig.batches == [100]
    assert rig.stored_ids() == [b"e%d" % n for n in range(100)]


def test_a_stall_is_the_time_without_a_report_while_events_wait(rig: WriterRig) -> None:
    """It begins with the first event that waits, and again with each report."""

    async def scenario(writer: Writer) -> None:
        now = time.monotonic()
        assert writer.stalled_seconds(now + 5) == 0
        futures = [writer.submit_event(make_source(), make_post(f"e{n}")) for n in range(10)]
        assert 5 <= writer.stalled_seconds(time.monotonic() + 5) < 10
        assert writer.stalled_seconds(now) <= 0
        await asyncio.gather(*futures)
        assert writer.stalled_seconds(time.monotonic() + 5) == 0

    rig.run(scenario)


def test_all_results_of_a_batch_are_reported_in_order_by_long_turns(rig: WriterRig) -> None:
    """A turn that takes long reports more of them, so a batch of 60 needs two such turns and not twenty."""
    reported: list[int] = []

    async def scenario(writer: Writer) -> None:
        for n in range(60):
            writer.send_events(make_source(), [make_post(f"e{n}")], lambda _, n=n: reported.append(n))  # type: ignore[misc]
        turns = 0
        while not reported:  # noqa: ASYNC110  # no event of it
            await asyncio.sleep(0)
        while len(reported) < 60:
            time.sleep(0.02)  # noqa: ASYNC251  # the turn is long
            turns += 1
            await asyncio.sleep(0)
        assert turns <= 2

    rig.run(scenario)
    assert reported == list(range(60))


def test_a_batch_is_bounded(rig: WriterRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has limits of events and bytes; a larger submission is a batch of its own."""
    monkeypatch.setattr(writer_thread, "BATCH_EVENTS_MAX", 8)
    monkeypatch.setattr(writer_thread, "BATCH_BYTES_MAX", 3 * len(make_post("", rows=10).payload))

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        await asyncio.gather(*(writer.submit_event(iris, make_post(f"e{n}")) for n in range(20)))
        assert rig.batches == [8, 8, 4]
        await asyncio.gather(*(writer.submit_event(iris, make_post(f"l{n}", rows=10)) for n in range(4)))
        assert rig.batches[3:] == [3, 1]
        await asyncio.gather(*(writer.submit_event(iris, make_post(f"x{n}", rows=(1, 99, 1)[n])) for n in range(3)))
        assert rig.batches[5:] == [1, 1, 1]
        assert len(await submit_events(writer, iris, [make_post(f"t{n}") for n in range(30)])) == 30
        assert rig.batches[8:] == [30]

    rig.run(scenario)


def test_several_events_of_one_request_share_a_transaction(rig: WriterRig) -> None:
    """Each event of a request has an outcome of its own."""
    iris = make_source()

    async def scenario(writer: Writer) -> None:
        await writer.submit_event(iris, make_post("a"))
        outcomes = await submit_events(
            writer, iris, [make_post("b"), make_post("a"), make_post("a", 2.0), make_post("c"), make_post("c")]
        )
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [EventLocation, EventLocation, IdConflictError, EventLocation, EventLocation]
        assert [outcome for outcome in outcomes if isinstance(outcome, EventLocation)] == [
            EventLocation(1, 2),
            EventLocation(1, 1, duplicate=True),
            EventLocation(1, 3),
            EventLocation(1, 3, duplicate=True),
        ]

    rig.run(scenario)
    assert rig.batches == [1, 5]
    assert iris.counters.tolist() == [3, 3, 2, 1]


def test_admin_events_are_written_in_order_with_feedback(rig: WriterRig) -> None:
    """Labels that were parsed before classes were added are rejected afterwards."""
    iris = make_source()

    async def scenario(writer: Writer) -> None:
        added = PostedEvent(b"add", dump_classes(["new"]), 0)
        with pytest.raises(SeqMovedError):
            await writer.submit_event(iris, added, Kind.CLASSES, if_seq=1)
        first, second, third = (
            writer.submit_event(iris, make_post("a")),
            writer.submit_event(iris, added, Kind.CLASSES, if_seq=1),
            writer.submit_event(iris, make_post("b")),
        )
        assert [(await first).seq, (await second).seq] == [1, 2]
        with pytest.raises(ClassesChangedError):
            await third
        assert (await writer.submit_event(iris._replace(class_epoch=2), make_post("b"))).seq == 3

    rig.run(scenario)
    assert [iris.counters[cell] for cell in (FEEDBACK_EVENTS, FEEDBACK_REFUSALS)] == [2, 1]


def test_every_submission_brings_its_actor(rig: WriterRig) -> None:
    """Events of one batch keep the actors of their requests; those of one request share it."""
    first, second = make_source(), make_source(version=2)

    async def scenario(writer: Writer) -> None:
        futures = [
            submit_events(writer, first, [make_post("a"), make_post("b")], "key:one"),
            submit_events(writer, first, [make_post("c")]),
            writer.submit_event(first, make_post("d"), actor="key:two"),
            writer.submit_event(first, PostedEvent(b"e", dump_seq(1), 0), Kind.ROLLBACK, actor="key:one"),
        ]
        await asyncio.gather(*futures)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        parts = [(first, [make_post("f")], lambda _: None), (second, [make_post("g")], done.set_result)]
        writer.send_to_versions(parts, "key:two")
        await done
        writer.send_to_versions([(second, [make_post("h")], lambda _: None)], "key:one")
        stored = await writer.call_with_log(
            lambda log: [(event.id, event.actor) for number in (1, 2) for event in log.read_events(number, 0, 9)]
        )
        one, two = b"key:one", b"key:two"
        first_stored = [(b"a", one), (b"b", one), (b"c", b""), (b"d", two), (b"e", one), (b"f", two)]
        assert stored == [*first_stored, (b"g", two), (b"h", one)]

    rig.run(scenario)
    assert rig.batches == [5, 2, 1]


def test_feedback_for_several_versions_shares_a_transaction(rig: WriterRig) -> None:
    """Each version's callback gets its own outcomes, also if the stream of one cannot be opened or the disk fails."""
    first, second = make_source(), make_source(version=2)
    results: dict[int, Any] = {}

    async def send(writer: Writer, *names: str) -> list[Any]:
        results.clear()
        done = asyncio.Event()

        def note(version: int, result: Any) -> None:
            results[version] = result
            if len(results) == 2:
                done.set()

        posts = [make_post(name) for name in names]
        writer.send_to_versions([(first, posts, partial(note, 1)), (second, posts[:1], partial(note, 2))])
        assert writer.waiting == len(posts) + 1
        await done.wait()
        assert writer.waiting == 0
        return [results[1], results[2]]

    async def scenario(writer: Writer) -> None:
        outcomes = await send(writer, "a", "b")
        assert outcomes == [[EventLocation(1, 1), EventLocation(1, 2)], [EventLocation(1, 1, duplicate=True)]]
        rig.errors_before_commit.append(OutcomeUnknownError("the disk failed"))
        assert [type(result) for result in await send(writer, "c")] == [OutcomeUnknownError] * 2
        writer.send_to_versions([(second, [make_post("alone")], lambda result: results.update({3: result}))])
        await writer.submit_event(first, make_post("other"))
        assert results[3] == [EventLocation(2, 1)]

    rig.run(scenario)
    assert rig.batches == [3, 2, 2]
    assert (first.counters[FEEDBACK_EVENTS], second.counters[FEEDBACK_DUPLICATES]) == (3, 1)


def test_a_version_that_cannot_be_stored_refuses_its_events_alone(rig: WriterRig) -> None:
    """The events of the other version of the request are stored."""
    results: list[Any] = []

    async def scenario(writer: Writer) -> None:
        rig.bind_errors.append(LogUnavailableError("its files cannot be stored"))
        writer.send_to_versions([(make_source(version=n), [make_post(f"e{n}")], results.append) for n in (1, 2)])
        await writer.submit_event(make_source(), make_post("later"))

    rig.run(scenario)
    assert isinstance(results[0], LogUnavailableError)
    assert results[1] == [EventLocation(1, 1)]


# Limits


def test_too_many_waiting_events_are_rejected(tmp_path: Path) -> None:
    """The writer accepts events again when the waiting ones are written."""
    rig = WriterRig(tmp_path, events_max=10)

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        for turn in range(3):
            futures = [writer.submit_event(iris, make_post(f"{turn}-{n}")) for n in range(10)]
            assert writer.waiting == 10
            with pytest.raises(QueueFullError):
                writer.submit_event(iris, make_post("more"))
            with pytest.raises(QueueFullError):
                submit_events(writer, iris, [make_post("more")])
            await asyncio.gather(*futures)

    rig.run(scenario)
    assert b"more" not in rig.stored_ids()


def test_too_many_waiting_bytes_are_rejected(tmp_path: Path) -> None:
    """A submission larger than the limit is accepted if nothing else waits."""
    size = len(make_post("", rows=10).payload)
    rig = WriterRig(tmp_path, bytes_max=2 * size)

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        for turn in "ab":
            futures = [writer.submit_event(iris, make_post(f"{turn}{n}", rows=10)) for n in range(2)]
            with pytest.raises(QueueFullError):
                writer.submit_event(iris, make_post("c"))
            await asyncio.gather(*futures)
        await writer.submit_event(iris, make_post("d", rows=100))

    rig.run(scenario)
    assert rig.stored_ids() == [b"a0", b"a1", b"b0", b"b1", b"d"]


def test_a_full_disk_rejects_feedback(tmp_path: Path) -> None:
    rig = WriterRig(tmp_path, reserve_bytes=1 << 60)

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        with pytest.raises(LogFullError):
            await writer.submit_event(iris, make_post("a"))
        assert (await writer.submit_event(iris, PostedEvent(b"add", dump_classes(["new"]), 0), Kind.CLASSES)).seq == 1

    rig.run(scenario)


# Faults


@pytest.mark.parametrize("error", [LogUnavailableError("busy"), OutcomeUnknownError("disk"), LogDamagedError("lost")])
def test_an_error_of_the_log_is_reported_to_the_whole_batch(rig: WriterRig, error: Exception) -> None:
    """Each submission gets an exception of its own, and later submissions are written."""

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        rig.errors_before_commit.append(error)
        failed = await asyncio.gather(
            *(writer.submit_event(iris, make_post(f"a{n}")) for n in range(5)), return_exceptions=True
        )
        assert [(type(reason), str(reason)) for reason in failed] == [(type(error), str(error))] * 5
        assert len(set(map(id, failed))) == 5
        assert (await writer.submit_event(iris, make_post("b"))).seq == 1
        assert writer.waiting == 0

    rig.run(scenario)
    assert rig.opened == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_the_thread_survives_every_exception(
    rig: WriterRig, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is opened again, and a retry with the same id reports whether the event was written."""

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        rig.errors_after_commit.append(error)
        broken = writer.submit_event(iris, make_post("a"))
        with pytest.raises(OutcomeUnknownError):
            await broken
        assert await writer.submit_event(iris, make_post("a")) == EventLocation(1, 1, duplicate=True)
        assert (await writer.submit_event(iris, make_post("b"))).seq == 2

    rig.run(scenario)
    assert (rig.opened, rig.closed) == (2, 2)
    assert "writing feedback failed" in caplog.text


def test_a_log_that_cannot_be_opened_is_opened_by_a_later_batch(
    rig: WriterRig, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged once, not for each event."""
    rig.open_errors += [LogUnavailableError("held")] * 3

    async def scenario(writer: Writer) -> None:
        for _ in range(3):
            with pytest.raises(LogUnavailableError, match="held"):
                await writer.submit_event(make_source(), make_post("a"))
        assert caplog.text.count("feedback is not written: held") == 1
        assert (await writer.submit_event(make_source(), make_post("a"))).seq == 1
        rig.errors_before_commit.append(LogUnavailableError("held"))
        with pytest.raises(LogUnavailableError, match="held"):
            await writer.submit_event(make_source(), make_post("a"))

    rig.run(scenario)
    assert caplog.text.count("feedback is not written: held") == 1


@pytest.mark.parametrize(
    ("error", "reported"),
    [(ArtifactError("the copy failed"), ArtifactError), (LogUnavailableError("full"), LogUnavailableError)],
)
def test_an_artifact_that_cannot_be_bound_stops_only_its_own_feedback(
    rig: WriterRig, error: Exception, reported: type[Exception]
) -> None:
    rig.bind_errors.append(error)

    async def scenario(writer: Writer) -> None:
        iris, other = make_source(), make_source(model="digits")
        first, second = writer.submit_event(iris, make_post("a")), writer.submit_event(other, make_post("b"))
        with pytest.raises(reported):
            await first
        assert (await second).seq == 1
        assert (await writer.submit_event(iris, make_post("a"))).seq == 1
        await writer.submit_event(iris, make_post("c"))

    rig.run(scenario)
    assert [bound.model for bound in rig.bound] == ["iris", "digits", "iris"]


def test_feedback_for_a_changed_artifact_is_rejected(rig: WriterRig) -> None:
    """The stream keeps the genesis that it began with, so later feedback for it is written."""

    async def scenario(writer: Writer) -> None:
        await writer.submit_event(make_source(), make_post("a"))
        for _ in range(2):
            with pytest.raises(ArtifactChangedError):
                await writer.submit_event(make_source(geneses=(bytes(32),)), make_post("b"))
        assert (await writer.submit_event(make_source(), make_post("c"))).seq == 2

    rig.run(scenario)


def test_a_purged_stream_restarts_with_another_number(rig: WriterRig) -> None:
    async def scenario(writer: Writer) -> None:
        assert await writer.submit_event(make_source(), make_post("a")) == EventLocation(1, 1)
        await writer.call_with_log(lambda log: log.purge_stream(1))
        with pytest.raises(StreamGoneError):
            await writer.submit_event(make_source(), make_post("a"))
        assert await writer.submit_event(make_source(), make_post("a")) == EventLocation(2, 1)

    rig.run(scenario)


def test_feedback_is_reported_even_if_it_cannot_be_marked(rig: WriterRig, caplog: pytest.LogCaptureFixture) -> None:
    """The event is on disk, and the learner is woken."""
    rig.mark_errors.append(LogDamagedError("no room"))

    async def scenario(writer: Writer) -> None:
        assert (await writer.submit_event(make_source(), make_post("a"))).seq == 1
        assert rig.was_woken()

    rig.run(scenario)
    assert "cannot be marked" in caplog.text


def test_a_cancelled_client_does_not_affect_others(rig: WriterRig) -> None:
    async def scenario(writer: Writer) -> None:
        iris = make_source()
        gone, here = writer.submit_event(iris, make_post("a")), writer.submit_event(iris, make_post("b"))
        gone.cancel()
        assert (await here).seq == 2
        assert writer.waiting == 0

    rig.run(scenario)
    assert rig.stored_ids() == [b"a", b"b"]


# Calls


def test_a_call_runs_in_the_order_of_submission(rig: WriterRig) -> None:
    """A call runs in the writer's thread, after the events submitted before it."""

    async def scenario(writer: Writer) -> None:
        iris = make_source()
        futures = [writer.submit_event(iris, make_post(f"a{n}")) for n in range(3)]
        seen = writer.call_with_log(lambda log: (log.stream_state(1).seq, threading.get_ident()))
        last = writer.submit_event(iris, make_post("b"))
        seq, thread = await seen
        assert (seq, {thread}) == (3, rig.threads)
        assert (await last).seq == 4
        assert all(future.done() for future in futures)
        with pytest.raises(StreamGoneError):
            await writer.call_with_log(lambda log: log.stream_state(99))
        with pytest.raises(ZeroDivisionError):
            await writer.call_with_log(lambda _log: 1 // 0)
        assert rig.opened == 1

    rig.run(scenario)
    assert rig.batches == [3, 1]


# The end


def test_closing_writes_waiting_events(rig: WriterRig) -> None:
    """Their results are reported, and later submissions are rejected."""
    iris = make_source()
    before = set(threading.enumerate())

    async def scenario(writer: Writer) -> None:
        await writer.submit_event(iris, make_post("first"))
        futures = [writer.submit_event(iris, make_post(f"e{n}")) for n in range(50)]
        await writer.close()
        assert [future.result().seq for future in futures] == list(range(2, 52))
        for take in (
            lambda: writer.submit_event(iris, make_post("late")),
            lambda: writer.call_with_log(lambda log: log.list_streams()),
        ):
            with pytest.raises(LogUnavailableError, match="stopping"):
                take()

    rig.run(scenario)
    assert (rig.opened, rig.closed) == (1, 1)
    assert len(rig.stored_ids()) == 51
    assert "writer" not in [thread.name for thread in set(threading.enumerate()) - before]


def test_the_thread_ends_after_its_loop_is_closed(rig: WriterRig) -> None:
    """The thread commits its events without a loop, and ends when asked to."""

    async def submit_one() -> None:
        rig.writer.start()
        rig.writer.submit_event(make_source(), make_post("a"))
        await asyncio.sleep(0)

    uvloop.run(submit_one())
    # `close` needs the loop, which is closed; this is what it does to the thread.
    rig.writer._queue.put(None)
    rig.writer._thread.join(SECONDS)
    assert not rig.writer._thread.is_alive()
    assert rig.stored_ids() == [b"a"]


# Many clients


def test_many_clients_lose_no_event_and_keep_their_order(tmp_path: Path) -> None:
    """Two workers with 24 clients each share a log; each client's seqs rise, and each seq is used once."""
    rigs = [WriterRig(tmp_path), WriterRig(tmp_path)]
    seqs: dict[bytes, int] = {}

    async def client(writer: Writer, name: str) -> None:
        iris, last = make_source(), 0
        for n in range(30):
            event = make_post(f"{name}-{n}")
            accepted = await writer.submit_event(iris, event)
            assert accepted.seq > last
            seqs[event.id] = last = accepted.seq
            if n % 7 == 0:
                assert await writer.submit_event(iris, event) == EventLocation(1, last, duplicate=True)

    async def scenario() -> None:
        for rig in rigs:
            rig.writer.start()
        clients = (client(rig.writer, f"{w}-{c}") for w, rig in enumerate(rigs) for c in range(24))
        await asyncio.wait_for(asyncio.gather(*clients), 2 * SECONDS)
        for rig in rigs:
            await rig.writer.close()

    uvloop.run(scenario())
    assert sorted(seqs.values()) == list(range(1, 2 * 24 * 30 + 1))
    assert rigs[0].stored_ids() == sorted(seqs, key=lambda id_: seqs[id_])
    assert all(len(rig.batches) < 24 * 30 for rig in rigs)


@pytest.mark.parametrize("acks", [1, 1500])
def test_kill_9_loses_no_acknowledged_event(tmp_path: Path, acks: int) -> None:
    """Every acknowledged event is in the log that a killed process leaves; two processes in turn use one log."""
    acknowledged: list[tuple[bytes, int]] = []
    for run in range(2):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.writing_clients", str(tmp_path), str(run)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(acks)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        acknowledged += [(line.split()[0], int(line.split()[1])) for line in lines if line.endswith(b"\n")]
    stored = WriterRig(tmp_path).stored_ids()
    assert len(acknowledged) >= 2 * acks
    assert all(stored[seq - 1] == id_ for id_, seq in acknowledged)
    assert max(Counter(stored).values()) == 1
