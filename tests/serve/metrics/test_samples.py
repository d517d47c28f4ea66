"""The samples of a service depend on whether it learns."""

from pathlib import Path

from service.process.shared_memory import SharedMemory
from service.serve.metrics.samples import MetricSources, read_samples
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory


def values(settings: Settings, data: DataDirectory | None, memory: SharedMemory | None = None) -> dict[str, object]:
    """Return the samples without labels."""
    sources = MetricSources(memory or SharedMemory(1, 1), settings, data, {}, (), models_readable=True, is_open=False)
    return {sample.metric: sample.value for sample in read_samples(sources) if not sample.labels}


def test_a_service_that_cannot_learn_says_so() -> None:
    """The gauge of learning is 0 without a usable data directory, and absent if learning is off."""
    assert values(Settings(learn=True), None)["softstep_learning"] == 0
    assert "softstep_learning" not in values(Settings(learn=False), None)


def test_only_a_service_that_learns_measures_its_disk(tmp_path: Path) -> None:
    """Without a data directory there are no samples of the disk; with one that is gone, only the limits are known."""
    assert not any("disk" in name or "wal" in name for name in values(Settings(learn=False), None))
    data = DataDirectory(tmp_path / "data")
    seen = values(Settings(), data)
    assert seen["softstep_learning"] == 1
    assert seen["softstep_log_bytes"] == seen["softstep_wal_bytes"] == 0
    assert {"softstep_disk_free_bytes", "softstep_disk_total_bytes", "softstep_disk_reserve_bytes"} <= seen.keys()
    (tmp_path / "data").rename(tmp_path / "moved")
    seen = values(Settings(), data)
    assert "softstep_disk_free_bytes" not in seen
    assert {"softstep_disk_reserve_bytes", "softstep_wal_limit_bytes"} <= seen.keys()


def test_draining_is_reported() -> None:
    """The gauge is 1 once the parent has begun the drain."""
    memory = SharedMemory(1, 1)
    assert values(Settings(), None, memory)["softstep_draining"] == 0
    memory.drain_until(5.0)
    assert values(Settings(), None, memory)["softstep_draining"] == 1
