"""Find the head of a graph: which logits its probabilities are made of, and how a source's output has them.

output of the graph                                  head         form
softmax(z), or its logarithm                         softmax      "probabilities", "logarithms"
sigma(z), one column                                 sigmoid      "second": that of the second class
1 - sigma(z) and sigma(z), or sigma(-z) and sigma(z) sigmoid      "probabilities"
sigma(z) of K columns                                multilabel   "probabilities"
1 - sigma(z) of K columns, then sigma(z)             multilabel   "last_half"
sigma(z) divided by its sum                          ovr          "probabilities"
logits                                               as it is said   "logits"
"""

from typing import Final, Literal, NamedTuple

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import SymbolicBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.converted_model import Head
from service.convert.graphs.graph_values import ClassNames, Columns, Named, Probabilities, Value
from service.convert.graphs.layer_weights import LayerSink
from service.convert.graphs.level_blocks import Level, LevelBlock, SumBlock, find_function
from service.softmax.arrays import Doubles

# The columns of an output, so that a square matrix of them takes 128 MiB at most.
OUTPUTS_MAX: Final = 4096
# Weights of float32 that are each other's negatives may differ by their last digits.
TOLERANCE: Final = 1e-6
TWO: Final = 2

OutputForm = Literal["probabilities", "logarithms", "second", "last_half", "logits", "negative_logits", "raw_scores"]


class FoundHead(NamedTuple):
    """The head of a graph.

    Attributes:
        head: The head.
        logits: Its logits, K columns; one for a sigmoid head.
        n_classes: The number of classes.
        names: The names of the classes if the output has them, else empty.
        form: How the output has the probabilities.
        asked: The matrix of a value of the graph to ask for in place of the output: the logits, their negative, or what
            becomes the logits if classifiers give raw scores.
    """

    head: Head
    logits: SymbolicMatrix
    n_classes: int
    names: tuple[str, ...]
    form: OutputForm
    asked: SymbolicMatrix | None = None


def find_head(value: Value, head: Head | None) -> FoundHead:
    """Return the head that makes an output.

    Args:
        value: The value of the output.
        head: The head of logits, if it is known.

    Raises:
        ColumnError: It is no head, or logits without a known head.
    """
    names: tuple[str, ...] = ()
    if isinstance(value, Named):
        names = value.names
        value = value.value
    if isinstance(value, Probabilities):
        return _find_of_probabilities(value)._replace(names=names)
    if not isinstance(value, Columns):
        raise ColumnError("it has no probabilities")
    matrix = value.take_numbers()
    if matrix.width > OUTPUTS_MAX:
        raise ColumnError(f"it has more than {OUTPUTS_MAX} columns")
    logits = find_logistic(matrix)
    if logits is not None:
        return _find_of_logistic(logits)._replace(names=names)
    if head is None:
        raise ColumnError("it has logits and no probabilities; name the head with --head")
    if head == "sigmoid" and matrix.width == TWO:
        # The softmax of two logits is the logistic function of their difference.
        raise ColumnError("it has two logits; name the head softmax")
    if head == "sigmoid" and matrix.width != 1:
        raise ColumnError("a sigmoid head has one logit")
    return FoundHead(head, matrix, TWO if head == "sigmoid" else matrix.width, names, "logits")


def find_logistic(matrix: SymbolicMatrix) -> SymbolicMatrix | None:
    """Return the logits z of a matrix whose columns are sigma(z) or 1 - sigma(z), which is sigma(-z); else None."""
    sink = LayerSink.of_matrix(matrix)
    if sink.numbers or sink.categories or not sink.levels or {level.function for level in sink.levels} != {"sigmoid"}:
        return None
    weights = np.concatenate(list(sink.levels.values()))
    inner = SymbolicMatrix.side_by_side([level.inner for level in sink.levels])
    signs = weights.sum(axis=0)
    is_one = (np.count_nonzero(weights, axis=0) == 1).all() and (np.abs(signs) == 1).all()
    if not is_one or not np.array_equal(sink.bias, (1 - signs) / 2):
        return None
    chosen = np.argmax(weights != 0, axis=0)
    return inner.select(chosen).scale(signs, np.zeros(len(signs)))


def are_opposite(one: SymbolicMatrix, other: SymbolicMatrix) -> bool:
    """Return whether one matrix is the negative of another one of its width."""
    total = _list_weights(SymbolicMatrix((SumBlock.of_matrices(one, other),)))
    sizes = _list_weights(other)
    largest = max((float(np.abs(part).max(initial=0)) for part in sizes), default=0.0)
    return all(float(np.abs(part).max(initial=0)) <= TOLERANCE * max(largest, 1.0) for part in total)


def name_classes_of(found: FoundHead, label: Value, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes: those that are given, those of the output or the label, or numbers.

    Raises:
        ColumnError: There are more or fewer names than classes.
    """
    known = label.names if isinstance(label, ClassNames) else ()
    for names in (given, found.names, known):
        if names and len(names) == found.n_classes:
            return names
        if names and names is given:
            raise ColumnError(f"it has {found.n_classes} classes, and {len(names)} names are given")
    return tuple(map(str, range(found.n_classes)))


def _find_of_probabilities(value: Probabilities) -> FoundHead:
    width = value.logits.width
    if width > OUTPUTS_MAX:
        raise ColumnError(f"it has more than {OUTPUTS_MAX} columns")
    if width < TWO:
        raise ColumnError("it has one class, and a model has at least two")
    if value.kind != "normalized":
        form: OutputForm = "probabilities" if value.kind == "softmax" else "logarithms"
        return FoundHead("softmax", value.logits, width, (), form)
    logits = find_logistic(value.logits)
    if logits is None:
        raise ColumnError("it divides something else than logistic functions by their sum")
    if width == TWO and _is_pair(logits):
        return FoundHead("sigmoid", logits.select([1]), TWO, (), "probabilities")
    # The sum of float32 logistic functions may be 0, and graphs answer such a row with NaN or equal probabilities.
    if all(_is_optional(block) for block in value.logits.blocks):
        return FoundHead("ovr", logits, width, (), "raw_scores", value.logits)
    level = _find_level(value.logits)
    if level is None or level.function != "sigmoid":
        return FoundHead("ovr", logits, width, (), "probabilities")
    form = "logits" if level.negative is None else "negative_logits"
    return FoundHead("ovr", logits, width, (), form, level.inner if level.negative is None else level.negative)


def _is_optional(block: SymbolicBlock) -> bool:
    """Return whether columns are logistic functions that a node would leave out."""
    if not isinstance(block, LevelBlock):
        return False
    return block.level.is_optional and bool((block.factor == 1).all() and (block.shift == 0).all())


def _find_level(matrix: SymbolicMatrix) -> Level | None:
    """Return the level whose columns a matrix has as they are, or None."""
    block = matrix.blocks[0]
    if len(matrix.blocks) != 1 or not isinstance(block, LevelBlock):
        return None
    return block.level if find_function(matrix, block.level.function) is block.level.inner else None


def _find_of_logistic(logits: SymbolicMatrix) -> FoundHead:
    width = logits.width
    if width == 1:
        return FoundHead("sigmoid", logits, TWO, (), "second")
    if width == TWO and _is_pair(logits):
        return FoundHead("sigmoid", logits.select([1]), TWO, (), "probabilities")
    half, rest = divmod(width, TWO)
    if not rest:
        first, last = logits.select(np.arange(half)), logits.select(np.arange(half, width))
        if are_opposite(first, last):
            return FoundHead("multilabel", last, half, (), "last_half")
    return FoundHead("multilabel", logits, width, (), "probabilities")


def _is_pair(logits: SymbolicMatrix) -> bool:
    return are_opposite(logits.select([0]), logits.select([1]))


def _list_weights(matrix: SymbolicMatrix) -> list[Doubles]:
    """Return all weights and the bias of a matrix, those of one value or level added."""
    sink = LayerSink.of_matrix(matrix)
    if sink.levels:
        return [sink.bias, *sink.levels.values()]
    parts: dict[tuple[int, int], Doubles] = {}
    for block, weights in sink.numbers:
        for place, index in enumerate(block.indices.tolist()):
            for kind, factor in ((0, block.factor[place]), (1, block.shift[place])):
                parts[index, kind] = parts.get((index, kind), 0.0) + factor * weights[place]
    for reading, weights in sink.categories:
        key = (-1 - reading.place, len(weights))
        parts[key] = parts.get(key, 0.0) + np.nan_to_num(weights)
    return [sink.bias, *parts.values()]
