"""One model version as it is served at one moment, with everything that its responses repeat already encoded.

A version begins as its artifact, at seq 0. What it learns arrives as snapshots; each holds the events up to its seq.
Each snapshot makes another `ServedModel`; the previous one still answers the requests that it has begun.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import cached_property
from time import perf_counter_ns
from typing import Any, Final, NamedTuple, cast

import numpy as np
import orjson

from service.errors import SnapshotError
from service.serve.metrics.counters import WorkerCounters
from service.serve.metrics.field_counters import FieldKey
from service.serve.models.batcher import Batcher, Classification, inline_rows, is_heavy
from service.serve.models.single_row import SingleRow
from service.serve.wire.model_codec import make_codec
from service.serve.wire.model_tables import ModelTables, RowLimits, make_tables
from service.settings import Settings
from service.softmax.arrays import Floats
from service.softmax.classifier import Classifier
from service.softmax.parameters import Parameters
from service.softmax.row_protocols import RowModel
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import Rows, SparseRows
from service.store.artifact.artifact import Artifact
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.manifest import Manifest
from service.store.artifact.model_factory import initial_parameters, restore_parameters
from service.store.artifact.repository import Version
from service.store.directory.data_directory import DataDirectory
from service.store.states.served_state import count_parameters, describe_progress, served_sha256
from service.store.states.snapshots import Snapshot

# The probability from which a label holds if the manifest gives no threshold.
THRESHOLD: Final = 0.5
# The levels of a body with rows of names and values: `{"instances": [{"basket": ["milk"]}]}`.
OBJECT_DEPTH: Final = 4
# The progressive validation before the first event.
NO_PROGRESS: Final = {"events": 0, "rows": 0, "loss": None, "accuracy": None}


class ModelResources(NamedTuple):
    """Resources that the served models of one worker share.

    Attributes:
        settings: The limits.
        counters: The worker's counters.
        executor: The threads of long kernel calls.
        preparer: One thread of low priority that prepares new models and snapshots.
        data: The data directory, or None if the service does not learn.
    """

    settings: Settings
    counters: WorkerCounters
    executor: Executor
    preparer: Executor
    data: DataDirectory | None = None


class ServedModel:
    """One model version at one seq.

    Args:
        version: The version as found in the models directory.
        artifact: The artifact that its stream began with.
        resources: What the worker's models share.
        snapshot: The seq and the snapshot of what it has learned, or None at seq 0.
        bound_differs: Whether the models directory now has an artifact other than `artifact`.

    Attributes:
        key: The name and the number of the version.
        now_ms: One cell with milliseconds since 1970, renewed ten times a second.
        tables: The parser of the model's bodies.
        tensors: The codec of the bodies of v2.
        field_key: The name of the counters of its fields, or None if rows are numbers.
        classify: Calls the model: rows in its form -> probabilities and labels.
        single_row: The shortest way to predict one row, or None if the model has none.
        source: The artifact in the models directory; it differs from `artifact` if `bound_differs`.
        parameters: The number of parameters: every weight, bias, delta and calibration.
        artifact_bytes_max: The most bytes that the tensors of an artifact may have, without those of its fields.
        classes_max: The most classes with which what it has learned can be exported and loaded again; a mixture, which
            has more weights, may have fewer.

    Raises:
        ValueError: The artifact or the snapshot is not a valid model.
        SnapshotError: The snapshot lacks a field.
    """

    def __init__(
        self,
        version: Version,
        artifact: Artifact,
        resources: ModelResources,
        snapshot: tuple[int, Snapshot] | None = None,
        *,
        bound_differs: bool = False,
    ) -> None:
        settings, counters = resources.settings, resources.counters
        self._source_arguments: Final = version, artifact, resources
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
        parameters = initial_parameters(artifact) if learned is None else _restore(manifest, learned)
        self.model: Final = parameters.build_model()
        self.classify: Final = cast("Callable[[Rows], Classification]", self.model.classify)
        self.parameters: Final = count_parameters(parameters)
        self._parameters: Final = parameters
        # Requests of more rows than this go through the batcher; those of a heavy model always do.
        self.inline_rows: Final = 0 if is_heavy(self.model) else inline_rows(self.model, settings.thread_after_us)
        self.classes: Final = manifest.classes if learned is None else tuple(learned.fields["classes"])
        fixed_bytes = sum(tensor.nbytes for tensor in artifact.fixed_tensors.values())
        self.artifact_bytes_max: Final = settings.artifact_bytes_max - fixed_bytes
        self.classes_max: Final = len(self.classes) + self._class_room()
        self.thresholds: Final = _thresholds(artifact, len(self.classes))
        fields = artifact.manifest.fields
        self.field_key: Final = None if fields is None else FieldKey(*self.key, tuple(field.name for field in fields))
        self._count_values: Final = None if self.field_key is None else counters.field_counters(self.field_key).add
        self._objects: Final = artifact.object_plan if settings.json_depth_max >= OBJECT_DEPTH else None
        self.tables: Final = self._make_tables(settings)
        self.class_json: Final = [orjson.dumps(name) for name in self.classes]
        named = {"model_name": self.name, "model_version": self.version}
        # The state that a response comes from; once something was forgotten, a seq alone does not identify it.
        epoch = 0 if learned is None else learned.fields["epoch"]
        state = {"seq": self.seq, "epoch": epoch} if epoch else {"seq": self.seq}
        self.v1_tail: Final = b"]," + orjson.dumps({**named, **state})[1:]
        self.v1_single: Final = [b',"labels":[' + name + self.v1_tail for name in self.class_json]
        self.tensors: Final = make_codec(self.tables, named, state, self.classes)
        self.counters: Final = counters.model_counters(version.name, version.version)
        self.now_ms: Final = counters.now_ms
        self.classify(_row_of_zeros(self.model))
        self.single_row: Final = self._make_single_row(counters)
        self.queue_seconds: Final = settings.queue_seconds
        # Each state has its own batcher, so requests that share a kernel call share the model too.
        self.batcher: Final = Batcher(
            self.model,
            settings.batch_rows_max,
            settings.thread_after_us,
            resources.executor,
            _counted(counters, self.counters),
        )

    def _make_tables(self, settings: Settings) -> ModelTables:
        """Return the parser of the model's bodies."""
        rows_max = min(settings.rows_max, max(1, settings.answer_cells_max // self.model.n_classes))
        row = self.artifact.row_encoder or self.artifact.column_names
        limits, is_sparse = RowLimits(rows_max, settings.json_depth_max), self.artifact.has_sparse_rows
        return make_tables(
            row, self.model.dtype, limits, self._count_values, objects=self._objects, is_sparse=is_sparse
        )

    @property
    def dense_model(self) -> Classifier:
        """The model, if its rows are dense.

        Raises:
            TypeError: They are sparse.
        """
        if isinstance(self.model, SparseModel):
            raise TypeError("the rows of this model are sparse")
        return self.model

    @property
    def sparse_model(self) -> SparseModel:
        """The model, if its rows are sparse.

        Raises:
            TypeError: They are dense.
        """
        if not isinstance(self.model, SparseModel):
            raise TypeError("the rows of this model are dense")
        return self.model

    def _class_room(self) -> int:
        """Return how many classes may be added before the tensors have as many bytes as an artifact's may have."""
        weights = 1 + self.model.layers[-1].inputs
        # A model may learn in a delta, which doubles its weights.
        bytes_per_class = 2 * weights * self.model.dtype.itemsize
        return max(0, self.artifact_bytes_max - self.parameters * self.model.dtype.itemsize) // bytes_per_class

    def with_snapshot(self, seq: int, snapshot: Snapshot) -> "ServedModel":
        """Return the same version at another seq."""
        return ServedModel(*self._source_arguments, (seq, snapshot), bound_differs=self.bound_differs)

    def as_trained(self) -> "ServedModel":
        """Return the same version at seq 0."""
        return ServedModel(*self._source_arguments, bound_differs=self.bound_differs)

    def _make_single_row(self, counters: WorkerCounters) -> SingleRow | None:
        """Return the shortest way to predict one row; None if the model has none."""
        is_readable = self.field_key is None or self._objects is not None
        usual = self.inline_rows and self.thresholds is None and is_readable
        plan = self.model.single_row_plan() if usual else None
        if plan is None:
            return None
        return SingleRow(plan, self.counters, counters, self._objects, self._count_values)

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the function that is served; see `hash_weights`. Hashing a sparse model takes long, once."""
        if self.learned is None:
            return self.artifact.weights_sha256
        return served_sha256(self._parameters, self.learned.fields)

    def progress(self) -> dict[str, Any]:
        """Return the numbers of the learning that led to the served state, for the metrics."""
        fields = {} if self.learned is None else self.learned.fields
        return {
            "seq": self.seq,
            "epoch": fields.get("epoch", 0),
            "bound_differs": self.bound_differs,
            "published_seconds": self.published_seconds,
            **describe_progress(fields.get("progressive", {})),
        }

    @property
    def published_seconds(self) -> float | None:
        """The time when the served state was published, in seconds since 1970; None at seq 0."""
        published = None if self.learned is None else self.learned.fields.get("published_ms")
        return None if published is None else published / 1000

    def metadata(self) -> dict[str, Any]:
        """Return the response of GET /v1/models/{name}, without the states of other versions."""
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
            "features": self.artifact.column_names,
            "dtype": manifest.dtype,
            "layers": [layer._asdict() for layer in self.model.layers],
            "parameters": self.parameters,
            "seq": self.seq,
            "epoch": learned.get("epoch", 0),
            "bound_differs": self.bound_differs,
            "published_seconds": self.published_seconds,
            "weights_sha256": self.weights_sha256,
            "learning": learned.get("learning", chosen),
            "calibration": learned.get("calibration", describe_calibration(manifest.calibration, manifest.scaling)),
            "progressive": describe_progress(learned.get("progressive", NO_PROGRESS)),
            "metrics": manifest.metrics,
            "provenance": manifest.provenance,
        }


def _counted(worker: WorkerCounters, counters: memoryview) -> Callable[[RowModel, Rows], Classification]:
    """Return a function that calls a model and counts the call."""

    def classify(model: RowModel, rows: Rows) -> Classification:
        before = perf_counter_ns()
        classified = model.classify(rows)
        worker.count_kernel_call(counters, perf_counter_ns() - before)
        return classified

    return classify


def _restore(manifest: Manifest, snapshot: Snapshot) -> Parameters:
    try:
        return restore_parameters(manifest, snapshot.arrays, snapshot.fields["clips"])
    except KeyError as error:
        raise SnapshotError("a snapshot lacks a part of the model") from error


def _row_of_zeros(model: Classifier | SparseModel) -> Rows:
    if isinstance(model, SparseModel):
        return SparseRows(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, model.dtype))
    return np.zeros((1, model.n_features), model.dtype)


def _thresholds(artifact: Artifact, n_classes: int) -> Floats | None:
    """Return the threshold of each label of a multi-label head (C,); None for other heads."""
    manifest = artifact.manifest
    if manifest.head != "multilabel":
        return None
    given = manifest.thresholds or ()
    return np.array([*given, *[THRESHOLD] * (n_classes - len(given))])
