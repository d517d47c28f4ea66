"""A log that forks leads to the state of the events that it has, and one that ends too early to none."""

import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import settings

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogDamagedError
from service.learn.follow import Follower
from service.learn.lost_states import drop_lost_states
from service.learn.publish import snapshot_contents
from service.process.shared_memory import LOG_DOUBTS, SharedMemory
from service.process.wakeup import Wakeup
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump_forget_ids, dump_seq
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Draft, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_position
from service.store.log.feedback_payload import Targets, parse_layout
from service.store.states.snapshots import read_fields, write_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status, write_status
from tests.support.budgets import examples
from tests.support.data_directories import History
from tests.support.forking_machine import ForkMachine
from tests.support.history_machine import contents_hash, fold_by_definition, history_by_definition
from tests.support.learner_processes import fork_learner, make_streams, stop_learner
from tests.support.memory_log import MemoryLog
from tests.support.memory_streams import damage_event, feedback, memory_stream
from tests.support.waiting import wait_until

TestForking = ForkMachine.TestCase
TestForking.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)

COMMON: Final = 9


class SwitchingLog:
    """A log that is replaced by another one after some reads, as by a failover between any two of them."""

    def __init__(self, before: FeedbackLog, after: FeedbackLog, reads: int) -> None:
        self.logs = before, after
        self.reads = reads

    @property
    def has_switched(self) -> bool:
        return self.reads <= 0

    def __getattr__(self, name: str) -> Any:
        self.reads -= 1
        return getattr(self.logs[self.reads < 0], name)


def admin(stream: Stream, kind: Kind, payload: bytes) -> Draft:
    return Draft(stream.number, kind, b"%d %b" % (kind, payload[:20]), payload, 0)


def correction(log: FeedbackLog, stream: Stream, seq: int, label: int) -> Draft:
    (event,) = log.read_events(stream.number, seq - 1, 1)
    layout = parse_layout(event.payload or b"")
    return admin(stream, Kind.CORRECT, encode_correction(seq, layout, Targets.INDEX, np.array([label])))


def branches(*, calm: bool) -> tuple[Artifact, MemoryLog, MemoryLog, Stream]:
    """Return an artifact and two logs with the same first events; the lost one has more that change earlier ones.

    Args:
        calm: Whether the log that remains has feedback alone after those.
    """
    artifact, lost, stream = memory_stream(COMMON)
    saved = lost.save()
    kept = MemoryLog()
    kept.restore(saved)
    lost.append([correction(lost, stream, COMMON, 1), admin(stream, Kind.FORGET, dump_forget_ids([b"2", b"5"]))])
    lost.append([feedback(stream, 100), admin(stream, Kind.SKIP, dump_seq(7)), feedback(stream, 101)])
    lost.append([admin(stream, Kind.ROLLBACK, dump_seq(8)), feedback(stream, 102)])
    if not calm:
        kept.append([correction(kept, stream, COMMON, 2), admin(stream, Kind.FORGET, dump_forget_ids([b"3"]))])
        kept.append([admin(stream, Kind.ROLLBACK, dump_seq(6)), feedback(stream, 200)])
    kept.append([feedback(stream, number) for number in range(201, 210)])
    return artifact, lost, kept, stream


def write_files(follower: Follower) -> None:
    """Write every file that a learner writes of a state."""
    follower.write_checkpoint()
    for files in (follower.folder.snapshots, follower.folder.keyframes):
        contents = snapshot_contents(follower.fold, follower.position_fields())
        write_snapshot(files, follower.seq, *contents, durable=False)


def follow_to_the_end(stream: Stream, artifact: Artifact, log: Any, folder: StreamFolder) -> Follower:
    """Follow a log as a learner does, until no event is left; write files on the way."""
    follower, failures = None, 0
    while True:
        try:
            if follower is None:
                drop_lost_states(stream, log, folder)
                follower = Follower(stream, artifact, log, folder)
            events, was_refolding = follower.read_next(3), follower.is_refolding
            if events:
                follower.fold_batch(events)
        except LogEndsEarlierError:
            raise
        except LogDamagedError:  # or two reads that must agree are of two logs
            follower = None
            failures += 1
            assert failures < 3
            continue
        if was_refolding and not follower.is_refolding:
            assert_is_a_state(follower, artifact, log.logs, stream)
        if not follower.is_refolding and follower.seq % 4 == 3:
            write_files(follower)
        if not events:
            return follower


def assert_is_a_state(follower: Follower, artifact: Artifact, logs: Sequence[FeedbackLog], stream: Stream) -> None:
    """Compare a state with its definition in each log that has its event and no admin event that it does not know."""
    known = {change.seq for change in follower.lineage.changes}
    for log in logs:
        is_known = all(event.seq in known for event in log.read_admin_events(stream.number))
        if is_known and read_position(log, stream, follower.seq) == follower.position:
            expected = fold_by_definition(artifact, log, stream.number, follower.seq)
            assert contents_hash(follower.fold) == contents_hash(expected)


def assert_is_the_fold(follower: Follower, artifact: Artifact, log: FeedbackLog, stream: Stream) -> None:
    last = log.stream_state(stream.number)
    assert follower.position == Position(last.seq, last.hash)
    assert contents_hash(follower.fold) == contents_hash(fold_by_definition(artifact, log, stream.number, last.seq))
    history = history_by_definition(artifact, log, stream.number, last.seq, 0)
    assert follower.history.sha256() == history.sha256()


@pytest.mark.parametrize("calm", [True, False])
@pytest.mark.parametrize("has_files", [True, False])
def test_the_log_may_fork_between_any_two_reads(tmp_path: Path, *, calm: bool, has_files: bool) -> None:
    """Whenever it does, nothing of the lost events is left in the end: neither a row, a label nor a removal."""
    artifact, lost, kept, stream = branches(calm=calm)
    for reads in count(step=1 if has_files else 4 // examples(4)):
        folder = StreamFolder(tmp_path / str(reads))
        if has_files:
            follow_to_the_end(stream, artifact, SwitchingLog(lost, kept, 1 << 20), folder)
        log: Any = SwitchingLog(lost, kept, reads)
        follower = follow_to_the_end(stream, artifact, log, folder)
        if not log.has_switched:
            break
        assert_is_the_fold(follow_to_the_end(stream, artifact, log, folder), artifact, kept, stream)
    assert_is_the_fold(follower, artifact, lost, stream)
    assert reads > (5 if has_files else 40)


def test_files_of_lost_events_are_deleted(tmp_path: Path) -> None:
    """Those of events that the log has stay; a checkpoint that heeds a lost forget goes, though its event is there."""
    artifact, lost, kept, stream = branches(calm=True)
    folder = StreamFolder(tmp_path)
    early = Follower(stream, artifact, kept, folder)
    early.fold_batch(early.read_next(3))
    write_files(early)
    late = Follower(stream, artifact, lost, folder)
    for seq in (6, 8, 9, 10, 14):
        while late.seq < seq or late.is_refolding:
            late.fold_batch(late.read_next(1))
        write_files(late)
    write_status(tmp_path, {"state": "following", "erased_epoch": 1})
    assert drop_lost_states(stream, kept, folder) == late.heeded.seq == 15
    for files in (folder.checkpoints, folder.snapshots, folder.keyframes):
        assert list_seqs(files) == [3]
    assert read_status(tmp_path) == {"state": "following", "erased_epoch": 0}
    assert drop_lost_states(stream, kept, folder) is None


def test_a_log_that_ends_earlier_is_not_followed(tmp_path: Path) -> None:
    """The follower keeps its state, and goes on once the log is as long again."""
    artifact, log, stream = memory_stream(COMMON)
    short = log.save()
    log.append([feedback(stream, number) for number in range(100, 103)])
    whole = log.save()
    folder = StreamFolder(tmp_path)
    follower = Follower(stream, artifact, log, folder)
    follower.fold_batch(follower.read_next(20))
    write_files(follower)
    log.restore(short)
    for _ in range(2):
        with pytest.raises(LogEndsEarlierError):
            follower.read_next(20)
    with pytest.raises(LogEndsEarlierError):
        drop_lost_states(stream, log, folder)
    assert list_seqs(folder.checkpoints) == [COMMON + 3]
    log.restore(whole)
    assert follower.read_next(20) == []
    assert drop_lost_states(stream, log, folder) is None
    log.append([feedback(stream, 103)])
    follower.fold_batch(follower.read_next(20))
    assert_is_the_fold(follower, artifact, log, stream)


def test_a_refolding_notices_a_fork_at_once(tmp_path: Path) -> None:
    """It may take minutes, so it does not go on to its end; a log that ends too early is no damage."""
    artifact, log, stream = memory_stream(COMMON)
    common = log.save()
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(COMMON))
    log.append([admin(stream, Kind.FORGET, dump_forget_ids([b"2"])), feedback(stream, 100)])
    whole = log.save()
    follower.fold_batch(follower.read_next(1))
    assert follower.is_refolding
    log.restore(common)
    with pytest.raises(LogEndsEarlierError):
        follower.read_next(2)
    log.append([feedback(stream, number) for number in range(200, 205)])
    with pytest.raises(LogForkedError):
        follower.read_next(2)
    log.restore(whole)
    while events := follower.read_next(2):
        follower.fold_batch(events)
    assert_is_the_fold(follower, artifact, log, stream)


@pytest.mark.parametrize("damaged", [2, 5])
def test_damage_does_not_pass_for_a_fork(tmp_path: Path, damaged: int) -> None:
    """A log whose chain is broken is damaged: its files may be all that is left, so they stay."""
    artifact, lost, kept, stream = branches(calm=True)
    folder = StreamFolder(tmp_path)
    follower = Follower(stream, artifact, lost, folder)
    while follower.seq < 16 or follower.is_refolding:
        follower.fold_batch(follower.read_next(1))
    write_files(follower)
    damage_event(kept, stream, damaged, feedback(stream, 99).payload)
    with pytest.raises(LogDamagedError, match=f"event {damaged} ") as caught:
        drop_lost_states(stream, kept, folder)
    assert caught.type is LogDamagedError
    assert list_seqs(folder.checkpoints) == [follower.seq]


def test_a_damaged_file_does_not_pass_for_a_fork(tmp_path: Path) -> None:
    """A file whose hash of the event is altered fails its checksum, so it says nothing about the log."""
    artifact, log, stream = memory_stream(COMMON)
    folder = StreamFolder(tmp_path)
    follower = Follower(stream, artifact, log, folder)
    follower.fold_batch(follower.read_next(4))
    write_files(follower)
    follower.fold_batch(follower.read_next(4))
    path = folder.checkpoints / "4"
    content = path.read_bytes()
    hash_ = read_fields(path)["hash"].encode()
    path.unlink()
    path.write_bytes(content.replace(hash_, hash_[::-1]))
    (folder.checkpoints / "400").write_bytes(path.read_bytes())
    assert drop_lost_states(stream, log, folder) is None
    assert list_seqs(folder.checkpoints) == [4, 400]


def test_a_learner_that_starts_goes_back_to_what_the_log_has(tmp_path: Path) -> None:
    """A file of the log is replaced by a copy of an earlier moment: learning is held until the copy has as many events.

    Then it goes back to the common checkpoint. The fork is counted, and the events of the copy are learned.
    """
    make_streams(tmp_path, 1)
    memory, wakeup = SharedMemory(1, 4), Wakeup()
    history = History(tmp_path)
    history.add_feedback(*range(20))
    with stop_learner(fork_learner(tmp_path, memory, wakeup)):
        wait_until(lambda: history.published_seq() == 20)
    copy = tmp_path / "copy"
    history.log.write_copy(copy)
    history.add_feedback(*range(20, 30))
    with stop_learner(fork_learner(tmp_path, memory, wakeup)):
        wait_until(lambda: history.published_seq() == 30)
    lost = read_position(history.log, history.stream, 30)
    history.close()
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.move(copy, tmp_path / "log.sqlite")
    history = History(tmp_path)
    history.add_feedback(*range(40, 45))
    with stop_learner(fork_learner(tmp_path, memory, wakeup)):
        wait_until(lambda: history.status()["state"] == "held")
        assert "ends before event 30" in history.status()["reason"]
        assert list_seqs(history.folder.snapshots)[-1] == 30
        assert memory.log_forks == 0
        assert (doubts := memory.learner_cells[LOG_DOUBTS]) > 0
        history.add_feedback(*range(45, 52))
        wait_until(lambda: history.published_seq() == 32 and history.status()["state"] == "following")
        assert memory.log_forks == 1
        assert memory.learner_cells[LOG_DOUBTS] > doubts
    assert lost is not None
    assert read_position(history.log, history.stream, 30) != lost
    replayed = snapshot_contents(history.replay(32), {})[0]["weights_sha256"]
    assert read_fields(history.folder.snapshots / "32")["weights_sha256"] == replayed
    assert not (history.folder.checkpoints / "30").exists()
    assert read_fields(history.folder.keyframes / "30")["hash"] != lost.hash.hex()
    history.close()
