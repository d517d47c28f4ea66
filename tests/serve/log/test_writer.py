"""Whoever posts feedback is told the truth about it, once it is on disk, in the order of the posts, and always.

Real files, a real thread, a real loop. Faults come from a log whose `append` can be made to fail.
"""

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
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
from service.process.wakeup import Wakeup
from service.serve.log import writer_thread as scribe
from service.serve.log.writer import (
    Writer,
)
from service.serve.log.writer_thread import Source, WriterCallbacks
from service.serve.metrics.counters import (
    FEEDBACK_COUNTERS,
    FEEDBACK_EVENTS,
    FEEDBACK_REFUSALS,
)
from service.serve.wire.feedback_body import FeedbackParser, PostedEvent
from service.serve.wire.feedback_tokens import TokenKeys, TokenSealer
from service.serve.wire.labels import LabelParser
from service.serve.wire.rows import RowParser
from service.store.log.admin_payloads import dump_classes
from service.store.log.events import Draft, EventLocation, Kind, Outcome, Position, Stream
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from tests.support.servers import ROOT

GENESIS = bytes(range(32))
SECONDS = 20.0


def cells(count: int) -> memoryview:
    return memoryview(bytearray(8 * count)).cast("q")


def source(**changes: Any) -> Source:
    return Source("iris", 1, (GENESIS,), 3, 0, cells(FEEDBACK_COUNTERS))._replace(**changes)


def post(name: str, value: float = 0.0, rows: int = 1) -> PostedEvent:
    payload = encode_rows(np.full((rows, 4), value, "f4"), np.ones(rows, int), Targets.INDEX, 3)
    return PostedEvent(name.encode(), payload, rows)


class Log(SqliteLog):
    """Raises what it is given, before or after a commit, and remembers how it was used."""

    def __init__(self, path: Path, rig: "Rig", **limits: int) -> None:
        super().__init__(path, **limits)
        self.rig = rig

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        self.rig.batches.append(len(drafts))
        self.rig.threads.add(threading.get_ident())
        if self.rig.before:
            raise self.rig.before.pop(0)
        outcomes = super().append(drafts)
        self.rig.committed += sum(type(outcome) is EventLocation for outcome in outcomes)
        if self.rig.after:
            raise self.rig.after.pop(0)
        return outcomes

    def close(self) -> None:
        super().close()
        self.rig.closed += 1


class Rig:
    """A writer on a log in a folder, and what it did."""

    def __init__(self, folder: Path, *, drafts_max: int = 1000, bytes_max: int = 1 << 20, **limits: int) -> None:
        self.path = folder / "log.sqlite"
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.before: list[BaseException] = []
        self.after: list[BaseException] = []
        self.unopened: list[BaseException] = []
        self.unbound: list[BaseException] = []
        self.unmarked: list[BaseException] = []
        self.bound: list[Source] = []
        self.marks: list[tuple[int, Position]] = []
        self.committed = self.closed = self.opened = 0
        self.limits = limits
        self.bell = Wakeup()
        self.commits: list[int] = []
        callbacks = WriterCallbacks(self.open, self.bind, self.mark, self.bell, self.commits.append)
        self.writer = Writer(callbacks, drafts_max, bytes_max)

    def open(self) -> Log:
        self.opened += 1
        if self.unopened:
            raise self.unopened.pop(0)
        return Log(self.path, self, **self.limits)

    def bind(self, of: Source) -> None:
        self.bound.append(of)
        if self.unbound:
            raise self.unbound.pop(0)

    def mark(self, stream: int, position: Position) -> None:
        if self.unmarked:
            raise self.unmarked.pop(0)
        self.marks.append((stream, position))

    def rang(self) -> bool:
        """Whether the bell rang since the last time it was asked."""
        heard = bool(select.select([self.bell.fd], [], [], 0)[0])
        self.bell.clear()
        return heard

    def run(self, play: Callable[[Writer], Awaitable[None]]) -> None:
        """Let a coroutine use the writer, in time, and close it."""

        async def whole() -> None:
            self.writer.start()
            try:
                await asyncio.wait_for(play(self.writer), SECONDS)  # type: ignore[arg-type]
            finally:
                await asyncio.wait_for(self.writer.close(), SECONDS)

        uvloop.run(whole())

    def stored(self) -> list[bytes]:
        """The ids of all events on disk, by position."""
        log = SqliteLog(self.path)
        events = [event.id for stream in log.list_streams() for event in log.read_events(stream.number, 0, 10**6)]
        log.close()
        return events


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# What is told


def test_an_event_is_on_disk_marked_and_rung_when_it_is_told(rig: Rig) -> None:
    of = source()

    async def play(writer: Writer) -> None:
        assert await writer.submit_event(of, post("a", rows=3)) == EventLocation(1, 1)
        assert rig.committed == 1
        assert [(stream, position.seq) for stream, position in rig.marks] == [(1, 1)]
        assert rig.rang()
        assert rig.stored() == [b"a"]
        assert writer.waiting == 0

    rig.run(play)
    log = SqliteLog(rig.path)
    (event,) = log.read_events(1, 0, 10)
    assert rig.marks == [(1, Position(1, event.hash))]
    assert log.list_streams() == [Stream(1, "iris", 1, GENESIS, 3)]
    assert (event.payload, event.kind) == (post("a", rows=3).payload, Kind.FEEDBACK)
    assert of.counters.tolist() == [1, 3, 0, 0]
    (nanoseconds,) = rig.commits
    assert nanoseconds > 0


def test_a_retry_is_told_the_same_seq(rig: Rig) -> None:
    """And nothing is rung or marked for it; another event under the same id is refused."""
    of = source()

    async def play(writer: Writer) -> None:
        await writer.submit_event(of, post("a"))
        assert rig.rang()
        assert await writer.submit_event(of, post("a")) == EventLocation(1, 1, duplicate=True)
        assert not rig.rang()
        with pytest.raises(IdConflictError):
            await writer.submit_event(of, post("a", 1.0))
        assert len(rig.marks) == 1

    rig.run(play)
    assert of.counters.tolist() == [1, 1, 1, 1]


def test_posts_of_one_turn_are_one_batch_in_their_order(rig: Rig) -> None:
    async def play(writer: Writer) -> None:
        of = source()
        futures = [writer.submit_event(of, post(f"e{n}")) for n in range(100)]
        assert [(await future).seq for future in futures] == list(range(1, 101))

    rig.run(play)
    assert rig.batches == [100]
    assert rig.stored() == [b"e%d" % n for n in range(100)]


def test_a_batch_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its events and by its bytes; a larger post goes alone."""
    monkeypatch.setattr(scribe, "BATCH_EVENTS_MAX", 8)
    monkeypatch.setattr(scribe, "BATCH_BYTES_MAX", 3 * len(post("", rows=10).payload))

    async def play(writer: Writer) -> None:
        of = source()
        await asyncio.gather(*(writer.submit_event(of, post(f"e{n}")) for n in range(20)))
        assert rig.batches == [8, 8, 4]
        await asyncio.gather(*(writer.submit_event(of, post(f"l{n}", rows=10)) for n in range(4)))
        assert rig.batches[3:] == [3, 1]
        await asyncio.gather(*(writer.submit_event(of, post(f"x{n}", rows=(1, 99, 1)[n])) for n in range(3)))
        assert rig.batches[5:] == [1, 1, 1]
        assert len(await writer.submit_events(of, [post(f"t{n}") for n in range(30)])) == 30
        assert rig.batches[8:] == [30]

    rig.run(play)


def test_several_events_of_one_request_share_a_transaction(rig: Rig) -> None:
    """Each has its own outcome."""
    of = source()

    async def play(writer: Writer) -> None:
        await writer.submit_event(of, post("a"))
        outcomes = await writer.submit_events(of, [post("b"), post("a"), post("a", 2.0), post("c"), post("c")])
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [EventLocation, EventLocation, IdConflictError, EventLocation, EventLocation]
        assert [outcome for outcome in outcomes if isinstance(outcome, EventLocation)] == [
            EventLocation(1, 2),
            EventLocation(1, 1, duplicate=True),
            EventLocation(1, 3),
            EventLocation(1, 3, duplicate=True),
        ]

    rig.run(play)
    assert rig.batches == [1, 5]
    assert of.counters.tolist() == [3, 3, 2, 1]


def test_admin_events_go_the_same_way(rig: Rig) -> None:
    """Labels that were read with the classes of before are refused then; the class set moved."""
    of = source()

    async def play(writer: Writer) -> None:
        added = PostedEvent(b"add", dump_classes(["new"]), 0)
        with pytest.raises(SeqMovedError):
            await writer.submit_event(of, added, Kind.CLASSES, if_seq=1)
        first, second, third = (
            writer.submit_event(of, post("a")),
            writer.submit_event(of, added, Kind.CLASSES, if_seq=1),
            writer.submit_event(of, post("b")),
        )
        assert [(await first).seq, (await second).seq] == [1, 2]
        with pytest.raises(ClassesChangedError):
            await third
        assert (await writer.submit_event(of._replace(class_epoch=2), post("b"))).seq == 3

    rig.run(play)
    assert [of.counters[cell] for cell in (FEEDBACK_EVENTS, FEEDBACK_REFUSALS)] == [2, 1]


def test_a_token_is_one_event_however_often_it_is_posted(rig: Rig) -> None:
    """From the body to the disk; another label for it is another event under its id."""
    rows, labels = RowParser(4, np.dtype(np.float32), 100, 64), LabelParser(["a", "b", "c"], multilabel=False)
    tokens = TokenSealer(TokenKeys([bytes(32)]), "iris", 1, GENESIS, 4, rows.dtype, 60.0, lambda: 0)
    posts = FeedbackParser(rows, labels, tokens.open_token)
    first, second = tokens.seal_rows(np.ones((2, 4), np.float32))

    async def post_tokens(writer: Writer, names: list[str], targets: list[Any]) -> list[Outcome]:
        read = posts.parse_feedback(orjson.dumps({"tokens": names, "labels": targets}))
        assert isinstance(read, list)
        return await writer.submit_events(source(), read)

    async def play(writer: Writer) -> None:
        assert await post_tokens(writer, [first], [0]) == [EventLocation(1, 1)]
        assert await post_tokens(writer, [second, first], ["b", "a"]) == [
            EventLocation(1, 2),
            EventLocation(1, 1, True),
        ]
        (refused,) = await post_tokens(writer, [first], [2])
        assert isinstance(refused, IdConflictError)

    rig.run(play)
    assert [id_.decode() for id_ in rig.stored()] == [tokens.open_token(token)[0].decode() for token in (first, second)]


# Limits


def test_too_much_that_waits_is_refused(tmp_path: Path) -> None:
    """Until it is written."""
    rig = Rig(tmp_path, drafts_max=10)

    async def play(writer: Writer) -> None:
        of = source()
        for turn in range(3):
            futures = [writer.submit_event(of, post(f"{turn}-{n}")) for n in range(10)]
            assert writer.waiting == 10
            with pytest.raises(QueueFullError):
                writer.submit_event(of, post("more"))
            with pytest.raises(QueueFullError):
                writer.submit_events(of, [post("more")])
            await asyncio.gather(*futures)

    rig.run(play)
    assert b"more" not in rig.stored()


def test_too_many_bytes_that_wait_are_refused(tmp_path: Path) -> None:
    """A post that is larger than the limit is taken when nothing else waits, or it could never be."""
    size = len(post("", rows=10).payload)
    rig = Rig(tmp_path, bytes_max=2 * size)

    async def play(writer: Writer) -> None:
        of = source()
        for turn in "ab":
            futures = [writer.submit_event(of, post(f"{turn}{n}", rows=10)) for n in range(2)]
            with pytest.raises(QueueFullError):
                writer.submit_event(of, post("c"))
            await asyncio.gather(*futures)
        await writer.submit_event(of, post("d", rows=100))

    rig.run(play)
    assert rig.stored() == [b"a0", b"a1", b"b0", b"b1", b"d"]


def test_a_full_disk_refuses_feedback(tmp_path: Path) -> None:
    rig = Rig(tmp_path, reserve_bytes=1 << 60)

    async def play(writer: Writer) -> None:
        of = source()
        with pytest.raises(LogFullError):
            await writer.submit_event(of, post("a"))
        assert (await writer.submit_event(of, PostedEvent(b"add", dump_classes(["new"]), 0), Kind.CLASSES)).seq == 1

    rig.run(play)


# Faults


@pytest.mark.parametrize("error", [LogUnavailableError("busy"), OutcomeUnknownError("disk"), LogDamagedError("lost")])
def test_a_log_that_fails_is_told_to_everybody_in_the_batch(rig: Rig, error: Exception) -> None:
    """Each gets an exception of their own; what comes next is written."""

    async def play(writer: Writer) -> None:
        of = source()
        rig.before.append(error)
        failed = await asyncio.gather(
            *(writer.submit_event(of, post(f"a{n}")) for n in range(5)), return_exceptions=True
        )
        assert [(type(reason), str(reason)) for reason in failed] == [(type(error), str(error))] * 5
        assert len(set(map(id, failed))) == 5
        assert (await writer.submit_event(of, post("b"))).seq == 1
        assert writer.waiting == 0

    rig.run(play)
    assert rig.opened == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_a_thread_that_breaks_goes_on(rig: Rig, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What it wrote is there or not: a retry with the same id tells. The log is opened anew."""

    async def play(writer: Writer) -> None:
        of = source()
        rig.after.append(error)
        broken = writer.submit_event(of, post("a"))
        with pytest.raises(OutcomeUnknownError):
            await broken
        assert await writer.submit_event(of, post("a")) == EventLocation(1, 1, duplicate=True)
        assert (await writer.submit_event(of, post("b"))).seq == 2

    rig.run(play)
    assert (rig.opened, rig.closed) == (2, 2)
    assert "writing feedback failed" in caplog.text


def test_a_log_that_cannot_be_opened_is_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """With each batch, and the reason is told once until something is written."""
    rig.unopened += [LogUnavailableError("held")] * 3

    async def play(writer: Writer) -> None:
        for _ in range(3):
            with pytest.raises(LogUnavailableError, match="held"):
                await writer.submit_event(source(), post("a"))
        assert caplog.text.count("feedback is not written: held") == 1
        assert (await writer.submit_event(source(), post("a"))).seq == 1
        rig.before.append(LogUnavailableError("held"))
        with pytest.raises(LogUnavailableError, match="held"):
            await writer.submit_event(source(), post("a"))

    rig.run(play)
    assert caplog.text.count("feedback is not written: held") == 2


@pytest.mark.parametrize(
    ("error", "told"), [(ArtifactError("the copy failed"), ArtifactError), (OSError(28, "full"), LogUnavailableError)]
)
def test_an_artifact_that_cannot_be_bound_stops_its_own_feedback_alone(
    rig: Rig, error: Exception, told: type[Exception]
) -> None:
    rig.unbound.append(error)

    async def play(writer: Writer) -> None:
        of, other = source(), source(model="digits")
        first, second = writer.submit_event(of, post("a")), writer.submit_event(other, post("b"))
        with pytest.raises(told):
            await first
        assert (await second).seq == 1
        assert (await writer.submit_event(of, post("a"))).seq == 1
        await writer.submit_event(of, post("c"))

    rig.run(play)
    assert [bound.model for bound in rig.bound] == ["iris", "digits", "iris"]


def test_an_artifact_that_was_changed_is_refused(rig: Rig) -> None:
    """Its feedback would be folded into another one; the stream keeps the genesis that it began with."""

    async def play(writer: Writer) -> None:
        await writer.submit_event(source(), post("a"))
        for _ in range(2):
            with pytest.raises(ArtifactChangedError):
                await writer.submit_event(source(geneses=(bytes(32),)), post("b"))
        assert (await writer.submit_event(source(), post("c"))).seq == 2

    rig.run(play)


def test_a_stream_that_was_purged_begins_anew(rig: Rig) -> None:
    async def play(writer: Writer) -> None:
        assert await writer.submit_event(source(), post("a")) == EventLocation(1, 1)
        await writer.call_with_log(lambda log: log.purge_stream(1))
        with pytest.raises(StreamGoneError):
            await writer.submit_event(source(), post("a"))
        assert await writer.submit_event(source(), post("a")) == EventLocation(2, 1)

    rig.run(play)


def test_feedback_that_cannot_be_marked_is_told_all_the_same(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is on disk, and the learner is to know."""
    rig.unmarked.append(LogDamagedError("no room"))

    async def play(writer: Writer) -> None:
        assert (await writer.submit_event(source(), post("a"))).seq == 1
        assert rig.rang()

    rig.run(play)
    assert "cannot be marked" in caplog.text


def test_a_client_that_left_hinders_nobody(rig: Rig) -> None:
    async def play(writer: Writer) -> None:
        of = source()
        gone, here = writer.submit_event(of, post("a")), writer.submit_event(of, post("b"))
        gone.cancel()
        assert (await here).seq == 2
        assert writer.waiting == 0

    rig.run(play)
    assert rig.stored() == [b"a", b"b"]


# Calls


def test_a_call_has_the_log_to_itself_in_its_turn(rig: Rig) -> None:
    """Behind what was submitted before it, and in the thread that writes."""

    async def play(writer: Writer) -> None:
        of = source()
        futures = [writer.submit_event(of, post(f"a{n}")) for n in range(3)]
        seen = writer.call_with_log(lambda log: (log.stream_state(1).seq, threading.get_ident()))
        last = writer.submit_event(of, post("b"))
        seq, thread = await seen
        assert (seq, {thread}) == (3, rig.threads)
        assert (await last).seq == 4
        assert all(future.done() for future in futures)
        with pytest.raises(StreamGoneError):
            await writer.call_with_log(lambda log: log.stream_state(99))
        with pytest.raises(ZeroDivisionError):
            await writer.call_with_log(lambda _log: 1 // 0)
        assert rig.opened == 1

    rig.run(play)
    assert rig.batches == [3, 1]


# The end


def test_what_waits_at_the_end_is_written(rig: Rig) -> None:
    """And told, and nothing more is taken."""
    of = source()
    before = set(threading.enumerate())

    async def play(writer: Writer) -> None:
        await writer.submit_event(of, post("first"))
        futures = [writer.submit_event(of, post(f"e{n}")) for n in range(50)]
        await writer.close()
        assert [future.result().seq for future in futures] == list(range(2, 52))
        for take in (
            lambda: writer.submit_event(of, post("late")),
            lambda: writer.call_with_log(lambda log: log.list_streams()),
        ):
            with pytest.raises(LogUnavailableError, match="stopping"):
                take()

    rig.run(play)
    assert (rig.opened, rig.closed) == (1, 1)
    assert len(rig.stored()) == 51
    assert "writer" not in [thread.name for thread in set(threading.enumerate()) - before]


def test_a_loop_that_is_gone_leaves_no_thread_behind(rig: Rig) -> None:
    """The thread commits what it has, finds nobody to tell, and ends when it is told to."""

    async def begin() -> None:
        rig.writer.start()
        rig.writer.submit_event(source(), post("a"))
        await asyncio.sleep(0)

    uvloop.run(begin())
    rig.writer._queue.put(None)
    rig.writer._thread.join(SECONDS)
    assert not rig.writer._thread.is_alive()
    assert rig.stored() == [b"a"]


# Many at once


def test_many_connections_lose_nothing_and_keep_their_order(tmp_path: Path) -> None:
    """Two workers on one log, 24 clients each; every client's events have rising seqs, and each seq is one event's."""
    rigs = [Rig(tmp_path), Rig(tmp_path)]
    told: dict[bytes, int] = {}

    async def client(writer: Writer, name: str) -> None:
        of, last = source(), 0
        for n in range(30):
            event = post(f"{name}-{n}")
            accepted = await writer.submit_event(of, event)
            assert accepted.seq > last
            told[event.id] = last = accepted.seq
            if n % 7 == 0:
                assert await writer.submit_event(of, event) == EventLocation(1, last, duplicate=True)

    async def play() -> None:
        for rig in rigs:
            rig.writer.start()
        clients = (client(rig.writer, f"{w}-{c}") for w, rig in enumerate(rigs) for c in range(24))
        await asyncio.wait_for(asyncio.gather(*clients), 2 * SECONDS)
        for rig in rigs:
            await rig.writer.close()

    uvloop.run(play())
    assert sorted(told.values()) == list(range(1, 2 * 24 * 30 + 1))
    assert rigs[0].stored() == sorted(told, key=lambda id_: told[id_])
    assert all(len(rig.batches) < 24 * 30 for rig in rigs)


PROGRAM = """
import asyncio, os, sys
from pathlib import Path
import uvloop
sys.path.insert(0, os.getcwd())
from tests.serve.log.test_writer import Rig, post, source

async def client(writer, name):
    of, n = source(), 0
    while True:
        accepted = await writer.submit_event(of, post(f"{name}-{n}"))
        os.write(1, f"{name}-{n} {accepted.seq}\\n".encode())
        n += 1

async def main():
    rig = Rig(Path(sys.argv[1]))
    rig.writer.start()
    await asyncio.gather(*(client(rig.writer, f"{sys.argv[2]}-{c}") for c in range(16)))

uvloop.run(main())
"""


@pytest.mark.parametrize("acks", [1, 1500])
def test_kill_9_takes_nothing_that_was_told(tmp_path: Path, acks: int) -> None:
    """A ledger of acknowledgements, held to the log that a killed process left; twice on one log."""
    ledger: list[tuple[bytes, int]] = []
    for life in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(life)], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(acks)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        ledger += [(line.split()[0], int(line.split()[1])) for line in lines if line.endswith(b"\n")]
    stored = Rig(tmp_path).stored()
    assert len(ledger) >= 2 * acks
    assert all(stored[seq - 1] == id_ for id_, seq in ledger)
    assert max(Counter(stored).values()) == 1
