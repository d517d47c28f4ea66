"""`model.json` as a record: which words an artifact's manifest may use, and how each of them is checked.

The format as a whole, with its table, opens `artifact.py`. Parsing is strict twice over: JSON as RFC 8259 has it
(UTF-8, no byte order mark, no key twice, no NaN), then the fields below (none unknown, no type converted).
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from service.errors import ArtifactError
from service.softmax.calibration import Calibration, calibration_tensors
from service.store.artifact.calibration_record import CalibrationRecord, calibration_fits_head
from service.store.artifact.record import Record

FORMAT_VERSION = 1
# A name stands in every answer that gives labels, in metadata and in error messages, so its length is bounded.
NAME_CHARACTERS_MAX = 256
# Long enough for what a field's complaint needs, short enough for a log line; file contents may be quoted in it.
REASON_CHARACTERS_MAX = 300
# Deeper than layers can be trained without skips between them, and few enough for any message.
LAYERS_MAX = 128
# The largest integer that every JSON reader keeps exactly (float64).
ROWS_MAX = 2**53


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("the names must differ from each other")
    return names


Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, fail_fast=True), AfterValidator(_unique)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Finites = Annotated[tuple[FiniteFloat, ...], Field(fail_fast=True)]
Positives = Annotated[tuple[Positive, ...], Field(fail_fast=True)]
Probabilities = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(fail_fast=True)]


class LayerRecord(Record):
    """One affine layer: the names of its two tensors and what follows them.

    Attributes:
        weight: Name of the tensor of shape (N, K).
        bias: Name of the tensor of shape (K,).
        activation: What is applied to the layer's output: one of the three functions for a hidden layer, "identity" for
            the last one, for the head comes behind it.
    """

    weight: Name
    bias: Name
    activation: Literal["identity", "relu", "sigmoid", "tanh"]


class StageRecord(Record):
    """What is done to a row before the weights see it: (x - mean) / scale, then cut to [-clip, clip].

    Attributes:
        mean: One number for each feature.
        scale: One positive number for each feature.
        clip: The cut, or None for no cut.
    """

    mean: Finites
    scale: Positives
    clip: Positive | None = None


class TrainingRecord(Record):
    """What the weights were trained on; it tells how firmly they hold. Kept also where the weights take raw features.

    Attributes:
        rows: Number of training rows.
        mean: Mean of each feature over those rows.
        scale: Population standard deviation of each feature; 1 for a constant feature, as in scikit-learn.
    """

    rows: Annotated[int, Field(ge=1, le=ROWS_MAX)]
    mean: Finites
    scale: Positives


class DeltaRecord(Record):
    """What learning has added to the weights: a tensor that acts on the features as `training` standardises them.

    Attributes:
        weight: Name of the tensor of shape (N, K).
        clip: The cut of the standardised features.
    """

    weight: Name
    clip: Positive


class LearningRecord(Record):
    """The learning rule that feedback follows, with its constants.

    Attributes:
        rule: Name of the rule.
        constants: The rule's numbers by name.
    """

    rule: Name
    constants: dict[Name, FiniteFloat] = Field(default_factory=dict)


class Manifest(Record):
    """Everything about a model but its tensors; `artifact.py` describes each field.

    Raises:
        pydantic.ValidationError: A field is missing, unknown, of the wrong type, or contradicts another.
    """

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    head: Literal["softmax", "sigmoid", "multilabel", "ovr"]
    classes: Names
    features: Names
    dtype: Literal["float32", "float64"]
    layers: Annotated[tuple[LayerRecord, ...], Field(min_length=1, max_length=LAYERS_MAX, fail_fast=True)]
    thresholds: Probabilities | None = None
    stage: StageRecord | None = None
    training: TrainingRecord | None = None
    delta: DeltaRecord | None = None
    calibration: CalibrationRecord | None = None
    learning: LearningRecord | None = None
    provenance: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    tensors_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def n_features(self) -> int:
        """The number N of features of a row."""
        return len(self.features)

    @property
    def n_outputs(self) -> int:
        """The number K of logits: 1 for the sigmoid head, else the number of classes."""
        return 1 if self.head == "sigmoid" else len(self.classes)

    @property
    def scaling(self) -> Calibration | None:
        """What is done to the logits before the head."""
        return None if self.calibration is None else self.calibration.scaling()

    @property
    def numbers(self) -> list[NDArray[np.float64]]:
        """The numbers of the calibration as a tensor, if there is one."""
        return calibration_tensors(self.scaling)

    @property
    def hidden(self) -> tuple[LayerRecord, ...]:
        """The hidden layers, the first one first; a linear model has none."""
        return self.layers[:-1]

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of all tensors in manifest order: weight, then bias, layer by layer, then the delta's weight."""
        names = [name for layer in self.layers for name in (layer.weight, layer.bias)]
        return (*names, *([] if self.delta is None else [self.delta.weight]))

    def tensor_shapes(self, widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Each tensor's shape by its name, in manifest order.

        Args:
            widths: How many activations each hidden layer gives, which the tensors say, and not the manifest.
        """
        sizes = pairwise([self.n_features, *widths, self.n_outputs])
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, outputs) in zip(self.layers, sizes, strict=True):
            shapes |= {layer.weight: (inputs, outputs), layer.bias: (outputs,)}
        if self.delta is not None:
            shapes[self.delta.weight] = (self.n_features, self.n_outputs)
        return shapes

    @model_validator(mode="after")
    def _fields_agree(self) -> "Manifest":
        self._check_classes()
        self._check_layers()
        self._check_learning()
        _check_length("thresholds", self.thresholds, len(self.classes), "class")
        for name, record in (("stage", self.stage), ("training", self.training)):
            if record is not None:
                _check_length(f"{name}.mean", record.mean, self.n_features, "feature")
                _check_length(f"{name}.scale", record.scale, self.n_features, "feature")
        return self

    def _check_classes(self) -> None:
        if self.head == "sigmoid" and len(self.classes) != 2:  # noqa: PLR2004
            raise ValueError("a sigmoid head has exactly two classes")
        if self.head in {"softmax", "ovr"} and len(self.classes) < 2:  # noqa: PLR2004
            raise ValueError(f"a head of the kind {self.head} has at least two classes")
        if self.thresholds is not None and self.head != "multilabel":
            raise ValueError("only a multilabel head has thresholds")
        if self.calibration is not None and not calibration_fits_head(self.calibration, self.head):
            raise ValueError("calibration is of the kind temperature for a softmax head, platt for a sigmoid head")

    def _check_layers(self) -> None:
        if self.layers[-1].activation != "identity":
            raise ValueError("the last layer gives the logits, so its activation must be identity")
        if any(layer.activation == "identity" for layer in self.hidden):
            raise ValueError("the activation of a hidden layer, one before the last, must be relu, sigmoid or tanh")
        names = self.tensor_names
        if len(set(names)) < len(names):
            raise ValueError("each weight, bias and delta must be a tensor of its own")
        if "__metadata__" in names:
            raise ValueError("no tensor may have the name __metadata__, which safetensors keeps for itself")

    def _check_learning(self) -> None:
        if self.delta is not None and self.training is None:
            raise ValueError("a delta needs the training statistics that it was learned on")
        if self.hidden and self.delta is not None:
            raise ValueError("a model with hidden layers learns in all of them, and has no delta")
        if self.hidden and self.learning is not None and self.learning.rule == "newton":
            raise ValueError("the rule newton is for models without hidden layers; adagrad, ftrl and sgd learn in all")


def _check_length(name: str, values: Sequence[float] | None, length: int, each: str) -> None:
    if values is not None and len(values) != length:
        raise ValueError(f"{name} must hold one number for each {each}")


def parse_manifest(raw: bytes) -> Manifest:
    """Reads the bytes of a `model.json`.

    Args:
        raw: The whole file; the caller has bounded its size.

    Returns:
        The manifest, checked in itself; whether the tensors agree with it is for `Artifact` to say.

    Raises:
        ArtifactError: The bytes are no JSON of our grammar, or no manifest.
    """
    _check_json(raw)
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ArtifactError(f"model.json is not a valid manifest: {_first_complaint(error)}") from None


def dump_manifest(manifest: Manifest) -> bytes:
    """Writes a manifest as JSON with one field on each line, so that two versions compare well.

    Args:
        manifest: Any manifest.

    Returns:
        UTF-8 bytes that `parse_manifest` reads back as an equal manifest.
    """
    fields = manifest.model_dump(mode="json", exclude_none=True)
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _check_json(raw: bytes) -> None:
    """Refuses what pydantic's parser would let pass: it takes the last of two equal keys, and NaN."""
    try:
        # Numbers are converted by pydantic alone; float keeps Python's limit on integer digits out of the way.
        json.loads(raw.decode(), object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_int=float)
    except UnicodeDecodeError:
        raise ArtifactError("model.json is not UTF-8") from None
    except RecursionError:
        raise ArtifactError("model.json is nested too deeply") from None
    except ValueError as error:
        raise ArtifactError(f"model.json is not valid JSON: {error}") from None


def _distinct(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("an object has the same key twice")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _first_complaint(error: ValidationError) -> str:
    """The first complaint as `field: what is wrong`, cut and printable, because keys may come from the file."""
    complaint = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part)[:NAME_CHARACTERS_MAX] for part in complaint["loc"])
    sentence = complaint["msg"].removeprefix("Value error, ")
    printable = (f"{field}: {sentence}" if field else sentence).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in printable[:REASON_CHARACTERS_MAX])
