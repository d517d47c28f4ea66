"""A client of a service that learns, and the expected state from its log."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Event
from service.store.log.sqlite import SqliteLog
from tests.support.paths import ROOT
from tests.support.processes import CLIENT
from tests.support.running_service import Service
from tests.support.state_events import events_of_state
from tests.support.waiting import wait_until

IRIS = [5.1, 3.5, 1.4, 0.2]


def post(service: Service, path: str, document: Any, **query: Any) -> httpx.Response:
    """Send one request over a connection of its own, so that any worker may answer it."""
    return CLIENT.post(f"{service.url}/v1/models/{path}", json=document, params=query)


def metadata(service: Service, model: str) -> dict[str, Any]:
    """Return the metadata of a model."""
    return dict(CLIENT.get(f"{service.url}/v1/models/{model}").json())


def caught_up(service: Service, model: str) -> dict[str, Any]:
    """Return the metadata of a model from a worker that serves every committed event.

    A request that waits for its event waits for the worker that answers it; another worker may be a moment behind.
    """
    found: list[dict[str, Any]] = []

    def is_caught_up() -> bool:
        found.append(metadata(service, model))
        return not found[-1].get("lag_events")

    wait_until(is_caught_up)
    return found[-1]


def rows_of(model: str, count: int, seed: int = 0) -> list[list[float]]:
    """Return rows that are distributed as the training rows of a model."""
    training = read_artifact(ROOT / "models" / model / "1", 1 << 30).manifest.training
    assert training is not None
    normal = np.random.default_rng(seed).standard_normal((count, len(training.mean)))
    return [[round(float(x), 4) for x in row] for row in np.array(training.mean) + normal * np.array(training.scale)]


def replay_stream(
    data: Path, model: str, n: int | None = None, models: Path = ROOT / "models"
) -> tuple[str, EventFold]:
    """Return the hash of state(n) and the fold, from log and artifact only; the service may be running."""
    artifact: Artifact = read_artifact(models / model / "1", 1 << 30)
    log = SqliteLog(DataDirectory(data).log)
    (stream,) = [stream for stream in log.list_streams() if stream.model == model]
    last = log.stream_state(stream.number).seq if n is None else n
    fold = EventFold(artifact)
    for event in events_of_state(log, stream.number, last):
        fold.fold_events([event])
    log.close()
    return hash_tensors(fold.state.served_parameters().tensors()), fold


def events_of(data: Path, model: str) -> list[Event]:
    """Return every event of a model's stream."""
    log = SqliteLog(DataDirectory(data).log)
    (stream,) = [stream for stream in log.list_streams() if stream.model == model]
    events = log.read_events(stream.number, 0, 1 << 20)
    log.close()
    return events


def data_of(service: Service) -> Path:
    """Return the data directory of a service."""
    return service.log.parent / "data"


def samples(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample of /metrics by its name and labels."""
    families = text_string_to_metric_families(CLIENT.get(f"{service.url}/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
