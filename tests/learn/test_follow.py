"""The follower's state is that of the lineage, whatever is forgotten, skipped, rolled back or interrupted."""

from pathlib import Path

import pytest
from hypothesis import settings

from service.errors import LogDamagedError
from service.learn.follow import Follower
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump_classes, dump_forget_ids, dump_seq
from service.store.log.events import Draft, Kind
from tests.support.budgets import examples
from tests.support.history_machine import UpgradeMachine, contents_hash, fold_by_definition
from tests.support.memory_streams import damage_event, feedback, memory_stream

TestFollowing = UpgradeMachine.TestCase
TestFollowing.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("damaged", [1, 7, 12])
def test_a_refolding_rejects_damaged_events(tmp_path: Path, damaged: int) -> None:
    """An event before the newest checkpoint may have been damaged since it was folded."""
    artifact, log, stream = memory_stream(20)
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(20))
    follower.write_checkpoint()
    damage_event(log, stream, damaged, feedback(stream, 99).payload)
    log.append([Draft(stream.number, Kind.ROLLBACK, b"back", dump_seq(12), 0)])
    again = Follower(stream, artifact, log, StreamFolder(tmp_path))
    again.fold_batch(again.read_next(1))
    with pytest.raises(LogDamagedError, match=f"event {damaged} "):
        finish_refolding(again)


def test_an_event_forgotten_during_a_stall_leaves_the_state(tmp_path: Path) -> None:
    """The forget comes after the event that cannot be folded and before the skip of that event."""
    artifact, log, stream = memory_stream(12)
    folder = StreamFolder(tmp_path)
    follower = Follower(stream, artifact, log, folder)
    follower.fold_batch(follower.read_next(8))
    log.append([Draft(stream.number, Kind.FORGET, b"forget", dump_forget_ids([b"3"]), 0)])
    assert not follower.bypass(9)
    log.append([Draft(stream.number, Kind.SKIP, b"skip", dump_seq(9), 0)])
    assert follower.bypass(9)
    # A checkpoint of now does not cover the forget, which its state has not reached.
    follower.write_checkpoint()
    for one in (follower, Follower(stream, artifact, log, folder)):
        while one.seq < 14 or one.is_refolding:
            one.fold_batch(one.read_next(1))
        assert contents_hash(one.fold) == contents_hash(fold_by_definition(artifact, log, stream.number, 14))


@pytest.mark.parametrize("kind", [Kind.ROLLBACK, Kind.CLASSES])
def test_only_a_later_rollback_leads_past_an_admin_event(tmp_path: Path, kind: Kind) -> None:
    """The event itself is no way around, even if it is a rollback."""
    artifact, log, stream = memory_stream(6)
    payload = dump_seq(2) if kind == Kind.ROLLBACK else dump_classes(["d"])
    log.append([Draft(stream.number, kind, b"fatal", payload, 0)])
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.fold_batch(follower.read_next(6))
    assert not follower.bypass(7)
    log.append([Draft(stream.number, Kind.ROLLBACK, b"past", dump_seq(5), 0)])
    assert follower.bypass(7)
    finish_refolding(follower)
    assert follower.seq == 8
    assert contents_hash(follower.fold) == contents_hash(fold_by_definition(artifact, log, stream.number, 5))


def finish_refolding(follower: Follower) -> None:
    """Fold until the refolding is done."""
    while follower.is_refolding:
        follower.fold_batch(follower.read_next(5))
