"""Snapshots go from a learner to a replica that folds nothing: the same bytes, whatever happens in between."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.chain_errors import LogEndsEarlierError
from service.errors import LogUnsafeError, SnapshotError
from service.learn import snapshot_sender, stream_receiver
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.learn.snapshot_sender import SendingTimes, SnapshotSender
from service.learn.stream_receiver import StreamReceiver
from service.settings import Settings
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import store_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log import shared_snapshots
from service.store.log.admin_payloads import dump_forget_ids, dump_seq
from service.store.log.events import Draft, Kind, Position, Stream
from service.store.log.shared_snapshots import BYTES_PER_SECOND, SharedSnapshot
from service.store.states.snapshots import encode_file, read_fields, read_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.budgets import examples
from tests.support.memory_streams import feedback, memory_stream
from tests.support.paths import ROOT
from tests.support.shared_memory_log import SharedMemoryLog
from tests.support.sparse_streams import sparse_artifact, sparse_payload

# What folds events, or makes what does.
FOLDING = ("event_fold", "state", "follow", "publish", "stream_learner", "learner_process", "replay")
STEPS = ("feedback", "feedback", "fold", "send", "receive", "restart", "forget", "rollback", "crash")


def forget_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no stream rest, and each call look."""
    monkeypatch.setattr(shared_snapshots, "REST_SECONDS", 0.0)
    monkeypatch.setattr(shared_snapshots, "BYTES_PER_SECOND", 1 << 50)
    monkeypatch.setattr(snapshot_sender, "REST_SECONDS", 0.0)
    monkeypatch.setattr(snapshot_sender, "LOOK_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_limits(monkeypatch)


class Learner:
    """One learner of a stream: what the sender uses of a StreamLearner."""

    def __init__(self, folder: Path, artifact: Artifact, log: SharedMemoryLog, stream: Stream) -> None:
        self.stream, self.log = stream, log
        self.diverged: int | None = None
        self.follower = Follower(stream, artifact, log, StreamFolder(folder))
        self.publisher = Publisher(self.follower, 1 << 20)
        self.sender = SnapshotSender(log)

    def fold(self) -> None:
        """Fold all events and publish what is served then."""
        while events := self.follower.read_next(5):
            self.follower.fold_batch(events)
        if self.follower.seq > 0:
            self.publisher.publish_snapshot(0.0, time.process_time)

    def send(self) -> None:
        learners: Any = {self.stream.number: self}
        self.sender.send_due(learners)


class Rig:
    """A stream in memory, a learner and a receiver with folders of their own."""

    def __init__(self, folder: Path, artifact: Artifact | None = None) -> None:
        self.root, self.log = folder, SharedMemoryLog()
        made, memory, stream = memory_stream(0)
        self.artifact = made if artifact is None else artifact
        if artifact is None:
            self.log.restore(memory.save())
            self.stream = stream
        else:
            self.stream = self.log.open_stream("m", 1, compute_genesis(artifact), 3)
        self.settings = Settings(models=folder / "models", data=folder / "data")
        self.folder = StreamFolder(folder / "receiver")
        store_artifact(self.folder, self.artifact)
        self.learner = Learner(folder / "learner", self.artifact, self.log, self.stream)
        self.receiver = self.start_receiver()

    def start_receiver(self) -> StreamReceiver:
        return StreamReceiver(self.stream, self.log, self.log.snapshots, self.folder, self.settings)

    def append(self, *drafts: Draft) -> None:
        self.log.append(drafts)

    def receive(self) -> bool:
        present = {one.stream: one for one in self.log.snapshots.list_snapshots()}
        return self.receiver.receive(present.get(self.stream.number), time.monotonic(), ())

    def pass_on(self) -> None:
        """Fold everything and have it received."""
        self.learner.fold()
        self.learner.send()
        self.receive()

    def check_equal(self) -> None:
        """Check that both serve the same file at the same seq."""
        seq = list_seqs(self.folder.snapshots)[-1]
        assert seq == self.receiver.seq == self.learner.publisher.published_seq
        files = [folder.snapshots / str(seq) for folder in (self.folder, self.learner.follower.folder)]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert read_snapshot(files[0]).fields == read_snapshot(files[1]).fields


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def admin(rig: Rig, kind: Kind, payload: bytes) -> Draft:
    return Draft(rig.stream.number, kind, b"%d %b" % (kind, hashlib.sha256(payload).digest()[:9]), payload, 0)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5_000_000)), min_size=2, max_size=40))
def test_no_stream_has_more_bytes_a_second_than_the_limit(steps: list[tuple[float, int]]) -> None:
    """From any snapshot to any later one, for any sizes and times: the last one's bytes belong to what follows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_snapshots, "REST_SECONDS", 0.1)
        patch.setattr(shared_snapshots, "BYTES_PER_SECOND", BYTES_PER_SECOND)
        times, now, sent = SendingTimes(), 0.0, list[tuple[float, int]]()
        for seq, (pause, size) in enumerate(steps):
            now += pause
            if times.is_due(now, seq):
                sent.append((now, size))
                times.note_sent(now, size)
                times.note_look(now, seq)
    for first, (start, _) in enumerate(sent):
        total = 0
        for (time_, size), (_, before) in zip(sent[first + 1 :], sent[first:], strict=False):
            total += before
            assert total <= BYTES_PER_SECOND * (time_ - start) * (1 + 1e-9)
            assert size > 0


def take_step(rig: Rig, step: str, number: int, draw: Callable[[int], int]) -> None:
    """Take a step; `draw` returns a number from 1 to its argument."""
    last = rig.log.stream_state(rig.stream.number).seq
    match step:
        case "feedback":
            rig.append(feedback(rig.stream, number))
        case "fold":
            rig.learner.fold()
        case "send":
            rig.learner.send()
        case "receive":
            rig.receive()
        case "restart":
            rig.receiver = rig.start_receiver()
        case "crash":
            rig.log.snapshots.empty()
        case "forget" if last:
            rig.append(admin(rig, Kind.FORGET, dump_forget_ids([b"%d" % draw(number)])))
        case "rollback" if last:
            rig.append(admin(rig, Kind.ROLLBACK, dump_seq(draw(last))))


@settings(max_examples=examples(30), deadline=None)
@given(data=st.data())
def test_what_is_received_is_what_the_learner_serves(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any events, restarts of the receiver, and crashes of the database."""
    with pytest.MonkeyPatch.context() as patch:
        forget_limits(patch)
        rig = Rig(tmp_path_factory.mktemp("rig"))
        for number, step in enumerate(data.draw(st.lists(st.sampled_from(STEPS), min_size=5, max_size=40)), start=1):
            take_step(rig, step, number, lambda most: data.draw(st.integers(1, most)))
        rig.append(feedback(rig.stream, 10**6))
        rig.pass_on()
        rig.check_equal()
        epoch = rig.log.stream_state(rig.stream.number).epoch
        assert rig.receiver.erased_epoch == epoch
        for seq in list_seqs(rig.folder.snapshots):
            assert read_fields(rig.folder.snapshots / str(seq))["epoch"] == epoch


def sparse_feedback(rig: Rig, number: int, rows: int = 1) -> Draft:
    payload = sparse_payload(np.random.default_rng(number), rows)
    return Draft(rig.stream.number, Kind.FEEDBACK, b"%d" % number, payload, 0)


def test_a_sparse_model_comes_with_its_base(tmp_path: Path) -> None:
    """The first base follows from the artifact, and is not sent; later ones are sent once."""
    rig = Rig(tmp_path, sparse_artifact())
    first = {path.name for path in rig.folder.bases.iterdir()}
    assert len(first) == 1
    bases, sent = set[str](), list[int]()
    for number in range(40):
        rig.append(sparse_feedback(rig, number, rows=1 + number // 4))
        rig.pass_on()
        rig.check_equal()
        seq = rig.receiver.seq
        bases.add(str(read_fields(rig.folder.snapshots / str(seq))["base"]))
        size = (rig.folder.snapshots / str(seq)).stat().st_size
        sent += [bytes_ - size for _, bytes_ in rig.log.snapshots.sent[len(sent) :]]
        assert {path.name for path in rig.folder.bases.iterdir()} >= first
    assert bases > first
    assert sum(size > 0 for size in sent) == len(bases - first)
    rig.receiver = rig.start_receiver()
    rig.append(sparse_feedback(rig, 99))
    rig.pass_on()
    rig.check_equal()


def test_a_damaged_snapshot_is_not_served(rig: Rig) -> None:
    """A bit, the end, the beginning: what was served stays, and the next snapshot is taken."""
    rig.append(feedback(rig.stream, 1))
    rig.pass_on()
    changes: list[Any] = [lambda content: content[:-1], lambda content: bytes([content[0] ^ 1]) + content[1:]]
    changes += [lambda content: content[:200] + bytes([content[200] ^ 4]) + content[201:], lambda _: b""]
    for number, change in enumerate(changes, start=2):
        rig.append(feedback(rig.stream, number))
        rig.learner.fold()
        rig.learner.send()
        rig.log.snapshots.alter(rig.stream.number, change)
        before = rig.receiver.seq
        with pytest.raises(SnapshotError):
            rig.receive()
        assert rig.receiver.seq == before
        assert list_seqs(rig.folder.snapshots)[-1] == before
        assert list(rig.folder.snapshots.glob(".*")) == []
    rig.append(feedback(rig.stream, 100))
    rig.pass_on()
    rig.check_equal()


@pytest.mark.parametrize("field", ["hash", "genesis", "epoch"])
def test_a_snapshot_of_something_else_is_not_served(rig: Rig, field: str) -> None:
    """Its fields must be those of the row, and of this stream."""
    rig.append(feedback(rig.stream, 1))
    rig.learner.fold()
    snapshots, number = rig.log.snapshots, rig.stream.number
    fields = dict(read_fields(rig.learner.follower.folder.snapshots / "1"))
    position = Position(1, bytes.fromhex(fields["hash"]))
    fields = (
        {**fields, field: "00" * 32} if field != "epoch" else {key: fields[key] for key in fields.keys() - {"epoch"}}
    )
    content = b"".join(encode_file(fields, {"a": np.zeros(3, "<f4")}))
    one = SharedSnapshot(number, position, 0, hashlib.sha256(content).digest(), "")
    assert snapshots.replace(one, content, bytes)
    with pytest.raises(SnapshotError):
        rig.receive()
    assert list_seqs(rig.folder.snapshots) == []


def test_a_snapshot_of_a_lost_branch_is_not_served_and_replaced(rig: Rig) -> None:
    """The log has lost its event; a learner replaces it by one of the events that the log has."""
    rig.append(*(feedback(rig.stream, number) for number in range(1, 4)))
    rig.pass_on()
    kept = rig.log.save()
    rig.append(*(feedback(rig.stream, number) for number in range(4, 8)))
    rig.learner.fold()
    rig.learner.send()
    rig.log.restore(kept)
    assert not rig.receive()
    rig.append(feedback(rig.stream, 100))
    assert not rig.receive()
    assert rig.receiver.seq == 3
    rig.learner = Learner(rig.root / "other", rig.artifact, rig.log, rig.stream)
    rig.pass_on()
    rig.check_equal()
    assert rig.receiver.seq == 4


def test_a_snapshot_that_heeds_a_lost_event_is_not_served(rig: Rig) -> None:
    """A rollback of later, which the log has lost, may have changed what the snapshot covers."""
    rig.append(feedback(rig.stream, 1))
    rig.learner.fold()
    fields = dict(read_fields(rig.learner.follower.folder.snapshots / "1"))
    position = Position(1, bytes.fromhex(fields["hash"]))
    for heeded, is_served in (([2, "00" * 32], False), ([1, fields["hash"]], True)):
        content = b"".join(encode_file({**fields, "heeded": heeded}, {"a": np.zeros(3, "<f4")}))
        one = SharedSnapshot(rig.stream.number, position, 0, hashlib.sha256(content).digest(), "")
        rig.log.snapshots.empty()
        assert rig.log.snapshots.replace(one, content, bytes)
        assert rig.receive() == is_served


def test_what_is_served_of_a_lost_branch_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the log has other events: it serves those that learners have of them, an earlier seq included."""
    monkeypatch.setattr(stream_receiver, "CHECK_SECONDS", 0.0)
    rig.append(*(feedback(rig.stream, number) for number in range(1, 4)))
    kept = rig.log.save()
    rig.append(*(feedback(rig.stream, number) for number in range(4, 7)))
    rig.pass_on()
    rig.log.restore(kept)
    with pytest.raises(LogEndsEarlierError):
        rig.receive()
    assert rig.receiver.seq == 6
    rig.append(*(feedback(rig.stream, number) for number in range(100, 104)))
    rig.learner = Learner(rig.root / "other", rig.artifact, rig.log, rig.stream)
    rig.pass_on()
    rig.check_equal()
    assert (rig.receiver.lost, rig.receiver.seq) == (6, 7)


def test_files_that_only_a_fold_keeps_equal_to_the_log_are_deleted(rig: Rig) -> None:
    """Those of a learner of earlier, which nothing would erase; its newest snapshot stays."""
    rig.append(*(feedback(rig.stream, number) for number in range(1, 4)))
    learner = Learner(rig.folder.path, rig.artifact, rig.log, rig.stream)
    learner.fold()
    learner.follower.write_checkpoint()
    learner.publisher.write_report_if_due(0.0, time.process_time)
    assert rig.folder.report.exists()
    rig.receiver = rig.start_receiver()
    assert (rig.receiver.seq, list_seqs(rig.folder.snapshots)) == (3, [3])
    assert not rig.folder.checkpoints.exists()
    assert not rig.folder.report.exists()


def test_a_table_that_is_missing_is_logged_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tables are those of an earlier release: learning goes on."""

    def refuse() -> None:
        raise LogUnsafeError("run softstep migrate")

    monkeypatch.setattr(rig.log.snapshots, "list_snapshots", refuse)
    rig.append(feedback(rig.stream, 1))
    rig.learner.fold()
    rig.learner.send()
    rig.learner.send()
    assert [record.getMessage().count("run softstep migrate") for record in caplog.records] == [1]


def test_a_learner_that_has_diverged_sends_nothing(rig: Rig) -> None:
    """Until its state is that of the others again."""
    rig.append(feedback(rig.stream, 1))
    rig.learner.fold()
    rig.learner.diverged = 1
    rig.learner.send()
    assert rig.log.snapshots.list_snapshots() == []


def test_erased_counts_what_all_replicas_have(rig: Rig) -> None:
    """The status of a stream says it once the receiver's own files and those of the others are without the row."""
    rig.append(feedback(rig.stream, 1), feedback(rig.stream, 2))
    rig.pass_on()
    rig.append(admin(rig, Kind.FORGET, dump_forget_ids([b"1"])))
    rig.receiver.erased_elsewhere = 1
    rig.receiver.report_status()
    assert read_status(rig.folder.path) == {"state": "receiving", "erased_epoch": 0}
    rig.pass_on()
    rig.receiver.erased_elsewhere = 0
    rig.receiver.report_status({"state": "held", "reason": "no learner"})
    status = read_status(rig.folder.path)
    assert (status["state"], status["erased_epoch"]) == ("held", 0)
    rig.receiver.erased_elsewhere = 1
    rig.receiver.report_status()
    assert read_status(rig.folder.path)["erased_epoch"] == 1
    assert list_seqs(rig.folder.snapshots) == [3]


def test_a_receiver_imports_nothing_that_folds() -> None:
    """Neither what reads events in order nor the classes that call the kernels of a fold."""
    code = "import sys, service.learn.receiver_process; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    imported = set(names.split())
    assert "service.learn.stream_receiver" in imported
    learners = {path.stem for path in (ROOT / "service" / "softmax").glob("*learner*.py")} - {"learner_tensors"}
    assert len(learners) >= 7
    assert not imported & {f"service.learn.{name}" for name in FOLDING}
    assert not imported & {f"service.softmax.{name}" for name in learners}
