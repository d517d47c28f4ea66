"""One model version as it is served at one moment, ready to answer.

A version begins as its artifact, at seq 0. What it has learned since comes as snapshots, each with the seq up to which
it is folded; a snapshot makes another `ServedModel`, and the one before answers the requests it has begun.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.batcher import Batcher, Classification, inline_rows, is_heavy
from service.serve.models.single_row import SingleRow
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.rows import RowParser
from service.settings import Settings
from service.softmax.classifier import Classifier
from service.softmax.parameters import Parameters
from service.store.artifact.artifact import Artifact, Manifest
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.model_factory import initial_parameters, restore_parameters
from service.store.artifact.repository import Version
from service.store.directory.data_directory import DataDirectory
from service.store.states.snapshots import Snapshot

Floats = NDArray[np.floating[Any]]
THRESHOLD: Final = 0.5


class ModelResources(NamedTuple):
    """What the served models of one worker share.

    Attributes:
        settings: The limits.
        meter: Where the worker counts.
        executor: Where long kernel calls run.
        preparer: Where what is new is made ready: one thread, which gives way to requests.
        data: Where streams are kept, or None where nothing is learned.
    """

    settings: Settings
    meter: WorkerCounters
    executor: Executor
    preparer: Executor
    data: DataDirectory | None = None


class ServedModel:
    """One model version at one seq, with what its answers repeat already encoded.

    Args:
        version: Its name and number.
        artifact: What it began as.
        kit: What the worker's models share.
        snapshot: What it has learned, or None at seq 0.
        bound_differs: Whether the models directory has another artifact by now than `artifact`, its stream's.

    Attributes:
        key: The name and the number of the version.
        now_ms: One cell with milliseconds since 1970, renewed ten times a second.
        single_row: Predicts requests of one row by the shortest way, or None.
        source: The artifact as the models directory has it; `artifact` is another where its stream began with another.
        parameters: How many numbers the answers are made with: those of every weight, bias, delta and calibration.
        classes_max: So many classes it may have: what it has learned can still be exported and loaded again.

    Raises:
        ValueError: The artifact or the snapshot makes no model.
        SnapshotError: The snapshot lacks a field.
    """

    def __init__(
        self,
        version: Version,
        artifact: Artifact,
        kit: ModelResources,
        snapshot: tuple[int, Snapshot] | None = None,
        *,
        bound_differs: bool = False,
    ) -> None:
        settings, meter = kit.settings, kit.meter
        self._made_of: Final = version, artifact, kit
        self.source: Final = version.artifact
        self.bound_differs: Final = bound_differs
        manifest = artifact.manifest
        self.name: Final = version.name
        self.version: Final = str(version.version)
        self.key: Final = version.name, version.version
        self.artifact: Final = artifact
        self.manifest: Final = manifest
        self.seq, learned = snapshot or (0, None)
        self.learned: Final = learned
        answering = initial_parameters(artifact) if learned is None else _learned(manifest, learned)
        self.model: Final = answering.build_model()
        self.parameters: Final = sum(tensor.size for tensor in answering.tensors())
        # Requests of more rows than this go through the batcher; those of a heavy model always do.
        self.inline_rows: Final = 0 if is_heavy(self.model) else inline_rows(self.model, settings.thread_after_us)
        self.classes: Final = manifest.classes if learned is None else tuple(learned.fields["classes"])
        self.classes_max: Final = len(self.classes) + self._class_room(settings.artifact_bytes_max)
        self.thresholds: Final = _thresholds(artifact, len(self.classes))
        rows_max = min(settings.rows_max, max(1, settings.answer_cells_max // self.model.n_classes))
        self.rows: Final = RowParser(self.model.n_features, self.model.dtype, rows_max, settings.json_depth_max)
        self.class_json: Final = [orjson.dumps(name) for name in self.classes]
        named = {"model_name": self.name, "model_version": self.version}
        # The state that an answer comes from; where something was forgotten, a seq alone does not name it.
        epoch = 0 if learned is None else learned.fields["epoch"]
        state = {"seq": self.seq, "epoch": epoch} if epoch else {"seq": self.seq}
        self.v1_tail: Final = b"]," + orjson.dumps({**named, **state})[1:]
        self.v1_single: Final = [b',"labels":[' + name + self.v1_tail for name in self.class_json]
        self.tensors: Final = TensorCodec(self.rows, named, state, self.classes)
        self.counters: Final = meter.model_counters(version.name, version.version)
        self.now_ms: Final = meter.now_ms
        self.model.classify(np.zeros((1, self.model.n_features), self.model.dtype))
        self.single_row: Final = self._single_row(meter)
        # Its own, so that requests which share a call share a model as well.
        self.batcher: Final = Batcher(
            self.model,
            settings.batch_rows_max,
            settings.thread_after_us,
            kit.executor,
            _counted(meter, self.counters),
        )

    def _class_room(self, bytes_max: int) -> int:
        """How many classes may be added before the tensors have so many bytes."""
        weights = 1 + self.model.layers[-1].inputs
        # A model may learn in a delta, which then has as many weights again.
        bytes_per_class = 2 * weights * self.model.dtype.itemsize
        return max(0, bytes_max - self.parameters * self.model.dtype.itemsize) // bytes_per_class

    def learned_more(self, seq: int, snapshot: Snapshot) -> "ServedModel":
        """The same version at a later seq."""
        return ServedModel(*self._made_of, (seq, snapshot), bound_differs=self.bound_differs)

    def _single_row(self, meter: WorkerCounters) -> SingleRow | None:
        """What answers requests of one row by the shortest way; None where the model is not made for it."""
        single = self.model.single_row_plan() if self.inline_rows and self.thresholds is None else None
        return None if single is None else SingleRow(single, self.counters, meter)

    def progress(self) -> dict[str, Any]:
        """What the served state tells of its learning, in numbers."""
        fields = {} if self.learned is None else self.learned.fields
        return {
            "seq": self.seq,
            "epoch": fields.get("epoch", 0),
            "bound_differs": self.bound_differs,
            "published_seconds": self._published_seconds(),
            **fields.get("progressive", {}),
        }

    def _published_seconds(self) -> float | None:
        """When what is served was published, in seconds since 1970; None for an artifact that learned nothing."""
        published = None if self.learned is None else self.learned.fields.get("published_ms")
        return None if published is None else published / 1000

    def metadata(self) -> dict[str, Any]:
        """What GET /v1/models/{name} tells, but for the states of other versions."""
        manifest = self.manifest
        learned = {} if self.learned is None else self.learned.fields
        chosen = None if manifest.learning is None else manifest.learning.model_dump()
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
            "layers": [layer._asdict() for layer in self.model.layers],
            "parameters": self.parameters,
            "seq": self.seq,
            "epoch": learned.get("epoch", 0),
            "bound_differs": self.bound_differs,
            "published_seconds": self._published_seconds(),
            "weights_sha256": learned.get("weights_sha256", self.artifact.weights_sha256),
            "learning": learned.get("learning", chosen),
            "calibration": learned.get("calibration", describe_calibration(manifest.calibration, manifest.scaling)),
            "progressive": learned.get("progressive", {"events": 0, "rows": 0, "loss": None, "accuracy": None}),
            "metrics": manifest.metrics,
            "provenance": manifest.provenance,
        }


def _counted(meter: WorkerCounters, counters: memoryview) -> Callable[[Classifier, Floats], Classification]:
    """Calls of a model that count themselves."""

    def classify(model: Classifier, X: Floats) -> Classification:
        before = perf_counter_ns()
        classified = model.classify(X)
        meter.count_kernel_call(counters, perf_counter_ns() - before)
        return classified

    return classify


def _learned(manifest: Manifest, snapshot: Snapshot) -> Parameters:
    try:
        return restore_parameters(manifest, snapshot.arrays, snapshot.fields["clips"])
    except KeyError as error:
        raise SnapshotError("a snapshot lacks a part of the model") from error


def _thresholds(artifact: Artifact, n_classes: int) -> Floats | None:
    """The probability from which each label of a multilabel head holds; None for the other heads."""
    manifest = artifact.manifest
    if manifest.head != "multilabel":
        return None
    given = manifest.thresholds or ()
    return np.array([*given, *[THRESHOLD] * (n_classes - len(given))])
