"""Bodies of the native calls that describe models."""

from typing import Any, Final, Literal

from pydantic import Field, RootModel

from service.serve.api.schemas.explain_bodies import PlattCalibration, TemperatureCalibration
from service.serve.api.schemas.schema_types import (
    IRIS_CLASSES,
    IRIS_FEATURES,
    Count,
    ResponseModel,
    Seq,
    Sha256,
    absent,
)
from service.serve.api.schemas.tensorflow_bodies import AVAILABLE, UNLOADED, VersionStatus
from service.softmax.reliability_diagram import BINS


class ModelListEntry(ResponseModel):
    """One model of the list."""

    name: str = Field(description="The model's name.")
    version: str = Field(description="The version that is served by default; the largest if none is served.")
    state: Literal["READY", "UNAVAILABLE"] = Field(description="Whether a version of the model is served.")


class ModelList(ResponseModel):
    """Every model."""

    models: list[ModelListEntry] = Field(description="The models, in the order of their names.")


class VersionState(ResponseModel):
    """The state of one version."""

    version: str = Field(description="The version's number.")
    state: Literal["READY", "UNAVAILABLE"] = Field(description="Whether the version is served.")
    reason: str = Field(description="Why it, or a newer artifact of it, is not served; empty otherwise.")


class LayerDescription(ResponseModel):
    """One layer of a model."""

    inputs: Count = Field(description="How many numbers the layer takes.")
    outputs: Count = Field(description="How many numbers the layer gives.")
    activation: str = Field(description='What is applied to its output; "identity" for the head\'s layer.')


class LearningDescription(ResponseModel):
    """The learning rule of a model."""

    rule: str = Field(description="The rule's name.")
    form: str = Field(default_factory=absent, description="Which of the weights learn; present from the first event.")
    constants: dict[str, float] = Field(description="The rule's constants by name.")
    paused: bool = Field(
        default_factory=absent, description="Whether feedback is ignored; present from the first event."
    )
    shadow: bool = Field(
        default_factory=absent,
        description="Whether the model learns while it serves the weights it had before; present from the first event.",
    )


class LearnedTemperature(TemperatureCalibration):
    """The temperature of a softmax head."""

    learn: bool = Field(description="Whether feedback changes it.")


class LearnedPlatt(PlattCalibration):
    """Platt scaling of a sigmoid head."""

    learn: bool = Field(description="Whether feedback changes it.")


class ReliabilityBin(ResponseModel):
    """The recent rows of one interval of confidence."""

    rows: Count = Field(description="How many rows the bin has.")
    confidence: float | None = Field(description="Their mean confidence; null if there are none.")
    accuracy: float | None = Field(description="The share of them that was right; null if there are none.")


class Reliability(ResponseModel):
    """How well confidence and accuracy agree over the recent rows."""

    rows: Count = Field(description="How many recent rows are counted.")
    expected_error: float | None = Field(description="The expected calibration error; null if there are no rows.")
    bins: list[ReliabilityBin] = Field(
        min_length=BINS, max_length=BINS, description="The bins of equal width, from low to high confidence."
    )


Mean = float | None


class ProgressiveValidation(ResponseModel):
    """How well the model predicted its feedback, each row before it learned from it.

    A mean that no row stands behind is null, and so is a norm before the first step.
    """

    events: Count = Field(description="How many feedback events were learned.")
    rows: Count = Field(description="How many rows were learned.")
    loss: Mean = Field(description="The mean loss of all rows.")
    accuracy: Mean = Field(description="The share of all rows that was predicted right.")
    unfit_events: Count = Field(default_factory=absent, description="Events that no longer fit the model.")
    recent_rows: Count = Field(default_factory=absent, description="How many rows the recent figures cover.")
    recent_loss: float | None = Field(
        default_factory=absent, description="The mean loss of the recent rows; null before any."
    )
    recent_accuracy: float | None = Field(
        default_factory=absent, description="The accuracy over the recent rows; null before any."
    )
    skipped_rows: Count = Field(default_factory=absent, description="Rows that were too large for a finite step.")
    steps: Count = Field(default_factory=absent, description="How many steps the weights took.")
    step_norm: float | None = Field(
        default_factory=absent, description="The Euclidean norm of the last step; null before any."
    )
    mean_step_norm: float | None = Field(
        default_factory=absent, description="The mean norm of all steps; null before any."
    )
    calibration: Reliability = Field(
        default_factory=absent, description="How well confidence and accuracy agree; present from the first event."
    )


class LearnerStatus(ResponseModel):
    """The state of the learner for a model's feedback."""

    state: Literal["following", "refolding", "stalled", "held", "diverged", "receiving", "unavailable"] = Field(
        description="`following`: it learns new events. `refolding`: it computes a state again after a rollback or "
        "a forget. `stalled`: it fails at an event. `held`: it does not learn. `diverged`: it differs from other "
        "replicas, and learns again. `receiving`: this replica has the role worker, and serves what learners have "
        "folded. `unavailable`: the log is unreadable."
    )
    reason: str = Field(default_factory=absent, description="Why it is stalled, held or diverged.")
    seq: Seq = Field(default_factory=absent, description="The event at which it is stalled or diverged.")
    target: Seq = Field(default_factory=absent, description="The seq that refolding leads to.")
    refolded: float = Field(default_factory=absent, ge=0, le=1, description="The share of the events that is refolded.")


class FieldDescription(ResponseModel):
    """A field of a row."""

    name: str = Field(description="The name of the field; without a source that of its value in a row too.")
    kind: Literal["number", "boolean", "category", "text", "bag", "vector", "cross"] = Field(
        description="The kind of the field; docs/fields.md describes each."
    )
    source: str = Field(
        default_factory=absent, description="The name of the value in a row, if it is not that of the field."
    )
    takes: str | None = Field(description="The values that the field takes, in words; null for a cross.")
    required: bool = Field(default_factory=absent, description="Whether its value must be given; left out for a cross.")
    mean: float = Field(default_factory=absent, description="What is subtracted from a number.")
    scale: float = Field(default_factory=absent, gt=0, description="By what the difference is divided.")
    values: list[str | bool | int] = Field(
        default_factory=absent, description="The categories; left out if they are hashed or too many to list."
    )
    size: Count = Field(default_factory=absent, description="How many numbers a vector has.")


class ModelMetadata(ResponseModel):
    """A model version that is served, and the state of each version of the model."""

    name: str = Field(description="The model's name.")
    version: str = Field(description="The version described.")
    state: Literal["READY"] = Field(description="The version is served.")
    ready: Literal[True] = Field(description="Whether the version takes predictions.")
    head: Literal["softmax", "sigmoid", "multilabel", "ovr"] = Field(
        description="How logits become probabilities and a label."
    )
    classes: list[str] = Field(description="The names of the classes, in the order of probabilities.")
    n_features: Count = Field(description="How many numbers a row has.")
    features: list[str] = Field(
        description="The names of the features, in the order of a row; for a model with fields those of its columns."
    )
    fields: list[FieldDescription] = Field(
        default_factory=absent, description="The fields of a row; left out for a model whose rows are numbers."
    )
    dtype: Literal["float32", "float64"] = Field(description="The type of the numbers that the model computes with.")
    layers: list[LayerDescription] = Field(description="The layers, the head's last.")
    parameters: Count = Field(description="How many numbers the layers and the calibration hold.")
    seq: Seq = Field(description="The last event that the served weights hold.")
    epoch: Count = Field(description="How often feedback of this version was forgotten.")
    bound_differs: bool = Field(
        description="Whether the models directory has another artifact than the one that learns."
    )
    published_seconds: float | None = Field(
        description="When the served weights were published, in seconds since 1970; null before any feedback."
    )
    weights_sha256: Sha256 = Field(description="The SHA-256 of the function that is served; at seq 0 the artifact's.")
    learning: LearningDescription | None = Field(
        description="The learning rule; null if the default applies and nothing was learned."
    )
    calibration: LearnedTemperature | LearnedPlatt | None = Field(
        description="The calibration between logits and probabilities; null if there is none."
    )
    progressive: ProgressiveValidation = Field(description="How well the model predicted its feedback.")
    metrics: dict[str, float] = Field(description="Figures that the artifact's author recorded.")
    provenance: dict[str, str] = Field(description="Where the artifact comes from.")
    versions: list[VersionState] = Field(description="The state of each version of the model.")
    model_version_status: list[VersionStatus] = Field(
        description="The status of each version, or of the version in the path, in the form of TensorFlow Serving."
    )
    log_seq: Seq = Field(default_factory=absent, description="The last event that is committed.")
    lag_events: Count = Field(
        default_factory=absent, description="How many committed events the served weights do not hold yet."
    )
    lag_seconds: float = Field(default_factory=absent, ge=0, description="The age of the first of them.")
    learner: LearnerStatus = Field(default_factory=absent, description="The learner; left out if learning is off.")
    erased: bool = Field(default_factory=absent, description="Whether nothing on disk holds a forgotten event.")
    archived_until_ms: Count = Field(
        default_factory=absent,
        description="Until when archives and backups of PostgreSQL may hold a forgotten event, in milliseconds since "
        "1970; left out if nothing was forgotten, or without `SOFTSTEP_LOG_ARCHIVE_SECONDS`.",
    )


class RowSchema(RootModel[dict[str, Any]]):
    """The JSON Schema (draft 2020-12) of a row as an object."""


class UnavailableModel(ResponseModel):
    """A model of which no version is served."""

    name: str = Field(description="The model's name.")
    version: str = Field(description="The largest version.")
    state: Literal["UNAVAILABLE"] = Field(description="No version is served.")
    ready: Literal[False] = Field(description="Whether the model takes predictions.")
    versions: list[VersionState] = Field(description="The state of each version of the model.")
    model_version_status: list[VersionStatus] = Field(
        description="The status of each version in the form of TensorFlow Serving."
    )


ROW_SCHEMA: Final = {
    "iris": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A row of iris, version 1",
        "description": "A row as an object. A list of its values in this order is accepted too.",
        "type": "object",
        "properties": {name: {"description": "A feature.", "type": "number"} for name in IRIS_FEATURES},
        "required": IRIS_FEATURES,
        "additionalProperties": False,
        "examples": [dict.fromkeys(IRIS_FEATURES, 0.0)],
    }
}
IRIS_SHA256: Final = "9a480578fb316e30feaa050d5f795ad01a7d1c9ea61d7e6a122da5b47a7a0eaf"
# What stands at the start of the file of weights, after the eight bytes of its length.
WEIGHTS_HEADER: Final = {
    "__metadata__": {"softstep": f'{{"seq":0,"weights_sha256":"{IRIS_SHA256}"}}'},
    "bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    "weight": {"dtype": "F32", "shape": [4, 3], "data_offsets": [12, 60]},
}
MODELS: Final = {"one model": {"models": [{"name": "iris", "version": "1", "state": "READY"}]}}
METADATA: Final = {
    "before any feedback": {
        "name": "iris",
        "version": "1",
        "state": "READY",
        "ready": True,
        "head": "softmax",
        "classes": IRIS_CLASSES,
        "n_features": 4,
        "features": IRIS_FEATURES,
        "dtype": "float32",
        "layers": [{"inputs": 4, "outputs": 3, "activation": "identity"}],
        "parameters": 15,
        "seq": 0,
        "epoch": 0,
        "bound_differs": False,
        "published_seconds": None,
        "weights_sha256": IRIS_SHA256,
        "learning": None,
        "calibration": None,
        "progressive": {"events": 0, "rows": 0, "loss": None, "accuracy": None},
        "metrics": {"held_out_rows": 38.0, "log_loss": 0.028086, "accuracy": 1.0},
        "provenance": {"data_set": "Iris (Fisher, 1936)", "licence": "CC BY 4.0"},
        "versions": [{"version": "1", "state": "READY", "reason": ""}],
        "model_version_status": AVAILABLE,
        "log_seq": 0,
        "lag_events": 0,
        "lag_seconds": 0.0,
        "learner": {"state": "following"},
        "erased": True,
    },
    "unloaded": {
        "name": "iris",
        "version": "1",
        "state": "UNAVAILABLE",
        "ready": False,
        "versions": [{"version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}],
        "model_version_status": UNLOADED,
    },
}
