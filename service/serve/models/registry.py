"""The models that are served now, as one object that is swapped whole.

A request reads `ModelRegistry.now` once, so it sees one model from start to end. A worker scans the models directory
again and again, prepares what is new (a first prediction included) and only then swaps.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from service.errors import (
    ModelNotFoundError,
    ModelNotNamedError,
    ModelNotReadyError,
    SnapshotError,
    VersionNotFoundError,
)
from service.serve.models.endpoint import EXPLAIN, FEEDBACK, INFER, PREDICT, Endpoint
from service.serve.models.served_model import ModelResources, ServedModel
from service.store.artifact.repository import VERSION_NUMBER, Repository, RepositoryView, Version
from service.store.directory.data_directory import SnapshotWatcher
from service.store.states.snapshots import read_latest, read_snapshot

logger = logging.getLogger("softstep.live")

VersionKey = tuple[str, int]
# The paths of the fast path: the kind of request, start and end.
PATHS: Final = (
    (PREDICT, "/v1", ":predict"),
    (FEEDBACK, "/v1", ":feedback"),
    (EXPLAIN, "/v1", ":explain"),
    (INFER, "/v2", "/infer"),
)


@dataclass(frozen=True)
class LiveModels:
    """What is served at one moment.

    Attributes:
        versions: Every version found on disk, served or refused.
        served: The ready ones of models that are not unloaded.
        hot: The endpoint of each path that the front door answers itself, as bytes.
        endpoints: The endpoints of each version, which follow what it learns.
        reason: Why the models directory could not be looked at, or None.
        unloaded: Names that an operator unloaded.
    """

    versions: Mapping[VersionKey, Version] = field(default_factory=dict)
    served: Mapping[VersionKey, ServedModel] = field(default_factory=dict)
    hot: Mapping[bytes, Endpoint] = field(default_factory=dict)
    endpoints: Mapping[VersionKey, list[Endpoint]] = field(default_factory=dict)
    reason: str | None = None
    unloaded: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """The names of all models found on disk."""
        return sorted({name for name, _ in self.versions})

    def latest(self, name: str) -> ServedModel | None:
        """The version of a model that a request without a version means: the largest that is ready."""
        numbers = [version for model, version in self.served if model == name]
        return self.served[name, max(numbers)] if numbers else None

    def find(self, name: str, version: str | None) -> ServedModel:
        """The version that a request means.

        Raises:
            ModelNotFoundError: There is none of that name, or no such version of it.
            ModelNotReadyError: It is there, but refused or unloaded.
        """
        if name not in self.names():
            raise ModelNotFoundError("Request for unknown model: no model of that name is found.")
        if version is None:
            latest = self.latest(name)
            if latest is None:
                raise ModelNotReadyError("Model is not ready: none of its versions is loaded.")
            return latest
        key = (name, int(version) if VERSION_NUMBER.fullmatch(version) else 0)  # no version is 0
        if key not in self.versions:
            raise VersionNotFoundError("Request for unknown model version: the model has no such version.")
        if key not in self.served:
            raise ModelNotReadyError("Model version is not ready: it was refused or unloaded.")
        return self.served[key]

    def default(self, name: str | None) -> ServedModel:
        """The model that a request without any name means: the named one, else the only one.

        Raises:
            ModelNotFoundError: There is not just one model and none is named.
            ModelNotReadyError: The model is not ready.
        """
        names = self.names()
        if name is None and len(names) != 1:
            raise ModelNotNamedError("Several models are served; set SOFTSTEP_DEFAULT_MODEL or name one in the path.")
        return self.find(name or names[0], None)


class ModelRegistry:
    """Keeps `now` true to the models directory.

    Attributes:
        now: What is served at this moment, replaced whole.
        scanned: Whether the first look is done.
        on_change: Called when versions came or went, and endpoints with them.
    """

    def __init__(self, repository: Repository, kit: ModelResources) -> None:
        self.now = LiveModels()
        self.scanned = False
        self._repository = repository
        self._kit = kit
        self._lock = asyncio.Lock()
        self._news = None if kit.data is None else SnapshotWatcher(kit.data)
        self._refused: dict[VersionKey, str | None] = {}
        # What stands for a version whose artifact is whole but cannot be made ready.
        self._unfit: dict[object, Version] = {}
        self._root_reason: str | None = None
        self.on_change: list[Callable[[], None]] = []
        self._waiting: defaultdict[VersionKey, list[tuple[int, asyncio.Future[None]]]] = defaultdict(list)

    async def refresh(self, unloaded: frozenset[str]) -> None:
        """Look at the models directory and swap in what is there; `unloaded` names are left out."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            view, ready = await loop.run_in_executor(self._kit.preparer, self._prepare, unloaded)
            self._tell(view, ready)
            now = self.now
            if (view.versions, view.reason, unloaded) != (now.versions, now.reason, now.unloaded):
                self.now = self._assemble(view, ready, unloaded)
                for callback in self.on_change:
                    callback()
            self.scanned = True

    def _prepare(self, unloaded: frozenset[str]) -> tuple[RepositoryView, dict[VersionKey, ServedModel]]:
        """Scan, and make every new artifact ready; runs in a thread. What cannot be made ready is refused."""
        view = self._repository.scan()
        versions: dict[VersionKey, Version] = {}
        ready: dict[VersionKey, ServedModel] = {}
        unfit: dict[object, Version] = {}
        for key, found in view.versions.items():
            version = self._unfit.get(found.artifact, found)
            if key[0] not in unloaded:
                try:
                    model = self._make(key, version)
                except Exception as error:  # noqa: BLE001  # one model that fails must not stop the others
                    model = self.now.served.get(key)
                    reason = f"it cannot be made ready: {error}"
                    version = replace(found, artifact=None if model is None else model.artifact, reason=reason)
                if model is not None:
                    ready[key] = model
            if version is not found:
                unfit[found.artifact] = version
            versions[key] = version
        self._unfit = unfit
        return RepositoryView(versions, view.reason), ready

    def _make(self, key: VersionKey, version: Version) -> ServedModel | None:
        """A version ready to answer: the one that is served already, where its artifact is the same."""
        if version.artifact is None:
            return None
        known = self.now.served.get(key)
        if known is not None and known.source is version.artifact:
            return known
        if self._kit.data is None:
            return ServedModel(version, version.artifact, self._kit)
        folder = self._kit.data.stream_folder(*key)
        if not folder.artifact.exists():
            return ServedModel(version, version.artifact, self._kit)
        bound = folder.bind_artifact(version.artifact, self._kit.settings.artifact_bytes_max)
        if bound.differs:
            logger.warning("model %s version %s is not what its stream began with; that is served", *key)
        return ServedModel(
            version, bound.artifact, self._kit, read_latest(folder.snapshots), bound_differs=bound.differs
        )

    async def renew(self) -> None:
        """Serve what was learned since: the newest snapshot of each version."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            newer = await loop.run_in_executor(self._kit.preparer, self._newer)
            if newer:
                self.now = replace(self.now, served={**self.now.served, **newer})
                for key, served in newer.items():
                    for endpoint in self.now.endpoints[key]:
                        endpoint.serve(served)
                for key in newer:
                    self._wake(key)

    def reached(self, key: VersionKey, seq: int) -> asyncio.Future[None]:
        """Done when a version serves a state that holds the event with this seq; the caller limits the time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].append((seq, future))
        self._wake(key)
        return future

    def _wake(self, key: VersionKey) -> None:
        """Answer those who wait for what is served now; those who gave up are let go of."""
        served = self.now.served.get(key)
        left = [(seq, future) for seq, future in self._waiting.pop(key, []) if not future.done()]
        for seq, future in left:
            if served is not None and seq <= served.seq:
                future.set_result(None)
        left = [(seq, future) for seq, future in left if not future.done()]
        if left:
            self._waiting[key] = left

    def _newer(self) -> dict[VersionKey, ServedModel]:
        """The versions of which a newer snapshot is there, ready to answer; runs in a thread."""
        newer: dict[VersionKey, ServedModel] = {}
        data, news = self._kit.data, self._news
        if data is None or news is None:
            return newer
        for key, seq in news.changed_snapshots().items():
            served = self.now.served.get(key)
            if served is not None and seq > served.seq:
                try:
                    newer[key] = served.learned_more(seq, read_snapshot(data.stream_folder(*key).snapshots / str(seq)))
                except (SnapshotError, ValueError) as error:
                    # One that was replaced while it was looked at is announced again with the next.
                    logger.warning("a snapshot of model %s version %s cannot be served: %s", *key, error)
                    news.recheck(*key)
        return newer

    def _assemble(
        self, view: RepositoryView, ready: dict[VersionKey, ServedModel], unloaded: frozenset[str]
    ) -> LiveModels:
        served = {key: model for key, model in ready.items() if key[0] not in unloaded}
        hot: dict[bytes, Endpoint] = {}
        endpoints: defaultdict[VersionKey, list[Endpoint]] = defaultdict(list)
        # Versions come in rising order, so the path without a version ends up with the largest.
        for (name, version), model in sorted(served.items()):
            for kind, start, end in PATHS:
                endpoint = Endpoint(kind, model)
                endpoints[name, version].append(endpoint)
                for path in (f"{start}/models/{name}{end}", f"{start}/models/{name}/versions/{version}{end}"):
                    hot[path.encode()] = endpoint
        return LiveModels(view.versions, served, hot, endpoints, view.reason, unloaded)

    def _tell(self, view: RepositoryView, ready: dict[VersionKey, ServedModel]) -> None:
        """Log what became ready, refused or removed since the last look."""
        if view.reason != self._root_reason:
            self._root_reason = view.reason
            logger.warning("models directory: %s", view.reason or "readable again")
        for key, version in view.versions.items():
            if version.reason is not None and version.reason != self._refused.get(key):
                logger.warning("model %s version %s refused: %s", *key, version.reason)
        for key, model in ready.items():
            if model is not self.now.served.get(key):
                logger.info("model %s version %s: ready", *key)
        for key in self.now.versions:
            if key not in view.versions:
                logger.info("model %s version %s: removed", *key)
        self._refused = {key: version.reason for key, version in view.versions.items()}
