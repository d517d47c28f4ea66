"""The models that a worker serves, kept equal to the models directory and to what is learned.

A request reads `ModelRegistry.now` once, so it sees one model from start to end. A worker scans the models directory
again and again, prepares what is new (a first prediction included), and only then replaces `now`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from service.errors import SnapshotError
from service.log_events import logger
from service.process.heap import trim_heap
from service.process.shared_memory import SEQ_WAITERS
from service.serve.models.endpoint import DRIFT, EXPLAIN, FEEDBACK, HISTORY, INFER, PREDICT, PULSE, QUALITY, Endpoint
from service.serve.models.live_models import LiveModels, VersionKey
from service.serve.models.served_model import ModelResources, ServedModel
from service.store.artifact.repository import Repository, RepositoryView, Version, not_asked
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.mapped_artifacts import MappedArtifacts
from service.store.directory.snapshot_watcher import SnapshotWatcher
from service.store.states.snapshots import read_fields, read_snapshot
from service.store.states.state_folder import read_latest

OnChange = Callable[[], None]
# The paths of the fast path: the kind of request, start and end.
PATHS: Final = (
    (PREDICT, "/v1", ":predict"),
    (FEEDBACK, "/v1", ":feedback"),
    (EXPLAIN, "/v1", ":explain"),
    (INFER, "/v2", "/infer"),
    (PULSE, "/v1", "/pulse"),
    (HISTORY, "/v1", "/history"),
    (DRIFT, "/v1", "/drift"),
    (QUALITY, "/v1", "/quality"),
)


class ModelRegistry:
    """Keeps `now` equal to the models directory and the newest snapshots.

    Args:
        repository: Finds versions in the models directory.
        artifacts: Finds the artifacts that are mapped.
        resources: What the served models of the worker share.

    Attributes:
        now: What is served at this moment; replaced, never changed.
        scanned: Whether the first scan is done.
        is_caught_up: Whether all is served that a shared log had when the service started; True for other logs.
        on_change: Called when versions, and with them endpoints, were added or removed.
        on_wait: Called when a request begins to wait for a seq while no other one waits.
    """

    def __init__(self, repository: Repository, artifacts: MappedArtifacts, resources: ModelResources) -> None:
        self.now = LiveModels()
        self.scanned = False
        self.is_caught_up = True
        self._repository = repository
        self._artifacts = artifacts
        self._resources = resources
        self._lock = asyncio.Lock()
        self._snapshot_watcher = None if resources.data is None else SnapshotWatcher(resources.data)
        self._refused: dict[VersionKey, str | None] = {}
        # Stands for a version whose artifact is valid but cannot be prepared.
        self._unprepared: dict[object, Version] = {}
        # The file of the newest snapshot of a version whose hash is that of what is served.
        self._compared: dict[VersionKey, tuple[int, int]] = {}
        self._root_reason: str | None = None
        self.on_change: list[OnChange] = []
        self.on_wait: list[OnChange] = []
        self._waiters = 0
        self._waiting: defaultdict[VersionKey, list[tuple[int, asyncio.Future[None]]]] = defaultdict(list)

    async def rescan(self, unloaded: Collection[str], is_asked: Callable[[str], bool] = not_asked) -> None:
        """Scan the models directory and serve what is there.

        Args:
            unloaded: The names of models that are not to be served.
            is_asked: Whether a load of a model was requested, so that its files are read again.
        """
        async with self._lock:
            loop = asyncio.get_running_loop()
            view, ready = await loop.run_in_executor(self._resources.preparer, self._prepare, unloaded, is_asked)
            self._log_changes(view, ready, unloaded)
            now = self.now
            before = (now.versions, now.reason, now.unserved, now.unloaded)
            if (view.versions, view.reason, view.unserved, unloaded) != before:
                self.now = self._assemble(view, ready, unloaded)
                for callback in self.on_change:
                    callback()
                del view, ready, now, before
                await loop.run_in_executor(self._resources.preparer, trim_heap)
            self.scanned = True

    def _prepare(
        self, unloaded: Collection[str], is_asked: Callable[[str], bool]
    ) -> tuple[RepositoryView, dict[VersionKey, ServedModel]]:
        """Scan, and prepare every new artifact or refuse it; runs in a thread."""
        view = self._repository.scan(unloaded, is_asked)
        versions: dict[VersionKey, Version] = {}
        ready: dict[VersionKey, ServedModel] = {}
        unprepared: dict[object, Version] = {}
        for key, found in view.versions.items():
            version = found if is_asked(key[0]) else self._unprepared.get(found.artifact, found)
            if key[0] not in unloaded:
                try:
                    model = self._make(key, version)
                except Exception as error:  # noqa: BLE001  # one model that fails must not stop the others
                    model = self.now.served.get(key)
                    reason = f"it cannot be prepared: {error}"
                    version = replace(found, artifact=None if model is None else model.artifact, reason=reason)
                if model is not None:
                    ready[key] = model
            if version is not found:
                unprepared[found.artifact] = version
            versions[key] = version
        self._unprepared = unprepared
        return replace(view, versions=versions), ready

    def _make(self, key: VersionKey, version: Version) -> ServedModel | None:
        """Return a version ready to answer: the one that is served already, if its artifact is the same."""
        if version.artifact is None:
            return None
        known = self.now.served.get(key)
        if known is not None and known.source is version.artifact:
            return known
        if self._resources.data is None:
            return ServedModel(version, version.artifact, self._resources)
        folder = self._resources.data.stream_folder(*key)
        if not folder.artifact.exists():
            return ServedModel(version, version.artifact, self._resources)
        bound = bind_artifact(folder, version.artifact, self._resources.settings.artifact_bytes_max)
        if bound.differs:
            logger.event("model_differs", model=key[0], version=key[1])
        artifact = self._artifacts.share(key, bound.artifact)
        snapshot = read_latest(folder.snapshots)
        return ServedModel(version, artifact, self._resources, snapshot, bound_differs=bound.differs)

    @property
    def awaits_bases(self) -> bool:
        """Whether the next scan finds the first base of a model that is served from a private copy of its weights."""
        return any(self._artifacts.is_written(served.artifact) for served in self.now.served.values())

    async def serve_snapshots(self) -> None:
        """Serve the newest snapshot of each version."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            newer = await loop.run_in_executor(self._resources.preparer, self._newer)
            if newer:
                self.now = replace(self.now, served={**self.now.served, **newer})
                for key, served in newer.items():
                    for endpoint in self.now.endpoints[key]:
                        endpoint.serve(served)
                for key in newer:
                    self._wake(key)

    def wait_for_seq(self, key: VersionKey, seq: int) -> asyncio.Future[None]:
        """Return a future that is done when a version serves the event with this seq; the caller limits the time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].append((seq, future))
        self._wake(key)
        if not future.done():
            self._count_waiters(1)
            future.add_done_callback(lambda _: self._count_waiters(-1))
        return future

    def _count_waiters(self, change: int) -> None:
        """Count the requests that wait for a seq, where the learner sees it."""
        self._waiters += change
        self._resources.counters.set_gauge(SEQ_WAITERS, self._waiters)
        if change > 0 and self._waiters == 1:
            for callback in self.on_wait:
                callback()

    def _wake(self, key: VersionKey) -> None:
        """Resolve the futures that wait for what is served now, and drop those that were cancelled."""
        served = self.now.served.get(key)
        waiting = [(seq, future) for seq, future in self._waiting.pop(key, []) if not future.done()]
        for seq, future in waiting:
            if served is not None and seq <= served.seq:
                future.set_result(None)
        waiting = [(seq, future) for seq, future in waiting if not future.done()]
        if waiting:
            self._waiting[key] = waiting

    def _newer(self) -> dict[VersionKey, ServedModel]:
        """Return the versions with a newer snapshot, ready to answer; runs in a thread."""
        newer: dict[VersionKey, ServedModel] = {}
        data, watcher = self._resources.data, self._snapshot_watcher
        if data is None or watcher is None:
            return newer
        for key, seq in watcher.changed_snapshots().items():
            served, path = self.now.served.get(key), data.stream_folder(*key).snapshots / str(seq)
            if served is not None and (seq > served.seq or self._replaces(served, seq, path)):
                try:
                    newer[key] = served.with_snapshot(seq, read_snapshot(path))
                except Exception as error:  # noqa: BLE001  # no fault of one state may keep the others from being served
                    # The learner has deleted this one because it has published a newer one, whose wakeup follows.
                    if not isinstance(error.__cause__, FileNotFoundError):
                        logger.event("snapshot_refused", model=key[0], version=key[1], reason=str(error))
                    watcher.recheck(*key)
        return newer

    def _replaces(self, served: ServedModel, seq: int, path: Path) -> bool:
        """Return whether the newest snapshot, of a seq that is not greater, replaces what is served.

        It does after a fork of the log: an earlier one is the newest then, or another one of the same seq.
        """
        if seq < served.seq or served.learned is None:
            return seq < served.seq
        with suppress(OSError, SnapshotError):
            identity = path.stat().st_ino, path.stat().st_mtime_ns
            if self._compared.get(served.key) != identity:
                if read_fields(path).get("hash") != served.learned.fields.get("hash"):
                    return True
                self._compared[served.key] = identity
        return False

    def _assemble(
        self, view: RepositoryView, served: dict[VersionKey, ServedModel], unloaded: Collection[str]
    ) -> LiveModels:
        fast_endpoints: dict[bytes, Endpoint] = {}
        answered = served if self._resources.settings.answers_models else {}
        # Versions come in rising order, so the path without a version ends up with the largest.
        for (name, version), model in sorted(answered.items()):
            for kind, start, end in PATHS:
                fast_endpoints[f"{start}/models/{name}{end}".encode()] = Endpoint(kind, model, any_version=True)
                fast_endpoints[f"{start}/models/{name}/versions/{version}{end}".encode()] = Endpoint(kind, model)
        endpoints: defaultdict[VersionKey, list[Endpoint]] = defaultdict(list)
        for endpoint in fast_endpoints.values():
            endpoints[endpoint.served.key].append(endpoint)
        return LiveModels(
            view.versions, served, fast_endpoints, endpoints, view.reason, view.unserved, frozenset(unloaded)
        )

    def _log_changes(
        self, view: RepositoryView, ready: dict[VersionKey, ServedModel], unloaded: Collection[str]
    ) -> None:
        """Log which versions were loaded, refused, unloaded or removed since the last scan."""
        self._log_directory(view)
        for key, version in view.versions.items():
            if version.reason is not None and version.reason != self._refused.get(key):
                logger.event("model_refused", model=key[0], version=key[1], reason=version.reason)
        for key, model in ready.items():
            if model is not self.now.served.get(key):
                logger.event("model_loaded", model=key[0], version=key[1], seq=model.seq)
        for key in self.now.versions:
            if key not in view.versions:
                logger.event("model_removed", model=key[0], version=key[1])
            elif key in self.now.served and key[0] in unloaded:
                logger.event("model_unloaded", model=key[0], version=key[1])
        self._refused = {key: version.reason for key, version in view.versions.items()}

    def _log_directory(self, view: RepositoryView) -> None:
        """Log whether the models directory can be read, and which folders are not served."""
        if view.reason != self._root_reason:
            self._root_reason = view.reason
            if view.reason is None:
                logger.event("models_readable")
            else:
                logger.event("models_unreadable", reason=view.reason)
        for folder in view.unserved:
            if folder not in self.now.unserved:
                logger.event("folder_not_served", folder=folder.path, reason=folder.reason)
