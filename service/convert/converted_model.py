"""A model of another library as every importer gives it, and the artifact that is made of it.

source                      importer                       here             proof.py
a pipeline, a .skops file   scikit-learn's parts           ConvertedModel   probabilities of both sides
ONNX, safetensors, VW       nodes, layers, lines of text                    -> Artifact
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.store.artifact.artifact import Artifact
from service.store.artifact.tensors import Array

Doubles = NDArray[np.float64]
Row = dict[str, Any]
"""A row of names and values, as a request has it."""

Head = Literal["softmax", "sigmoid", "multilabel", "ovr"]
Activation = Literal["relu", "sigmoid", "tanh", "identity"]
Dtype = Literal["float32", "float64"]

# As in the shipped models; layers of a network are numbered.
TENSOR_NAMES: Final = ("weight", "bias")


class Source(Protocol):
    """A model of another library that can still be asked."""

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of B rows, in the order of the converted model's classes."""


@dataclass(frozen=True)
class DenseLayer:
    """A layer: its output is the activation of x @ weight + bias.

    Attributes:
        weight: (N, K) float64.
        bias: (K,) float64.
        activation: "relu", "sigmoid" or "tanh" of a hidden layer; "identity" of the last one, whose outputs are logits.
    """

    weight: Doubles
    bias: Doubles
    activation: Activation


@dataclass(frozen=True)
class ConvertedModel:
    """A model of another library, in float64.

    Attributes:
        head: The head.
        classes: The names of the C classes.
        layers: At least one; the last one is the head's.
        fields: The records of its fields, as in a manifest; or None if a row is numbers.
        features: The names of N numbers if there are no fields.
        field_tensors: The tensors that `fields` names.
        others: Whether names of a row that are no field are ignored, because the source drops columns.
        training: `training` of the manifest, or None.
        support: (N,) float64, the sum of squares of each column over the training rows; or None.
        learning: `learning` of the manifest, or None for the default rule.
        thresholds: For each class of a multilabel head the probability from which it is named; or None.
        provenance: Where the model is from.
        words: By the name of a hashed field, words or names that the source has weights for; generated rows use them.
    """

    head: Head
    classes: Sequence[str]
    layers: Sequence[DenseLayer]
    fields: Sequence[Mapping[str, Any]] | None = None
    features: Sequence[str] | None = None
    field_tensors: Mapping[str, Array] = field(default_factory=dict)
    others: Literal["refuse", "ignore"] = "refuse"
    training: Mapping[str, Any] | None = None
    support: Doubles | None = None
    learning: Mapping[str, Any] | None = None
    thresholds: Sequence[float] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_artifact(
        self,
        dtype: Dtype,
        examples: Sequence[Mapping[str, Any]] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Return the artifact, whose weights are rounded to `dtype`.

        Args:
            dtype: The type of its weights and of its arithmetic.
            examples: Rows with the probabilities of the source; for models with fields.
            provenance: Further entries.

        Raises:
            ArtifactError: It cannot be served: a number is not finite, or a limit is exceeded.
        """
        tensors: dict[str, Array] = dict(self.field_tensors)
        layers = []
        stage, first = self._make_stage()
        for i, layer in enumerate((first, *self.layers[1:])):
            names = TENSOR_NAMES if len(self.layers) == 1 else tuple(f"{name}_{i}" for name in TENSOR_NAMES)
            tensors |= dict(zip(names, (layer.weight.astype(dtype), layer.bias.astype(dtype)), strict=True))
            layers.append({"weight": names[0], "bias": names[1], "activation": layer.activation})
        training = None if self.training is None else dict(self.training)
        if training is not None and self.support is not None:
            tensors["support"], training["support"] = self.support.astype(dtype), "support"
        manifest = {
            "head": self.head,
            "stage": stage,
            "classes": list(self.classes),
            "fields": None if self.fields is None else list(self.fields),
            "features": None if self.features is None else list(self.features),
            "others": self.others if self.fields is not None and self.others == "ignore" else None,
            "dtype": dtype,
            "layers": layers,
            "training": training,
            "learning": self.learning,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "examples": None if examples is None else list(examples),
            "provenance": {**self.provenance, **(provenance or {})},
        }
        return Artifact.from_fields(manifest, tensors)

    def _make_stage(self) -> tuple[dict[str, Any] | None, DenseLayer]:
        """Return the input stage of a network on features, or None, and the first layer after it.

        A network learns in its first layer too. On raw features one step of a weight would move a logit by as much as
        the feature is large, and one row would undo the training.
        """
        first, training = self.layers[0], self.training
        if len(self.layers) == 1 or self.fields is not None or training is None:
            return None, first
        mean, scale = (np.array(training[name], np.float64) for name in ("mean", "scale"))
        layer = DenseLayer(first.weight * scale[:, None], first.bias + mean @ first.weight, first.activation)
        return {"mean": mean.tolist(), "scale": scale.tolist()}, layer
