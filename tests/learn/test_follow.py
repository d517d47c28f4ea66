"""Following a stream: whatever is forgotten, skipped, rolled back or interrupted, the state is that of its lineage."""

from pathlib import Path

import pytest
from hypothesis import settings

from service.errors import LogDamagedError
from service.learn.follow import Follower
from service.store.admin import dump_seq
from service.store.data import StreamFolder
from service.store.feedback import Draft, Kind
from tests.learn.machine import Upgrading
from tests.learn.test_replay import begun, feedback

TestFollowing = Upgrading.TestCase
TestFollowing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("damaged", [1, 7, 12])
def test_a_refolding_reads_no_damaged_event(tmp_path: Path, damaged: int) -> None:
    """Also one that was whole when it was folded first, and that no start looks at: it lies before a checkpoint."""
    artifact, log, stream = begun(20)
    follower = Follower(stream, artifact, log, StreamFolder(tmp_path))
    follower.take(follower.next_events(20))
    follower.checkpoint()
    event, seal = log._stored[stream.number][damaged - 1]
    log._stored[stream.number][damaged - 1] = (event._replace(payload=feedback(stream, 99).payload), seal)
    log.append([Draft(stream.number, Kind.ROLLBACK, b"back", dump_seq(12), 0)])
    again = Follower(stream, artifact, log, StreamFolder(tmp_path))
    again.take(again.next_events(1))
    with pytest.raises(LogDamagedError, match=f"event {damaged} "):
        refolded(again)


def refolded(follower: Follower) -> None:
    """A follower at the end of its way back."""
    while follower.is_refolding:
        follower.take(follower.next_events(5))
