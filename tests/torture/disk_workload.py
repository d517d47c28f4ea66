"""A worker and a learner on a recorded disk: what they send, what is acknowledged, and how they end."""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from service.commands.serve import open_data
from service.errors import LogError
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.settings import Settings
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact, read_bound_artifact
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, EventLocation, Kind, Position, Stream
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.sqlite import SqliteLog
from service.store.states.state_folder import delete_temporary_files
from tests.support.disk_faults import Fault
from tests.support.model_artifacts import make_artifact
from tests.support.sparse_streams import sparse_artifact, sparse_payload
from tests.torture.recording_disk import RecordedMarks, RecordingDisk

N: Final = 3
BYTES_MAX: Final = 1 << 20
TAIL_EVENTS_MAX: Final = 8
ARTIFACT: Final = make_artifact("softmax", N, ["a", "b", "c"])
ACTORS: Final = (b"", b"key:one", b"key:another")


class ModelWorkload(NamedTuple):
    """A model, and the payloads of its feedback.

    Attributes:
        name: Its name in reports.
        artifact: Its artifact.
        make_rows: Returns the payload of a feedback event, given a seed and the number of classes.
    """

    name: str
    artifact: Artifact
    make_rows: Callable[[int, int], bytes]


class Sent(NamedTuple):
    """A note on the disk: this draft is about to be appended."""

    draft: Draft


class Acknowledged(NamedTuple):
    """A note on the disk: this event was acknowledged."""

    draft: Draft
    seq: int


class DiskWorkload:
    """Processes on a recorded disk, one after another; each is a worker and a learner that take turns.

    Args:
        root: The folder that holds the data directory.
        rng: Decides every action.
        earlier: The notes of earlier workloads on this disk.
    """

    def __init__(self, root: Path, rng: random.Random, earlier: list[Any]) -> None:
        self.disk = RecordingDisk(root)
        self.disk.operations += earlier
        self.first = len(self.disk.operations)
        self._root, self._rng = root, rng
        accepted = [note.draft for note in earlier if isinstance(note, Acknowledged)]
        self._ids = [draft.id for draft in accepted if draft.kind == Kind.FEEDBACK]
        self._sent = [note.draft for note in earlier if isinstance(note, Sent)]
        self._next = len(self._sent)
        self._is_running = False
        self._unacknowledged: list[Draft] = []

    def run(self, actions: int) -> list[Any]:
        """Run that many actions; return the operations of the disk, with the notes."""
        with self.disk.recording():
            while actions > 0:
                actions = self._run_process(actions)
        return self.disk.operations

    def _run_process(self, actions: int) -> int:
        """Run one process until it exits or crashes in a write; return how many actions are left."""
        with self._start() as data:
            assert data is not None
            folder = data.stream_folder("m", 1)
            bind_artifact(folder, ARTIFACT, BYTES_MAX)
            with closing(open_log(data)) as log, closing(open_log(data)) as learner_log:
                stream = log.open_stream("m", 1, compute_genesis(ARTIFACT), 3)
                marks = RecordedMarks(data.mark_file(0), {stream.number}, self.disk)
                learner = InlineLearner(stream, folder, learner_log)
                # If the earlier process had written these, nothing is written now; the answer comes from the log.
                if self._unacknowledged:
                    self._send(log, stream, marks, self._unacknowledged)
                has_ended = False
                while actions and not has_ended:
                    actions -= 1
                    action = self._rng.choices(("append", "learn", "move", "crash", "exit"), (10, 8, 1, 3, 1))[0]
                    match action:
                        case "append":
                            self._append(log, stream, marks)
                        case "learn":
                            learner.learn_randomly(self._rng)
                        case "move":  # the write-ahead log into the database
                            log.empty_wal()
                        case "crash":
                            self._crash(log, stream, marks)
                    has_ended = action in {"crash", "exit"}
        self.disk.heal()
        return actions

    def _start(self) -> AbstractContextManager[DataDirectory | None]:
        """Start a service; or replace a crashed process, for which nothing checks the log."""
        if self._is_running and self._rng.random() < 0.5:
            return nullcontext(DataDirectory(self._root / "data"))
        self._is_running = True
        return open_data(workload_settings(self._root))

    def _crash(self, log: SqliteLog, stream: Stream, marks: RecordedMarks) -> None:
        """End the process within an append: at one of its writes, or before it syncs them."""
        if self._rng.random() < 0.5:
            self.disk.fail(self._rng.randint(0, 20), Fault.TORN, forever=True)
        else:
            self.disk.fail(0, Fault.IO, forever=True, operations=frozenset({"sync"}))
        with suppress(LogError):
            self._append(log, stream, marks)

    def _append(self, log: SqliteLog, stream: Stream, marks: RecordedMarks) -> None:
        drafts = [self._make_draft(log, stream) for _ in range(self._rng.randint(1, 4))]
        if self._sent and self._rng.random() < 0.5:
            drafts.append(self._rng.choice(self._sent))
        self._send(log, stream, marks, drafts)

    def _send(self, log: SqliteLog, stream: Stream, marks: RecordedMarks, drafts: list[Draft]) -> None:
        self._unacknowledged = drafts
        self.disk.operations += map(Sent, drafts)
        self._sent += drafts
        outcomes = log.append(drafts)
        marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if isinstance(outcome, EventLocation):
                self.disk.operations.append(Acknowledged(draft, outcome.seq))
                if draft.kind == Kind.FEEDBACK:
                    self._ids.append(draft.id)
        self._unacknowledged = []

    def _make_draft(self, log: SqliteLog, stream: Stream) -> Draft:
        self._next += 1
        now = log.stream_state(stream.number)
        kind, payload = Kind.FEEDBACK, make_rows(self._next, now.n_classes)
        match self._rng.random() if self._ids else 1.0:
            case chance if chance < 0.06:
                kind, payload = Kind.FORGET, dump_forget_ids([self._rng.choice(self._ids)])
            case chance if chance < 0.1:
                kind, payload = Kind.ROLLBACK, dump_seq(self._rng.randint(0, now.seq))
            case chance if chance < 0.14:
                kind, payload = Kind.CLASSES, dump_classes([f"new {self._next}"])
            case chance if chance < 0.18:
                kind, payload = Kind.CONFIGURE, dump({"rule": self._rng.choice(["ftrl", "adagrad", "newton"])})
            case chance if chance < 0.24:
                kind, payload = Kind.CORRECT, self._make_correction(log, stream)
        id_, actor = b"%d-%d" % (self._rng.getrandbits(60), self._next), ACTORS[self._next % len(ACTORS)]
        return Draft(stream.number, kind, id_, payload, 0, actor=actor)

    def _make_correction(self, log: SqliteLog, stream: Stream) -> bytes:
        """Return the payload of a CORRECT of a random event, which the log may refuse."""
        place = log.find_ids(stream.model, [self._rng.choice(self._ids)])
        (seq,) = (one.seq for one in place.values())
        payload = log.read_events(stream.number, seq - 1, 1)[0].payload
        layout = parse_layout(payload or make_rows(self._next, 3))
        targets = np.array([self._rng.randrange(layout.n_classes) for _ in range(layout.rows)])
        return encode_correction(seq, layout, Targets.INDEX, targets)


class InlineLearner:
    """The learner's work on one stream, called from the process of the test."""

    def __init__(self, stream: Stream, folder: StreamFolder, log: SqliteLog) -> None:
        delete_temporary_files(folder.snapshots)
        delete_temporary_files(folder.checkpoints)
        self._log = log
        self.follower = Follower(stream, read_bound_artifact(folder, stream, BYTES_MAX), log, folder)
        self._publisher = Publisher(self.follower, BYTES_MAX)

    def catch_up(self, limit: int = 16) -> None:
        """Fold every event."""
        while events := self.follower.read_next(limit):
            self.follower.fold_batch(events)

    def learn_randomly(self, rng: random.Random) -> None:
        """Fold and publish in batches of random size, and with a checkpoint in half of the cases."""
        self.learn(rng.randint(1, 8), checkpoint=rng.random() < 0.5)

    def learn(self, limit: int = 16, *, checkpoint: bool = True) -> None:
        """Fold, publish, erase and report every event, and write a checkpoint on request."""
        self.catch_up(limit)
        publisher = self._publisher
        if publisher.is_due(float("inf")):
            publisher.publish_snapshot(0.0, time.process_time)
        if publisher.needs_erasure:
            publisher.erase_forgotten()
            self._log.empty_wal()
            publisher.mark_erased(self.follower.epoch)
        publisher.report_status(0.0)
        publisher.write_checkpoint_if_due(idle=checkpoint)


def workload_settings(root: Path) -> Settings:
    """Return the settings of a service whose data directory is in a folder."""
    return Settings(data=root / "data", models=root / "models")


def open_log(data: DataDirectory) -> SqliteLog:
    """Open a log that writes its id index often."""
    return SqliteLog(data.log, tail_events_max=TAIL_EVENTS_MAX)


def make_rows(seed: int, n_classes: int) -> bytes:
    """Return the payload of a feedback event with one to three rows."""
    generator = np.random.default_rng(seed)
    B = int(generator.integers(1, 4))
    X = generator.standard_normal((B, N)).astype(np.float32)
    return encode_rows(X, generator.integers(0, n_classes, B), Targets.INDEX, n_classes)


def make_sparse_rows(seed: int, n_classes: int) -> bytes:
    """Return the payload of a feedback event with one to three sparse rows."""
    generator = np.random.default_rng(seed)
    return sparse_payload(generator, int(generator.integers(1, 4)), n_classes)


DENSE: Final = ModelWorkload("dense", ARTIFACT, make_rows)
SPARSE: Final = ModelWorkload("sparse", sparse_artifact(support=True), make_sparse_rows)
