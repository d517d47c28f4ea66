"""The layers of a graph: weights are sent back from the logits to the activations before them, and so on to the row.

A number that one path of a graph cuts to an interval, and another one does not, is two fields of one source.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from service.convert.columns.field_choice import FieldChoice, choose_fields
from service.convert.columns.input_weights import InputWeights
from service.convert.columns.raw_inputs import ColumnError, RawInput, RawInputs
from service.convert.columns.symbolic_blocks import CategoryReading, NumberBlock, TermDraft
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.converted_model import Activation, DenseLayer
from service.convert.graphs.level_blocks import Level
from service.softmax.arrays import Doubles, Integers
from service.store.artifact.manifest import LAYERS_MAX

# Parts of a matrix, each counted for each path from it to the output: a sum that is added to itself doubles its paths.
PATHS_MAX: Final = 50_000
ACTIVATIONS: Final[dict[str, Activation]] = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}


class AffineLayer(NamedTuple):
    """A layer whose inputs are activations: (N, K) weights and (K,) bias, and the N columns of levels before them."""

    weight: Doubles
    bias: Doubles
    inner: SymbolicMatrix
    activation: Activation


@dataclass
class LayerSink:
    """Weights (…, K) of what a matrix is made of: the values of a row, or levels.

    Attributes:
        n_outputs: K.
        bias: (K,) float64.
        levels: The weights of each level.
        numbers: Functions of numbers, with their weights.
        categories: Categories, with their weights.
        paths: How many parts of matrices had weights so far.
    """

    n_outputs: int
    bias: Doubles
    levels: dict[Level, Doubles]
    numbers: list[tuple[NumberBlock, Doubles]]
    categories: list[tuple[CategoryReading, Doubles]]
    paths: int = 0

    @classmethod
    def of_matrix(cls, matrix: SymbolicMatrix) -> "LayerSink":
        """Return the weights of the columns of a matrix, each of which is an output."""
        sink = cls(matrix.width, np.zeros(matrix.width), {}, [], [])
        matrix.add_weights(np.eye(matrix.width), sink)
        return sink

    def add_bias(self, bias: Doubles) -> None:
        """Add (K,) numbers to the bias."""
        self.bias += bias
        self.paths += 1
        if self.paths > PATHS_MAX:
            raise ColumnError("there are too many paths from a row to the output")

    def add_numbers(self, block: NumberBlock, weights: Doubles) -> None:
        """Add the weights (N, K) of functions of numbers."""
        self.numbers.append((block, weights))

    def add_category(self, reading: CategoryReading, weights: Doubles) -> None:
        """Add the weights (V + 2, K) of categories."""
        self.categories.append((reading, weights))

    def add_terms(self, index: int, draft: TermDraft, weights: Doubles) -> None:  # noqa: ARG002  # never called
        """Refuse texts: a graph has none."""
        raise ColumnError("a text has no terms here")

    def add_level(self, level: Level, columns: Integers, weights: Doubles) -> None:
        """Add the weights (N, K) of N columns of a level."""
        known = self.levels.setdefault(level, np.zeros((level.inner.width, self.n_outputs)))
        np.add.at(known, columns, weights)

    def find_layer(self) -> AffineLayer | None:
        """Return the layer, or None if its inputs are the values of a row.

        Raises:
            ColumnError: It has inputs of both kinds, or of several functions.
        """
        if not self.levels:
            return None
        if self.numbers or self.categories:
            raise ColumnError("a layer has inputs before and behind an activation")
        functions = {level.function for level in self.levels}
        if len(functions) > 1 or not functions <= ACTIVATIONS.keys():
            raise ColumnError(f"{' and '.join(sorted(functions))}: neither linear nor one activation of a layer")
        inner = SymbolicMatrix.side_by_side([level.inner for level in self.levels])
        return AffineLayer(np.concatenate(list(self.levels.values())), self.bias, inner, ACTIVATIONS[functions.pop()])

    def to_input_weights(self, inputs: RawInputs) -> InputWeights:
        """Return the weights of a row's values; a number that is cut in several ways becomes several values."""
        ends: dict[int, tuple[float, float]] = {}
        others: dict[tuple[int, float, float], int] = {}
        blocks = [(self._split_intervals(block, inputs, ends, others), weights) for block, weights in self.numbers]
        made = InputWeights(inputs, self.n_outputs)
        made.add_bias(self.bias)
        for block, weights in blocks:
            made.add_numbers(block, weights)
        for reading, weights in self.categories:
            made.add_category(reading, weights)
        return made

    @staticmethod
    def _split_intervals(
        block: NumberBlock,
        inputs: RawInputs,
        ends: dict[int, tuple[float, float]],
        others: dict[tuple[int, float, float], int],
    ) -> NumberBlock:
        """Return a block of numbers of which none is cut to two intervals; copies of values are added at the end."""
        indices = block.indices.copy()
        for place, index in enumerate(block.indices.tolist()):
            low, high = float(block.low[place]), float(block.high[place])
            if not block.factor[place] or ends.setdefault(index, (low, high)) == (low, high):
                continue
            if (index, low, high) not in others:
                column = inputs.columns[index]
                others[index, low, high] = len(inputs)
                inputs.columns.append(RawInput(column.name, column.title, column.mean, column.scale, is_read=True))
            indices[place] = others[index, low, high]
        return replace(block, indices=indices)


def make_layers(
    logits: SymbolicMatrix, inputs: RawInputs, vectors: Sequence[tuple[str, int, int]]
) -> tuple[list[DenseLayer], FieldChoice]:
    """Return the layers that give logits, the first one on the columns of fields; and the fields.

    Args:
        logits: The logits.
        inputs: The values of a row.
        vectors: The vectors: the name of each, and the indices of its first number and the one after its last.

    Raises:
        ColumnError: They are no layers of a network, or a value is used in a way that no field has.
    """
    layers: list[DenseLayer] = []
    matrix: SymbolicMatrix = logits
    activation: Activation = "identity"
    while True:
        sink = LayerSink.of_matrix(matrix)
        layer = sink.find_layer()
        if layer is None:
            break
        layers.insert(0, DenseLayer(layer.weight, layer.bias, activation))
        matrix, activation = layer.inner, layer.activation
        if len(layers) >= LAYERS_MAX:
            raise ColumnError(f"there are more than {LAYERS_MAX} layers")
    choice = choose_fields(sink.to_input_weights(inputs))
    if choice.features is not None and vectors:
        _to_fields(choice, inputs)
    if choice.fields is not None:
        _join_vectors(choice, vectors)
        _rename_repeated(choice.fields)
    layers.insert(0, DenseLayer(choice.weight, choice.bias, activation))
    if not all(np.isfinite(part).all() for layer in layers for part in (layer.weight, layer.bias)):
        raise ColumnError("a weight is not finite")
    return layers, choice


def _to_fields(choice: FieldChoice, inputs: RawInputs) -> None:
    """Replace features by fields that are numbers, none of which may be missing."""
    means = np.array([0.0 if column.mean is None else column.mean for column in inputs.columns])
    scales = np.array([1.0 if column.scale is None else column.scale for column in inputs.columns])
    weight = choice.weight
    choice.fields = [
        {"name": column.name, "kind": "number", "mean": mean, "scale": scale, "missing": "refuse"}
        for column, mean, scale in zip(inputs.columns, means.tolist(), scales.tolist(), strict=True)
    ]
    choice.bias = choice.bias + means @ weight
    choice.weights, choice.features, choice.training = [weight * scales[:, None]], None, None


def _join_vectors(choice: FieldChoice, vectors: Sequence[tuple[str, int, int]]) -> None:
    """Replace the numbers of each vector by one field."""
    owners = {f"{name}[{i}]": name for name, first, end in vectors for i in range(end - first)}
    sizes = {name: end - first for name, first, end in vectors}
    weight = choice.weight
    records: list[dict[str, Any]] = []
    pieces: list[Doubles] = []
    parts: dict[str, list[tuple[dict[str, Any], Doubles]]] = {}
    start = 0
    for record in choice.fields or ():
        end = start + _count_columns(record)
        name = owners.get(record["name"]) if record["kind"] == "number" else None
        if name is None:
            records.append(record)
            pieces.append(weight[start:end])
        else:
            parts.setdefault(name, []).append((record, weight[start:end]))
            if len(parts[name]) == 1:
                records.append({"name": name})
                pieces.append(weight[:0])
        start = end
    for name, numbers in parts.items():
        if len(numbers) != sizes[name]:
            raise ColumnError("some numbers of a vector are not used, or used in two ways")
        place = next(i for i, record in enumerate(records) if record == {"name": name})
        records[place], pieces[place] = _make_vector(name, numbers)
    choice.fields, choice.weights = records, pieces


def _make_vector(name: str, numbers: list[tuple[dict[str, Any], Doubles]]) -> tuple[dict[str, Any], Doubles]:
    """Return the field of a vector and its weights (size, K), with a row for a missing one if that has an effect."""
    clips = {record.get("clip") for record, _ in numbers}
    if len(clips) > 1:
        raise ColumnError("some numbers of a vector are cut to an interval, and others are not")
    made: dict[str, Any] = {
        "name": name,
        "kind": "vector",
        "size": len(numbers),
        "mean": [record["mean"] for record, _ in numbers],
        "scale": [record["scale"] for record, _ in numbers],
    }
    clip = clips.pop()
    if clip is not None:
        made["clip"] = clip
    weights = np.stack([columns[0] for _, columns in numbers])
    if any(record.get("missing") == "refuse" for record, _ in numbers):
        return {**made, "missing": "refuse"}, weights
    gap = np.zeros(weights.shape[1])
    for record, columns in numbers:
        fill = record.get("missing")
        if isinstance(fill, dict):
            z = (fill["value"] - record["mean"]) / record["scale"]
            gap += columns[0] * (z if clip is None else np.clip(z, -clip, clip))
        gap += columns[1:].sum(axis=0)
    if np.abs(gap).max() <= np.abs(weights).max() * 1e-12:
        return {**made, "missing": "none"}, weights
    return {**made, "missing": "column"}, np.concatenate([weights, gap[None]])


def _count_columns(record: dict[str, Any]) -> int:
    """Return the number of columns of a number or a category."""
    if record["kind"] == "number":
        return 1 + bool(record.get("flag"))
    return len(record["values"]) + (record.get("unknown") == "other") + (record.get("missing") == "column")


def _rename_repeated(records: list[dict[str, Any]]) -> None:
    """Give fields whose name an earlier one has a name of their own, and the name as source."""
    taken = {record["name"] for record in records}
    seen: set[str] = set()
    for record in records:
        name, count = record["name"], 2
        if name not in seen:
            seen.add(name)
            continue
        while f"{name} ({count})" in taken:
            count += 1
        record |= {"name": f"{name} ({count})", "source": record.get("source", name)}
        taken.add(record["name"])
