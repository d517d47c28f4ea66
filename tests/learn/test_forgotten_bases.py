"""A BASE that is forgotten before a learner reads its state is no damage: the learner starts again without it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.learn.followed_chain import FollowedChain
from service.store.artifact.hashing import hash_tensors
from service.store.log.events import Event
from service.store.log.feedback_log import read_lineage
from service.store.states.snapshots import read_fields
from tests.support.feedback_log_contract import forget, rollback
from tests.support.history_machine import fold_by_definition, restore_fold_version, set_fold_version
from tests.support.shared_log_rig import SharedLogRig

BASE_SEQ = 10


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedLogRig]:
    """A learner of the release with fold 2 that has taken over a stream with the state of fold 1 at event 9."""
    set_fold_version(1)
    rig = SharedLogRig(tmp_path, monkeypatch)
    rig.append(rig.stream, 0, BASE_SEQ - 1)
    rig.learn(lambda: rig.is_published(BASE_SEQ - 1))
    stop(rig)
    set_fold_version(2)
    rig.append(rig.stream, 20, 21)
    rig.learn(lambda: rig.is_published(BASE_SEQ + 1))
    (base,) = read_lineage(rig.log, rig.stream.number).bases
    assert (base.seq, base.target) == (BASE_SEQ + 1, BASE_SEQ - 1)
    yield rig
    restore_fold_version()


def stop(rig: SharedLogRig) -> None:
    """Stop the learner of the stream, with a checkpoint; the next look starts another one."""
    # What the process does at its end.
    rig.process._learners.pop(rig.stream.number).publisher.write_checkpoint_if_due(idle=True)


def check_learned(rig: SharedLogRig, seq: int, caplog: pytest.LogCaptureFixture) -> None:
    """Check that the state without the base is served, and that learning was never held."""
    rig.learn(lambda: rig.is_published(seq))
    number = rig.stream.number
    assert read_lineage(rig.log, number).base_of_state(seq) is None
    # The process keeps the artifact.
    artifact = rig.process._learners[number].follower.artifact
    fold = fold_by_definition(artifact, rig.log, number, seq)
    served = read_fields(rig.folder.snapshots / str(seq))["weights_sha256"]
    assert served == hash_tensors(fold.state.served_parameters().tensors())
    assert "held" not in caplog.text
    assert rig.memory.log_forks == 0


def test_a_base_is_forgotten_after_a_rollback_to_its_state(rig: SharedLogRig, caplog: pytest.LogCaptureFixture) -> None:
    """A running learner reads both events together, and folds the rollback when the state is gone."""
    rig.append(rig.stream, 30, 32)
    rig.learn(lambda: rig.is_published(BASE_SEQ + 3))
    rig.log.append([rollback(rig.stream, "back", BASE_SEQ + 2), forget(rig.stream, "gone", "4")])
    check_learned(rig, BASE_SEQ + 5, caplog)


def test_a_base_is_forgotten_while_a_learner_starts(
    rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop(rig)
    read_admin = FollowedChain.read_admin
    drafts = [forget(rig.stream, "gone", "4")]

    def read_before_a_forget(*arguments: Any) -> list[Event]:
        events = read_admin(*arguments)
        if drafts:
            rig.log.append([drafts.pop()])
        return events

    monkeypatch.setattr(FollowedChain, "read_admin", read_before_a_forget)
    check_learned(rig, BASE_SEQ + 2, caplog)
