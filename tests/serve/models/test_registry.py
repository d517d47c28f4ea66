"""A worker serves the newest snapshot of each stream, and those of other events after a fork of the log."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.fields.column_blocks import FieldLimits
from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.process.shared_memory import SEQ_WAITERS, SharedMemory
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ModelResources
from service.settings import Settings
from service.store.artifact.repository import Repository
from service.store.directory.mapped_artifacts import MappedArtifacts
from service.store.states.snapshots import write_snapshot
from tests.support.data_directories import LIMIT, History, iris_artifact

KEY = ("iris", 1)


class Rig:
    """A registry over a data directory, and a history whose states are published."""

    def __init__(self, models: Path, data: Path, executor: ThreadPoolExecutor) -> None:
        settings = Settings(models=models, data=data)
        self.history = History(data)
        self.memory = SharedMemory(1, 4)
        artifacts = MappedArtifacts(self.history.data)
        repository = Repository(models, LIMIT, 4, FieldLimits(1, 1, 1), artifacts.share)
        counters = WorkerCounters(self.memory, 0)
        resources = ModelResources(settings, counters, executor, executor, self.history.data)
        self.registry = ModelRegistry(repository, artifacts, resources)

    def publish(self, seq: int, **other: object) -> None:
        """Write the snapshot of a state, with other fields in the place of its own."""
        replay = StreamReplay(self.history.stream, iris_artifact(), self.history.log)
        list(replay.fold_to(seq))
        fields, arrays = snapshot_contents(replay.fold, replay.position_fields())
        write_snapshot(self.history.folder.snapshots, seq, {**fields, **other}, arrays, durable=False)

    def lose(self, *seqs: int) -> None:
        """Delete snapshots, as a learner does whose log has forked."""
        for seq in seqs:
            (self.history.folder.snapshots / str(seq)).unlink()

    async def served(self) -> Any:
        """Look for snapshots, and return the seq and the hash of what is served."""
        await self.registry.serve_snapshots()
        model = self.registry.now.served[KEY]
        return model.seq, model.learned and model.learned.fields["hash"]


@pytest.fixture
def rig(iris_models: Path, tmp_path: Path) -> Iterator[Rig]:
    with ThreadPoolExecutor(1) as executor:
        rig = Rig(iris_models, tmp_path / "data", executor)
        rig.history.add_feedback(*range(6))
        yield rig
        rig.history.close()


def test_snapshots_after_a_fork_are_served(rig: Rig) -> None:
    """An earlier one is if those after it are gone, and another one of the same seq is, once each."""
    other = bytes(32).hex()

    async def run() -> None:
        await rig.registry.rescan(())
        for seq in (2, 4, 5):
            rig.publish(seq)
        seq, first = await rig.served()
        assert seq == 5
        kept = rig.registry.now.served[KEY]
        rig.publish(5)
        assert await rig.served() == (5, first)
        assert rig.registry.now.served[KEY] is kept
        rig.lose(5)
        rig.publish(5, hash=other)
        assert await rig.served() == (5, other)
        kept = rig.registry.now.served[KEY]
        assert await rig.served() == (5, other)
        assert rig.registry.now.served[KEY] is kept
        rig.lose(4, 5)
        assert (await rig.served())[0] == 2
        rig.lose(2)
        assert (await rig.served())[0] == 2
        rig.publish(6)
        assert (await rig.served())[0] == 6

    asyncio.run(run())


def test_requests_that_wait_are_counted(rig: Rig) -> None:
    """The learner sees how many wait, and is called when the first one begins to."""
    calls = []
    rig.registry.on_wait.append(lambda: calls.append(waiting()))

    def waiting() -> int:
        return rig.memory.sum_over_workers(SEQ_WAITERS)

    async def run() -> None:
        await rig.registry.rescan(())
        await rig.registry.wait_for_seq(KEY, 0)
        assert (calls, waiting()) == ([], 0)
        first, second, third = (rig.registry.wait_for_seq(KEY, seq) for seq in (3, 4, 6))
        assert (calls, waiting()) == ([1], 3)
        second.cancel()
        rig.publish(4)
        await rig.served()
        await first
        await asyncio.sleep(0)
        assert waiting() == 1
        third.cancel()
        await asyncio.sleep(0)
        assert waiting() == 0
        rig.registry.wait_for_seq(KEY, 6)
        assert calls == [1, 1]

    asyncio.run(run())
