"""Make a converted model of named layers, whatever side of a weight its outputs are on.

PyTorch keeps a weight with one row for each output, and Keras one for each input. All weights of a file are of one of
the two forms. The biases and the widths of the layers show which; if both fit, the user has to say it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from service.convert.converted_model import ConvertedModel, DenseLayer, Doubles, Head, Row
from service.convert.head_probabilities import to_probabilities
from service.convert.layers.layer_list import HIDDEN, NamedLayer, parse_layers
from service.convert.layers.layer_tensors import read_layer_tensors
from service.convert.source_options import ReadSource, SourceOptions
from service.errors import ConversionError
from service.fields.field_records import VECTOR_SIZE_MAX

COMPARED_WITH: Final = "NumPy in float64, on the tensors of the file"
OUTPUTS, INPUTS = "outputs", "inputs"
ACTIVATIONS: Final[Mapping[str, Callable[[Doubles], Doubles]]] = {
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: (1 + np.tanh(z / 2)) / 2,
    "tanh": np.tanh,
}
AMBIGUOUS: Final = (
    "the weights fit both ways round; add --weight-rows outputs (as PyTorch keeps them) or --weight-rows inputs (Keras)"
)


def read_layer_source(path: Path, options: SourceOptions) -> ReadSource:
    """Read the layers of a safetensors or an .npz file.

    Raises:
        ConversionError: It cannot be read, or its tensors are no layers.
    """
    named = parse_layers(options.layers)
    tensors = read_layer_tensors(path, list(dict.fromkeys(name for layer in named for name in layer.names)))
    rows = options.weight_rows or find_weight_rows(named, tensors, options)
    layers = make_layers(named, tensors, rows)
    model = convert_layers(layers, named[-1].activation, options)
    return ReadSource(model, LayerSource(model, named, tensors, rows), COMPARED_WITH)


def find_weight_rows(named: Sequence[NamedLayer], tensors: Mapping[str, Doubles], options: SourceOptions) -> str:
    """Return whether the rows of the weights are outputs or inputs.

    Raises:
        ConversionError: Neither or both of them fit.
    """
    fitting = [rows for rows in (OUTPUTS, INPUTS) if fits(named, tensors, rows, options)]
    if not fitting:
        raise ConversionError("the weights and biases of --layers do not fit each other")
    both = [make_layers(named, tensors, rows) for rows in fitting]
    if any(not np.array_equal(one.weight, other.weight) for one, other in zip(both[0], both[-1], strict=True)):
        raise ConversionError(AMBIGUOUS)
    return fitting[0]


def fits(named: Sequence[NamedLayer], tensors: Mapping[str, Doubles], rows: str, options: SourceOptions) -> bool:
    """Return whether all sizes agree if the rows of the weights are outputs, or inputs."""
    try:
        layers = make_layers(named, tensors, rows)
    except ConversionError:
        return False
    inputs, outputs = len(layers[0].weight), len(layers[-1].bias)
    features, classes = len(options.features), len(options.classes)
    return features in {0, inputs} and (not classes or outputs == classes or (outputs == 1 and classes == 2))  # noqa: PLR2004


def make_layers(named: Sequence[NamedLayer], tensors: Mapping[str, Doubles], rows: str) -> list[DenseLayer]:
    """Return the layers, with weights (N, K).

    Raises:
        ConversionError: A weight is no matrix, or sizes do not fit.
    """
    layers = []
    for number, layer in enumerate(named, start=1):
        weight = tensors[layer.weight]
        if weight.ndim == 1:  # one output, or one input
            weight = weight.reshape((1, -1) if rows == OUTPUTS else (-1, 1))
        if rows == OUTPUTS:
            weight = weight.T
        bias = tensors[layer.bias].reshape(-1) if layer.bias else np.zeros(weight.shape[1])
        if len(bias) != weight.shape[1]:
            raise ConversionError(
                f"the bias of layer {number} has {len(bias)} numbers, and its weight {weight.shape[1]}"
            )
        layers.append(DenseLayer(np.ascontiguousarray(weight), bias, HIDDEN.get(layer.activation, "identity")))
    layers[-1] = DenseLayer(layers[-1].weight, layers[-1].bias, "identity")
    for number, (before, after) in enumerate(pairwise(layers), start=2):
        if len(before.bias) != len(after.weight):
            raise ConversionError(f"layer {number} takes {len(after.weight)} numbers, and gets {len(before.bias)}")
    return layers


def convert_layers(layers: Sequence[DenseLayer], last: str, options: SourceOptions) -> ConvertedModel:
    """Return the converted model of layers.

    Args:
        layers: The layers.
        last: The activation of the last one: "softmax", "sigmoid" or another word.
        options: Names of classes and features, and the head.

    Raises:
        ConversionError: The names do not fit the sizes.
    """
    inputs, outputs = len(layers[0].weight), len(layers[-1].bias)
    head = options.head or default_head(last, outputs)
    if (outputs == 1) != (head == "sigmoid") and head != "multilabel":
        raise ConversionError(f"a model of {outputs} outputs cannot have the head {head}")
    n_classes = 2 if head == "sigmoid" else outputs
    classes = list(options.classes) or [str(k) for k in range(n_classes)]
    if len(classes) != n_classes:
        raise ConversionError(f"the model has {n_classes} classes, and --classes names {len(classes)}")
    features: list[str] | None = list(options.features) or [f"feature_{i}" for i in range(inputs)]
    fields = None
    if options.vector:
        if inputs > VECTOR_SIZE_MAX:
            raise ConversionError(f"a vector has at most {VECTOR_SIZE_MAX} numbers, and the model takes {inputs}")
        fields = [{"name": options.vector, "kind": "vector", "size": inputs, "missing": "refuse"}]
        features = None
    elif len(features or ()) != inputs:
        raise ConversionError(f"the model takes {inputs} numbers, and --features names {len(features or ())}")
    return ConvertedModel(head, classes, layers, fields=fields, features=features)


def default_head(last: str, outputs: int) -> Head:
    """Return the head of layers that end with an activation."""
    if outputs == 1:
        return "sigmoid"
    return "multilabel" if last == "sigmoid" else "softmax"


class LayerSource:
    """Layers that are computed by NumPy in float64, from the tensors as the file has them.

    Args:
        model: The converted model, for the names of a row and the head.
        named: The layers.
        tensors: The tensors of the file.
        rows: Whether the rows of the weights are outputs or inputs.
    """

    def __init__(
        self, model: ConvertedModel, named: Sequence[NamedLayer], tensors: Mapping[str, Doubles], rows: str
    ) -> None:
        self._model: Final = model
        self._named: Final = named
        self._tensors: Final = tensors
        self._rows: Final = rows

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of rows."""
        model = self._model
        if model.fields is not None:
            x = np.array([row[model.fields[0]["name"]] for row in rows], np.float64)
        else:
            x = np.array([[row[name] for name in model.features or ()] for row in rows], np.float64)
        for number, layer in enumerate(self._named, start=1):
            weight = self._tensors[layer.weight]
            z = x @ (np.atleast_2d(weight).T if self._rows == OUTPUTS else weight.reshape(x.shape[1], -1))
            if layer.bias:
                z = z + self._tensors[layer.bias].reshape(-1)
            x = z if number == len(self._named) else ACTIVATIONS[layer.activation](z)
        return to_probabilities(x, model.head)
