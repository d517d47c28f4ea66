"""Lives of a worker and a learner on a recorded disk: what they send, what is acknowledged, and how they end."""

import random
import time
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from service.commands.serve import open_data
from service.errors import LogError
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.settings import Settings
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.directory.offline import read_bound_artifact
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, EventLocation, Kind, Position, Stream
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import delete_temporary_files
from tests.support.disk_faults import Fault
from tests.support.servers import make_artifact
from tests.torture.simulated_disk import NotedMarks, Platter

N: Final = 3
BYTES_MAX: Final = 1 << 20
TAIL_EVENTS_MAX: Final = 8
ARTIFACT: Final = make_artifact("softmax", N, ["a", "b", "c"])


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
            folder = data.stream_folder("m", 1)
            folder.bind_artifact(ARTIFACT, BYTES_MAX)
            with closing(opened(data)) as log, closing(opened(data)) as its_log:
                stream = log.open_stream("m", 1, compute_genesis(ARTIFACT), 3)
                marks = NotedMarks(data.mark_file(0), {stream.number}, self.platter)
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
                            log.empty_wal()
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
        return open_data(settings(self._root))

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
        marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, EventLocation):
                self.platter.ops.append(Told(draft, outcome.seq))
                if draft.kind == Kind.FEEDBACK:
                    self._ids.append(draft.id)
        self._unanswered = []

    def _draft(self, log: SqliteLog, stream: Stream) -> Draft:
        self._next += 1
        now = log.stream_state(stream.number)
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
        delete_temporary_files(folder.snapshots)
        delete_temporary_files(folder.checkpoints)
        self._log = log
        self.follower = Follower(stream, read_bound_artifact(folder, stream, BYTES_MAX), log, folder)
        self._publisher = Publisher(self.follower, BYTES_MAX)

    def catch_up(self, limit: int = 16) -> None:
        """Fold all there is."""
        while events := self.follower.read_next(limit):
            self.follower.fold_batch(events)

    def work(self, seeded: random.Random) -> None:
        """Fold and give it away, in batches of any size, with a checkpoint now and then."""
        self.follow(seeded.randint(1, 8), checkpoint=seeded.random() < 0.5)

    def follow(self, limit: int = 16, *, checkpoint: bool = True) -> None:
        """Fold, publish, erase, tell, and keep a checkpoint where that is asked for."""
        self.catch_up(limit)
        publisher = self._publisher
        if publisher.is_due(float("inf")):
            publisher.publish_snapshot(0.0, time.process_time)
        if publisher.needs_erasure:
            publisher.erase_forgotten()
            self._log.empty_wal()
            publisher.mark_erased()
        publisher.report_status(0.0)
        publisher.write_checkpoint_if_due(idle=checkpoint)


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
