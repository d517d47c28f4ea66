"""The models that are served now, as one object that is swapped whole.

A request takes what it needs from `Live.now` once, so it sees one model from start to end. A worker looks at the models
directory again and again, makes what is new ready (a first prediction included) and only then swaps.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import ModelNotFoundError, ModelNotReadyError
from service.serve.batcher import Batcher, Classified, inline_rows, is_heavy
from service.serve.codec import Rows
from service.serve.lone import Lone
from service.serve.metrics import V1, V2, Meter
from service.serve.tensors import Tensors
from service.settings import Settings
from service.softmax.model import Model
from service.store.artifact import Artifact
from service.store.repository import VERSION, Repository, Version, View
from service.store.served import model_of

logger = logging.getLogger("softstep.live")

Floats = NDArray[np.floating[Any]]
Key = tuple[str, int]


class Kit(NamedTuple):
    """What the served models of one worker share.

    Attributes:
        settings: The limits.
        meter: Where the worker counts.
        executor: Where long kernel calls run.
    """

    settings: Settings
    meter: Meter
    executor: Executor


class Served:
    """One model version at one seq, ready to answer, with what its answers repeat already encoded."""

    def __init__(self, version: Version, artifact: Artifact, kit: Kit) -> None:
        settings, meter = kit.settings, kit.meter
        manifest = artifact.manifest
        self.name: Final = version.name
        self.version: Final = str(version.version)
        self.artifact: Final = artifact
        self.manifest: Final = manifest
        self.seq: Final = 0
        self.model: Final = model_of(artifact)
        # Requests of more rows than this go through the batcher; those of a heavy model always do.
        self.inline_rows: Final = 0 if is_heavy(self.model) else inline_rows(self.model, settings.thread_after_us)
        self.classes: Final = manifest.classes
        self.thresholds: Final = _thresholds(artifact)
        rows_max = min(settings.rows_max, max(1, settings.answer_cells_max // self.model.n_classes))
        self.rows: Final = Rows(self.model.n_features, self.model.dtype, rows_max, settings.json_depth_max)
        self.class_json: Final = [orjson.dumps(name) for name in self.classes]
        named = {"model_name": self.name, "model_version": self.version}
        self.v1_tail: Final = b"]," + orjson.dumps({**named, "seq": self.seq})[1:]
        self.v1_single: Final = [b',"labels":[' + name + self.v1_tail for name in self.class_json]
        self.tensors: Final = Tensors(self.rows, named, self.seq, self.classes)
        self.counters: Final = meter.row(version.name, version.version)
        self.model.classify(np.zeros((1, self.model.n_features), self.model.dtype))
        self.lone: Final = self._lone(meter)
        # Its own, so that requests which share a call share a model as well.
        self.batcher: Final = Batcher(
            self.model,
            settings.batch_rows_max,
            settings.thread_after_us,
            kit.executor,
            _counted(meter, self.counters),
        )

    def _lone(self, meter: Meter) -> Lone | None:
        """What answers requests of one row by the shortest way; None where the model is not made for it."""
        single = self.model.single() if self.inline_rows and self.thresholds is None else None
        return None if single is None else Lone(single, self.counters, meter)

    def metadata(self) -> dict[str, Any]:
        """What GET /v1/models/{name} tells, but for the states of other versions."""
        manifest = self.manifest
        learning = None if manifest.learning is None else manifest.learning.model_dump()
        return {
            "name": self.name,
            "version": self.version,
            "state": "READY",
            "ready": True,
            "head": manifest.head,
            "classes": self.classes,
            "n_features": self.model.n_features,
            "features": manifest.features,
            "dtype": manifest.dtype,
            "seq": self.seq,
            "weights_sha256": self.artifact.weights_sha256,
            "learning": learning,
            "progressive": {"events": 0, "rows": 0, "loss": None, "accuracy": None},
            "metrics": manifest.metrics,
            "provenance": manifest.provenance,
        }


def _counted(meter: Meter, counters: memoryview) -> Callable[[Model, Floats], Classified]:
    """Calls of a model that count themselves."""

    def classify(model: Model, X: Floats) -> Classified:
        before = perf_counter_ns()
        classified = model.classify(X)
        meter.executed(counters, perf_counter_ns() - before)
        return classified

    return classify


def _thresholds(artifact: Artifact) -> Floats | None:
    """The probability from which each label of a multilabel head holds; None for the other heads."""
    manifest = artifact.manifest
    if manifest.head != "multilabel":
        return None
    return np.array(manifest.thresholds or [0.5] * len(manifest.classes))


class Endpoint:
    """What a hot path means: a protocol, and a model version as it is served now.

    Attributes:
        protocol: V1 or V2.
        served: What answers; a request takes it once and keeps it to its end.
        lone: The shortest way for a single row, or None.
    """

    __slots__ = ("lone", "protocol", "served")

    def __init__(self, protocol: int, served: Served) -> None:
        self.protocol = protocol
        self.serve(served)

    def serve(self, served: Served) -> None:
        """Answer by another state of the model from now on."""
        self.served = served
        self.lone = served.lone if self.protocol == V1 else None


@dataclass(frozen=True)
class Now:
    """What is served at one moment.

    Attributes:
        versions: Every version found on disk, served or refused.
        served: The ready ones of models that are not unloaded.
        hot: The endpoint of each path that takes predictions, as bytes.
        reason: Why the models directory could not be looked at, or None.
        unloaded: Names that an operator unloaded.
    """

    versions: Mapping[Key, Version] = field(default_factory=dict)
    served: Mapping[Key, Served] = field(default_factory=dict)
    hot: Mapping[bytes, Endpoint] = field(default_factory=dict)
    reason: str | None = None
    unloaded: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """The names of all models found on disk."""
        return sorted({name for name, _ in self.versions})

    def latest(self, name: str) -> Served | None:
        """The version of a model that a request without a version means: the largest that is ready."""
        numbers = [version for model, version in self.served if model == name]
        return self.served[name, max(numbers)] if numbers else None

    def find(self, name: str, version: str | None) -> Served:
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
        key = (name, int(version) if VERSION.fullmatch(version) else 0)  # no version is 0
        if key not in self.versions:
            raise ModelNotFoundError("Request for unknown model version: the model has no such version.")
        if key not in self.served:
            raise ModelNotReadyError("Model version is not ready: it was refused or unloaded.")
        return self.served[key]

    def default(self, name: str | None) -> Served:
        """The model that a request without any name means: the named one, else the only one.

        Raises:
            ModelNotFoundError: There is not just one model and none is named.
            ModelNotReadyError: The model is not ready.
        """
        names = self.names()
        if name is None and len(names) != 1:
            raise ModelNotFoundError("Several models are served; set SOFTSTEP_DEFAULT_MODEL or name one in the path.")
        return self.find(name or names[0], None)


class Live:
    """Keeps `now` true to the models directory.

    Attributes:
        now: What is served at this moment, replaced whole.
        scanned: Whether the first look is done.
    """

    def __init__(self, repository: Repository, kit: Kit) -> None:
        self.now = Now()
        self.scanned = False
        self._repository = repository
        self._kit = kit
        self._lock = asyncio.Lock()
        self._refused: dict[Key, str | None] = {}
        # What stands for a version whose artifact is whole but cannot be made ready.
        self._unfit: dict[Artifact | None, Version] = {}
        self._root_reason: str | None = None
        self.swapped: list[Callable[[], None]] = []

    async def refresh(self, unloaded: frozenset[str]) -> None:
        """Look at the models directory and swap in what is there; `unloaded` names are left out."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            view, ready = await loop.run_in_executor(self._kit.executor, self._prepare, unloaded)
            self._tell(view, ready)
            now = self.now
            if (view.versions, view.reason, unloaded) != (now.versions, now.reason, now.unloaded):
                self.now = self._assemble(view, ready, unloaded)
                for callback in self.swapped:
                    callback()
            self.scanned = True

    def _prepare(self, unloaded: frozenset[str]) -> tuple[View, dict[Key, Served]]:
        """Scan, and make every new artifact ready; runs in a thread. What cannot be made ready is refused."""
        view = self._repository.scan()
        versions: dict[Key, Version] = {}
        ready: dict[Key, Served] = {}
        unfit: dict[Artifact | None, Version] = {}
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
        return View(versions, view.reason), ready

    def _make(self, key: Key, version: Version) -> Served | None:
        """A version ready to answer: the one that is served already, where its artifact is the same."""
        if version.artifact is None:
            return None
        known = self.now.served.get(key)
        if known is not None and known.artifact is version.artifact:
            return known
        return Served(version, version.artifact, self._kit)

    def _assemble(self, view: View, ready: dict[Key, Served], unloaded: frozenset[str]) -> Now:
        served = {key: model for key, model in ready.items() if key[0] not in unloaded}
        hot: dict[bytes, Endpoint] = {}
        # Versions come in rising order, so the path without a version ends up with the largest.
        for (name, version), model in sorted(served.items()):
            for path in (f"/v1/models/{name}:predict", f"/v1/models/{name}/versions/{version}:predict"):
                hot[path.encode()] = Endpoint(V1, model)
            for path in (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/{version}/infer"):
                hot[path.encode()] = Endpoint(V2, model)
        return Now(view.versions, served, hot, view.reason, unloaded)

    def _tell(self, view: View, ready: dict[Key, Served]) -> None:
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
