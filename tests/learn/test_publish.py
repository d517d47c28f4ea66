"""The publisher keeps the served state on disk."""

import time
from pathlib import Path

import numpy as np

from service.learn.follow import Follower
from service.learn.publish import FEW_EVENTS, FEW_EVENTS_PAUSE, PUBLISH_PAUSE, Publisher
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump_forget_ids
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.states.report import read_report
from service.store.states.state_folder import list_seqs
from tests.support.memory_log import MemoryLog
from tests.support.model_artifacts import make_artifact


def test_an_erased_served_state_is_written_again(tmp_path: Path) -> None:
    """Erasing deletes unreadable files too; a worker that starts must find the served state."""
    artifact, log = make_artifact("softmax", 3, ["a", "b", "c"]), MemoryLog()
    stream = log.open_stream("m", 1, compute_genesis(artifact), 3)
    payload = encode_rows(np.ones((1, 3), np.float32), np.array([1]), Targets.INDEX, 3)
    log.append([Draft(stream.number, Kind.FEEDBACK, id_, payload, 0) for id_ in (b"a", b"b")])
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"a"]), 0)])
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    while events := follower.read_next(9):
        follower.fold_batch(events)
    publisher = Publisher(follower, 1 << 20)
    publisher.publish_snapshot(0.0, time.process_time)
    assert publisher.needs_erasure
    (tmp_path / "snapshots" / "3").unlink()
    (tmp_path / "snapshots" / "3").write_bytes(b"")
    publisher.erase_forgotten()
    assert list_seqs(tmp_path / "snapshots") == []
    assert publisher.is_due(float("inf"))


def test_few_events_are_served_sooner_than_many(tmp_path: Path) -> None:
    """The pause after a snapshot is shorter if it has few new events, unless more wait to be folded."""
    artifact, log = make_artifact("softmax", 3, ["a", "b", "c"]), MemoryLog()
    stream = log.open_stream("m", 1, compute_genesis(artifact), 3)
    payload = encode_rows(np.ones((1, 3), np.float32), np.array([1]), Targets.INDEX, 3)
    log.append([Draft(stream.number, Kind.FEEDBACK, b"%d" % number, payload, 0) for number in range(4 * FEW_EVENTS)])
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    publisher = Publisher(follower, 1 << 20)

    def pause_after(events: int, *, is_behind: bool = False) -> int:
        """Publish after so many events, which takes a second, and return the pause in seconds."""
        follower.fold_batch(follower.read_next(events))
        publisher.publish_snapshot(0.0, iter([5.0, 6.0]).__next__, is_behind=is_behind)
        follower.fold_batch(follower.read_next(1))
        return next(pause for pause in range(PUBLISH_PAUSE + 1) if publisher.is_due(pause))

    assert pause_after(FEW_EVENTS + 1) == PUBLISH_PAUSE
    assert pause_after(FEW_EVENTS - 2) == FEW_EVENTS_PAUSE
    assert pause_after(FEW_EVENTS - 1) == PUBLISH_PAUSE
    assert pause_after(1, is_behind=True) == PUBLISH_PAUSE


def test_keyframes_with_a_forgotten_event_are_erased(tmp_path: Path) -> None:
    """Erasing deletes the keyframes that contain the event, and the report without it names the others."""
    artifact, log, folder = make_artifact("softmax", 3, ["a", "b", "c"]), MemoryLog(), StreamFolder(tmp_path)
    stream = log.open_stream("m", 1, compute_genesis(artifact), 3)
    payload = encode_rows(np.ones((1, 3), np.float32), np.array([1]), Targets.INDEX, 3)
    log.append([Draft(stream.number, Kind.FEEDBACK, b"%d" % number, payload, 0) for number in range(1, 7)])
    follower = Follower(stream, artifact, log, folder)
    publisher = Publisher(follower, 1 << 20)
    for _ in range(6):
        due = publisher.next_keyframe
        follower.fold_batch(follower.read_next(1))
        publisher.write_keyframe_if_due(due)
    assert list_seqs(folder.keyframes) == [1, 2, 3, 4, 5, 6]
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"4"]), 0)])
    while events := follower.read_next(9):
        follower.fold_batch(events)
    publisher.publish_snapshot(0.0, time.process_time)
    publisher.erase_forgotten()
    assert list_seqs(folder.keyframes) == [1, 2, 3]
    report = read_report(folder.report)
    assert report is not None
    assert (report.seq, report.keyframes, report.history[:, 0].sum()) == (7, (1, 2, 3), 5)
