"""The manifest of an artifact as a record: its fields, and how each of them is checked.

The table of the format is in `artifact.py`, and `manifest_json.py` parses the file.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from service.fields.field_list import Fields
from service.fields.field_types import Sizes
from service.record import ROWS_MAX, Finites, Name, Names, Positive, Positives, Probabilities, Record
from service.softmax.calibration import Calibration, calibration_tensors
from service.store.artifact.calibration_record import CalibrationRecord, calibration_fits_head
from service.store.artifact.example_record import Examples
from service.store.artifact.mixture_record import MixtureRecord

# Version 2 has a mixture, fields or both, and version 1 has neither; so a model without them is read by every release.
FORMAT_VERSION: Final = 1
EXTENDED_FORMAT_VERSION: Final = 2
# Deeper than layers can be trained without skips between them, and few enough for any message.
LAYERS_MAX: Final = 128


class TensorForm(NamedTuple):
    """The dtype and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


class LayerRecord(Record):
    """One affine layer: the names of its two tensors, and its activation.

    Attributes:
        weight: Name of the tensor of shape (N, K).
        bias: Name of the tensor of shape (K,).
        activation: The function of the layer's output: one of three for a hidden layer, "identity" for the last one,
            which the head follows.
    """

    weight: Name
    bias: Name
    activation: Literal["identity", "relu", "sigmoid", "tanh"]


class StageRecord(Record):
    """The input stage, applied to a row before the weights: (x - mean) / scale, then cut to [-clip, clip].

    Attributes:
        mean: One number for each feature.
        scale: One positive number for each feature.
        clip: The limit of the cut, or None for no cut.
    """

    mean: Finites
    scale: Positives
    clip: Positive | None = None


class TrainingRecord(Record):
    """The statistics of the training rows, which decide how firm the weights are; also for weights of raw features.

    Attributes:
        rows: Number of training rows.
        mean: Mean of each feature over those rows; None for a model with fields, which scale their columns themselves.
        scale: Population standard deviation of each feature, likewise; 1 for a constant feature, as in scikit-learn.
        support: Name of the tensor (N,) of the sum of squares of each column over those rows; None if it is unknown.
    """

    rows: Annotated[int, Field(ge=1, le=ROWS_MAX)]
    mean: Finites | None = None
    scale: Positives | None = None
    support: Name | None = None


class DeltaRecord(Record):
    """The sum of what learning has added to the weights: a tensor for the features as `training` standardizes them.

    Attributes:
        weight: Name of the tensor of shape (N, K).
        clip: The limit to which the standardized features are cut.
    """

    weight: Name
    clip: Positive


class LearningRecord(Record):
    """The learning rule for feedback, with its constants.

    Attributes:
        rule: Name of the rule.
        constants: The rule's numbers by name.
    """

    rule: Name
    constants: dict[Name, FiniteFloat] = Field(default_factory=dict)


class Manifest(Record):
    """Everything about a model but its tensors; `artifact.py` describes each field.

    Raises:
        pydantic.ValidationError: A field is missing, unknown, of the wrong type, or contradicts another field.
    """

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=EXTENDED_FORMAT_VERSION)]
    head: Literal["softmax", "sigmoid", "multilabel", "ovr"]
    classes: Names
    features: Names | None = None
    fields: Fields | None = None
    others: Literal["refuse", "ignore"] | None = None
    dtype: Literal["float32", "float64"]
    layers: Annotated[tuple[LayerRecord, ...], Field(min_length=1, max_length=LAYERS_MAX, fail_fast=True)]
    thresholds: Probabilities | None = None
    stage: StageRecord | None = None
    training: TrainingRecord | None = None
    delta: DeltaRecord | None = None
    mixture: MixtureRecord | None = None
    calibration: CalibrationRecord | None = None
    learning: LearningRecord | None = None
    examples: Examples | None = None
    provenance: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    tensors_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def n_outputs(self) -> int:
        """The number K of logits: 1 for the sigmoid head, else the number of classes."""
        return 1 if self.head == "sigmoid" else len(self.classes)

    @property
    def scaling(self) -> Calibration | None:
        """The calibration of the logits before the head."""
        return None if self.calibration is None else self.calibration.scaling()

    @property
    def numbers(self) -> list[NDArray[np.float64]]:
        """The numbers of the mixture and of the calibration as tensors, as far as the model has them."""
        return [*([] if self.mixture is None else self.mixture.numbers), *calibration_tensors(self.scaling)]

    @property
    def hidden(self) -> tuple[LayerRecord, ...]:
        """The hidden layers, the first one first; a linear model has none."""
        return self.layers[:-1]

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the tensors that learning changes: weight and bias of each layer, the delta's, the mixture's."""
        names = [name for layer in self.layers for name in (layer.weight, layer.bias)]
        delta = [] if self.delta is None else [self.delta.weight]
        return (*names, *delta, *(() if self.mixture is None else self.mixture.tensor_names))

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The names of the tensors that learning leaves as they are: the support, then those of each field."""
        support = () if self.training is None or self.training.support is None else (self.training.support,)
        return (*support, *(name for field in self.fields or () for name in field.tensor_specs({})))

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of all tensors in manifest order."""
        return (*self.weight_names, *self.fixed_names)

    def describe_fields(self) -> list[dict[str, Any]]:
        """Return the fields as JSON values without defaults, so that options of later releases change nothing."""
        return [field.model_dump(mode="json", exclude_defaults=True) for field in self.fields or ()]

    def count_features(self, sizes: Sizes) -> int:
        """Return the number N of features, or of the columns of all fields, by arithmetic alone.

        Args:
            sizes: The shapes of the tensors of the fields by name.
        """
        if self.fields is None:
            return len(self.features or ())
        return sum(field.count_columns(sizes) for field in self.fields)

    def tensor_forms(self, widths: Sequence[int], sizes: Sizes) -> dict[str, TensorForm]:
        """Return the dtype and shape of each tensor by its name, in manifest order.

        Args:
            widths: The number of activations of each hidden layer, which the tensors define.
            sizes: The shapes of the tensors of the fields by name, which are checked already.
        """
        N, K = self.count_features(sizes), self.n_outputs
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, outputs) in zip(self.layers, pairwise([N, *widths, K]), strict=True):
            shapes |= {layer.weight: (inputs, outputs), layer.bias: (outputs,)}
        if self.delta is not None:
            shapes[self.delta.weight] = (N, K)
        if self.mixture is not None:
            shapes |= self.mixture.tensor_shapes(N, K)
        if self.training is not None and self.training.support is not None:
            shapes[self.training.support] = (N,)
        forms = {name: TensorForm(self.dtype, shape) for name, shape in shapes.items()}
        for field in self.fields or ():
            forms |= {name: TensorForm(spec.dtype, sizes[name]) for name, spec in field.tensor_specs({}).items()}
        return forms

    @model_validator(mode="after")
    def _parts_agree(self) -> "Manifest":
        self._check_version()
        self._check_classes()
        self._check_inputs()
        self._check_layers()
        self._check_learning()
        self._check_mixture()
        return self

    def _check_version(self) -> None:
        is_extended = self.mixture is not None or self.fields is not None
        if (self.format_version == EXTENDED_FORMAT_VERSION) != is_extended:
            raise ValueError("format_version is 2 with a mixture or with fields, and 1 without them")

    def _check_classes(self) -> None:
        if self.head == "sigmoid" and len(self.classes) != 2:  # noqa: PLR2004
            raise ValueError("a sigmoid head has exactly two classes")
        if self.head in {"softmax", "ovr"} and len(self.classes) < 2:  # noqa: PLR2004
            raise ValueError(f"a head of the kind {self.head} has at least two classes")
        if self.thresholds is not None and self.head != "multilabel":
            raise ValueError("only a multilabel head has thresholds")
        if self.calibration is not None and not calibration_fits_head(self.calibration, self.head):
            raise ValueError("calibration is of the kind temperature for a softmax head, platt for a sigmoid head")
        _check_length("thresholds", self.thresholds, len(self.classes), "class")
        for example in self.examples or ():
            _check_length("the probabilities of an example", example.probabilities, len(self.classes), "class")

    def _check_inputs(self) -> None:
        """Check what describes a row: features with their statistics, or fields."""
        if (self.features is None) == (self.fields is None):
            raise ValueError("a model has either features or fields")
        training = self.training
        if self.fields is not None:
            if self.stage is not None or (training is not None and (training.mean or training.scale) is not None):
                raise ValueError("fields scale their columns themselves; there is no stage, and training has no mean")
            return
        if self.others is not None or self.examples is not None:
            raise ValueError("others and examples are for a model with fields")
        if training is not None and (training.mean is None or training.scale is None or training.support is not None):
            raise ValueError("training of features has rows, mean and scale; support is for fields")
        for name, record in (("stage", self.stage), ("training", training)):
            if record is not None:
                _check_length(f"{name}.mean", record.mean, len(self.features or ()), "feature")
                _check_length(f"{name}.scale", record.scale, len(self.features or ()), "feature")

    def _check_layers(self) -> None:
        if self.layers[-1].activation != "identity":
            raise ValueError("the last layer gives the logits, so its activation must be identity")
        if any(layer.activation == "identity" for layer in self.hidden):
            raise ValueError("the activation of a hidden layer, one before the last, must be relu, sigmoid or tanh")
        names = self.tensor_names
        if len(set(names)) < len(names):
            raise ValueError("each weight, bias, delta and part of a mixture or a field must be a tensor of its own")
        if "__metadata__" in names:
            raise ValueError("no tensor may have the name __metadata__, which safetensors keeps for itself")

    def _check_learning(self) -> None:
        if self.delta is not None and self.training is None and self.fields is None:
            raise ValueError("a delta needs the training statistics that it was learned on")
        if self.hidden and self.delta is not None:
            raise ValueError("a model with hidden layers learns in all of them, and has no delta")
        if self.hidden and self.learning is not None and self.learning.rule == "newton":
            raise ValueError("the rule newton is for models without hidden layers; adagrad, ftrl and sgd learn in all")

    def _check_mixture(self) -> None:
        mixture = self.mixture
        if mixture is None:
            return
        if self.hidden or self.head not in {"softmax", "sigmoid"}:
            raise ValueError("a mixture has a softmax or a sigmoid head and no hidden layers")
        _check_length("mixture.frequencies", mixture.frequencies, len(self.classes), "class")


def _check_length(name: str, values: Sequence[float] | None, length: int, each: str) -> None:
    if values is not None and len(values) != length:
        raise ValueError(f"{name} must hold one number for each {each}")
