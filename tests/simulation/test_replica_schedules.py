"""Replicas of a log that forks keep their promises in random schedules, and a missing check is found by them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from service.learn import followed_chain
from tests.simulation.replica_schedules import Step, draw_steps, find_violation, shorten
from tests.support.budgets import examples
from tests.support.history_machine import N
from tests.support.memory_log import MemoryLog
from tests.support.model_artifacts import make_artifact

# The log forks just after a release with another fold has taken it over: before the follower looks for its start, and
# before it reads the lineage, so that another replica's BASE comes later.
FORKED_TAKEOVERS = (
    [("upgrade", 0, 515604183), ("fail_over_soon", 1, 430067016), ("look", 0, 383319293)],
    [
        ("feedback", 2, 174063535),
        ("look", 1, 113362976),
        ("checkpoint", 1, 1072566314),
        ("upgrade", 0, 442574829),
        ("feedback", 2, 753240202),
        ("copy", 2, 560430882),
        ("look", 0, 839324180),
        ("fail_over", 1, 780322348),
        ("snapshot", 0, 397221882),
        ("feedback", 1, 49995122),
        ("look", 0, 490522455),
        ("fail_over_soon", 2, 826413206),
        ("look", 0, 904607657),
    ],
)


def test_replicas_keep_their_promises(tmp_path: Path) -> None:
    """Each seed is a schedule of its own."""
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    found = {seed: find_violation(artifact, tmp_path / "run", seed, draw_steps(seed)) for seed in range(examples(40))}
    assert {seed: promise for seed, promise in found.items() if promise} == {}


@pytest.mark.parametrize("schedule", FORKED_TAKEOVERS)
def test_a_takeover_may_be_lost_at_once(tmp_path: Path, schedule: list[tuple[str, int, int]]) -> None:
    """The release takes the stream over again, and all replicas continue from the same state."""
    artifact = make_artifact("softmax", N, ["a", "b", "c"])
    assert find_violation(artifact, tmp_path / "run", 35, [Step(*step) for step in schedule]) is None


def test_a_missing_look_at_the_chain_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that takes the log's next events without a look at those before mixes two branches."""
    monkeypatch.setattr(followed_chain, "contains_position", lambda *_: True)
    monkeypatch.setattr(
        MemoryLog, "read_checked", lambda log, stream, since, limit: log.read_events(stream, since.seq, limit)
    )
    artifact = make_artifact("softmax", N, ["a", "b", "c"])

    def find(seed: int, steps: Sequence[Step]) -> str | None:
        return find_violation(artifact, tmp_path / "run", seed, steps)

    seed = next(seed for seed in range(100) if find(seed, draw_steps(seed)))
    steps = shorten(draw_steps(seed), lambda steps: find(seed, steps) is not None)
    assert find(seed, steps)
    assert len(steps) < len(draw_steps(seed))
    assert {"fail_over", "fail_over_soon"} & {step.action for step in steps}
