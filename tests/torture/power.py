"""The power goes, and the disk keeps what was synced, and of the rest whatever it had got to.

A workload of appends, retries, admin calls, restarts, folding, publishing and checkpoints runs on a disk that records
it (platter.py). For any point of it the directory is made again as a disk may hold it after a loss of power there: all
that was synced, and of what was not, each sector of 512 bytes, each truncation and each name in a folder or not. Some
of these directories are worked on further, until the power goes again. In each the service is started as `softstep
serve` starts; every acknowledged event must be there once, in order, with its rows, the fold must be that of the plain
definition, and a retry of everything that was ever sent gets one seq. A refused start counts as a loss.

The controls run the same with `synchronous=NORMAL`, which does not sync each commit, and on a disk that lies about
syncs of files; there the same checker must see losses.
"""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import numpy as np

from service.commands.serve import _data
from service.errors import LogError, SoftstepError
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.settings import Settings
from service.store import database
from service.store.admin import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.audit import audit
from service.store.data import DataDirectory, StreamFolder
from service.store.existing import bound_artifact
from service.store.feedback import Accepted, Draft, Event, Kind, Position, Stream
from service.store.genesis import genesis
from service.store.rows import Targets, encode_rows
from service.store.snapshots import latest, read_snapshot, remove_strays, seqs
from service.store.sqlite import SqliteLog
from tests.serve.harness import make_artifact
from tests.store.faults import Fault
from tests.torture.line import Line
from tests.torture.plain import state, weights_of
from tests.torture.platter import NotedMarks, Platter, Surface

STATES: Final = 2000
CONTROL_STATES: Final = 200
# Of fewer, all may be well by chance.
CONTROL_STATES_MIN: Final = 50
# Of one recording; another one follows in the directory that the last one left.
STATES_OF_ONE: Final = 25
GENERATIONS: Final = 4
TURNS: Final = 24
N: Final = 3
BYTES_MAX: Final = 1 << 20
TAIL_EVENTS_MAX: Final = 8
ARTIFACT: Final = make_artifact("softmax", N, ["a", "b", "c"])
NORMAL: Final = tuple(
    ("synchronous", "normal", 1) if name == "synchronous" else (name, *rest) for name, *rest in database.PRAGMAS
)


class Sent(NamedTuple):
    """A draft that is about to be appended."""

    draft: Draft


class Told(NamedTuple):
    """An event that was acknowledged."""

    draft: Draft
    seq: int


class Life:
    """One process's life on a recorded disk: a worker and a learner in turns.

    Args:
        root: The folder that the data directory is in.
        seeded: What decides what is done.
        before: What was sent and told in earlier lives on this disk.
    """

    def __init__(self, root: Path, seeded: random.Random, before: list[Any]) -> None:
        self.platter = Platter(root)
        self.platter.ops += before
        self.began = len(self.platter.ops)
        self._root, self._seeded = root, seeded
        self._ids = [note.draft.id for note in before if isinstance(note, Told) and note.draft.kind == Kind.FEEDBACK]
        self._sent = [note.draft for note in before if isinstance(note, Sent)]
        self._next = len(self._sent)
        self._is_running = False
        self._unanswered: list[Draft] = []

    def run(self, turns: int) -> list[Any]:
        """What was done on the disk, with what was sent and told."""
        with self.platter.recording():
            while turns > 0:
                turns = self._process(turns)
        return self.platter.ops

    def _process(self, turns: int) -> int:
        """From a start to an end, which may come in the middle of a write; returns how many turns are left."""
        with self._start() as data:
            assert data is not None
            folder = data.stream("m", 1)
            folder.bind(ARTIFACT, BYTES_MAX)
            with closing(opened(data)) as log, closing(opened(data)) as its_log:
                stream = log.open_stream("m", 1, genesis(ARTIFACT), 3)
                marks = NotedMarks(data.marks(0), {stream.number}, self.platter)
                learner = Learner(stream, folder, its_log)
                # Where an earlier process has written them, nothing is written now: the answer rests on what was found.
                if self._unanswered:
                    self._send(log, stream, marks, self._unanswered)
                ended = False
                while turns and not ended:
                    turns -= 1
                    match self._seeded.choices(("append", "learn", "move", "die", "end"), (10, 8, 1, 3, 1))[0]:
                        case "append":
                            self._append(log, stream, marks)
                        case "learn":
                            learner.work(self._seeded)
                        case "move":
                            log.rewrite()
                        case "die":
                            self._die(log, stream, marks)
                            ended = True
                        case _:
                            ended = True
        self.platter.heal()
        return turns

    def _start(self) -> AbstractContextManager[DataDirectory | None]:
        """The start of a service, or of a process in place of one that died, which nobody checks the log for."""
        if self._is_running and self._seeded.random() < 0.5:
            return nullcontext(DataDirectory(self._root / "data"))
        self._is_running = True
        return _data(settings(self._root))

    def _die(self, log: SqliteLog, stream: Stream, marks: NotedMarks) -> None:
        """The process ends in the middle of an append: at one of its writes, or before it syncs what it has written."""
        if self._seeded.random() < 0.5:
            self.platter.fail(self._seeded.randint(0, 20), Fault.TORN, forever=True)
        else:
            self.platter.fail(0, Fault.IO, forever=True, operations=frozenset({"sync"}))
        with suppress(LogError):
            self._append(log, stream, marks)

    def _append(self, log: SqliteLog, stream: Stream, marks: NotedMarks) -> None:
        drafts = [self._draft(log, stream) for _ in range(self._seeded.randint(1, 4))]
        if self._sent and self._seeded.random() < 0.5:
            drafts.append(self._seeded.choice(self._sent))
        self._send(log, stream, marks, drafts)

    def _send(self, log: SqliteLog, stream: Stream, marks: NotedMarks, drafts: list[Draft]) -> None:
        self._unanswered = drafts
        self.platter.ops += map(Sent, drafts)
        self._sent += drafts
        outcomes = log.append(drafts)
        marks.set(stream.number, Position(*log.state(stream.number)[:2]))
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, Accepted):
                self.platter.ops.append(Told(draft, outcome.seq))
                if draft.kind == Kind.FEEDBACK:
                    self._ids.append(draft.id)
        self._unanswered = []

    def _draft(self, log: SqliteLog, stream: Stream) -> Draft:
        self._next += 1
        now = log.state(stream.number)
        kind, payload = Kind.FEEDBACK, rows(self._next, now.n_classes)
        match self._seeded.random() if self._ids else 1.0:
            case chance if chance < 0.06:
                kind, payload = Kind.FORGET, dump_forget_ids([self._seeded.choice(self._ids)])
            case chance if chance < 0.1:
                kind, payload = Kind.ROLLBACK, dump_seq(self._seeded.randint(0, now.seq))
            case chance if chance < 0.14:
                kind, payload = Kind.CLASSES, dump_classes([f"new {self._next}"])
            case chance if chance < 0.18:
                kind, payload = Kind.CONFIGURE, dump({"rule": self._seeded.choice(["ftrl", "adagrad", "newton"])})
        return Draft(stream.number, kind, b"%d-%d" % (self._seeded.getrandbits(60), self._next), payload, 0)


class Learner:
    """The learner's work on one stream, done by hand."""

    def __init__(self, stream: Stream, folder: StreamFolder, log: SqliteLog) -> None:
        remove_strays(folder.snapshots)
        remove_strays(folder.checkpoints)
        self._log = log
        self.follower = Follower(stream, bound_artifact(folder, stream, BYTES_MAX), log, folder)
        self._publisher = Publisher(self.follower, BYTES_MAX)

    def catch_up(self, limit: int = 16) -> None:
        """Fold all there is."""
        while events := self.follower.next_events(limit):
            self.follower.take(events)

    def work(self, seeded: random.Random) -> None:
        """Fold and give it away, in batches of any size, with a checkpoint now and then."""
        self.follow(seeded.randint(1, 8), checkpoint=seeded.random() < 0.5)

    def follow(self, limit: int = 16, *, checkpoint: bool = True) -> None:
        """Fold, publish, erase, tell, and keep a checkpoint where that is asked for."""
        self.catch_up(limit)
        publisher = self._publisher
        if publisher.is_due(float("inf")):
            publisher.publish(0.0, time.monotonic)
        if publisher.must_erase:
            publisher.erase()
            self._log.rewrite()
            publisher.erased()
        publisher.tell(0.0)
        publisher.checkpoint_if_due(idle=checkpoint)


def settings(root: Path) -> Settings:
    """Those of a service whose data directory is in a folder."""
    return Settings(data=root / "data", models=root / "models")


def opened(data: DataDirectory) -> SqliteLog:
    """A log that writes its index of ids often."""
    return SqliteLog(data.log, tail_events_max=TAIL_EVENTS_MAX)


def rows(seed: int, n_classes: int) -> bytes:
    """A feedback of one to three rows."""
    generator = np.random.default_rng(seed)
    B = int(generator.integers(1, 4))
    X = generator.standard_normal((B, N)).astype(np.float32)
    return encode_rows(X, generator.integers(0, n_classes, B), Targets.INDEX, n_classes)


# What must hold


def check(root: Path, notes: list[Any]) -> None:
    """Starts in a directory and holds what is there to what was sent and told.

    Raises:
        AssertionError, SoftstepError: Something is not as it must be.
    """
    with _data(settings(root)) as data:
        assert data is not None
        told = {note.draft.id: note.seq for note in notes if isinstance(note, Told)}
        sent = {note.draft.id: note.draft for note in notes if isinstance(note, Sent)}
        with closing(opened(data)) as log:
            streams = log.streams()
            assert streams or not told, "the stream is gone"
            if streams:
                _check_stream(data, log, streams[0], sent, told)
            log.check_file()


def _check_stream(
    data: DataDirectory, log: SqliteLog, stream: Stream, sent: dict[bytes, Draft], told: dict[bytes, int]
) -> None:
    folder = data.stream("m", 1)
    events = log.read(stream.number, 0, 9999)
    _check_events(events, sent, told)
    if events:
        for seq in seqs(folder.checkpoints):
            read_snapshot(folder.checkpoints / str(seq))
        newest = latest(folder.snapshots)
        assert newest is None or newest[0] <= len(events), "a state was published of events that are not there"
        _check_fold(folder, log, stream, events)
    # All that was sent is sent again.
    for id_, draft in sent.items():
        (outcome,) = log.append([draft])
        if id_ in told:
            assert isinstance(outcome, Accepted), "a retry was refused"
            assert (outcome.duplicate, outcome.seq) == (True, told[id_]), "a retry has another seq"
    events = log.read(stream.number, 0, 9999)
    _check_events(events, sent, told)
    if events:
        bound = folder.bind(ARTIFACT, BYTES_MAX)
        assert not bound.differs
        _check_fold(folder, log, stream, events)
    assert [seq for _, (seq, _) in audit(log, 9999)] == ([len(events)] if events else [])


def _check_events(events: list[Event], sent: dict[bytes, Draft], told: dict[bytes, int]) -> None:
    there = {event.id: event for event in events}
    assert len(there) == len(events), "an event is there twice"
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the order is another one"
    assert {id_: there[id_].seq if id_ in there else None for id_ in told} == told, "an acknowledged event is lost"
    assert there.keys() <= sent.keys(), "nobody sent that event"
    for id_, event in there.items():
        if event.kind == Kind.FEEDBACK and event.payload is not None:
            assert event.payload == sent[id_].payload, "an event has other rows"


def _check_fold(folder: StreamFolder, log: SqliteLog, stream: Stream, events: list[Event]) -> None:
    learner = Learner(stream, folder, log)
    learner.catch_up()
    expected = weights_of(state(ARTIFACT, events, len(events)))
    assert weights_of(learner.follower.fold) == expected, "the fold is another one"


# The campaign


def states(folder: Path, seed: int, count: int, *, lying: bool = False) -> Iterator[str | None]:
    """Lets the power go so often; gives for each state what does not hold, or None."""
    seeded = random.Random(seed)
    root, notes = folder / "disk", []  # type: ignore[var-annotated]
    for number in range(count):
        if number % (STATES_OF_ONE * GENERATIONS) == 0:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            notes = []
        if number % STATES_OF_ONE == 0:
            life = Life(root, seeded, notes)
            ops = life.run(TURNS)
            cuts = _cuts(ops, life.began, seeded)
            surface, done = Surface(root, lying=lying), 0
        cut = cuts[number % STATES_OF_ONE]
        for op in ops[done:cut]:
            surface.do(op)
        done, after = cut, folder / "after"
        surface.left(after, seeded)
        told = [op for op in ops[:cut] if isinstance(op, Sent | Told)]
        is_last = number % STATES_OF_ONE == STATES_OF_ONE - 1
        if is_last:
            shutil.copytree(after, folder / "next")
        wrong = _wrong(after, told)
        shutil.rmtree(after)
        if is_last:
            shutil.rmtree(root)
            (folder / "next").rename(root)
            notes = told
            if wrong is not None:  # nothing can be begun there
                shutil.rmtree(root)
                root.mkdir()
                notes = []
        yield wrong


def _cuts(ops: list[Any], began: int, seeded: random.Random) -> list[int]:
    """Where the power goes: anywhere, and more often than by chance just after an answer."""
    answers = [at + 1 for at in range(began, len(ops)) if isinstance(ops[at], Told)]
    cuts = [*seeded.choices(answers, k=STATES_OF_ONE // 2)] if answers else []
    return sorted(cuts + seeded.choices(range(began, len(ops) + 1), k=STATES_OF_ONE - len(cuts)))


def _wrong(root: Path, notes: list[Any]) -> str | None:
    try:
        check(root, notes)
    except LogError as reason:
        return f"the start was refused: {reason}"
    except (AssertionError, SoftstepError) as reason:
        return str(reason).split("\n", maxsplit=1)[0]
    return None


def told_of(wrongs: list[str | None]) -> str:
    """How often each thing went wrong."""
    kinds = sorted({wrong for wrong in wrongs if wrong is not None})
    return "; ".join(f"{wrongs.count(kind)} times {kind}" for kind in kinds)


def power(folder: Path, share: float = 1.0) -> Iterator[Line]:
    """The campaign."""
    wrongs = list(states(folder, 1, max(1, round(STATES * share))))
    yield Line(
        "loss of power, unsynced sectors and names kept or not",
        len(wrongs),
        STATES,
        len(wrongs) - wrongs.count(None),
        told_of(wrongs),
    )
    count = max(CONTROL_STATES_MIN, round(CONTROL_STATES * share))
    with patch.object(database, "PRAGMAS", NORMAL):
        yield _control("synchronous=NORMAL", list(states(folder, 2, count)))
    yield _control("a disk that lies about syncs", list(states(folder, 3, count, lying=True)))


def _control(name: str, wrongs: list[str | None]) -> Line:
    seen = len(wrongs) - wrongs.count(None)
    note = f"the control: {seen} of the states show a loss, as some must"
    return Line(f"loss of power with {name}", len(wrongs), CONTROL_STATES, 0 if seen else len(wrongs), note)
