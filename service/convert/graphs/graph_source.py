"""Read an ONNX file as a model, and ask it for probabilities with onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx

from service.convert.columns.raw_inputs import ColumnError, RawInputs
from service.convert.columns.symbolic_blocks import NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.converted_model import ConvertedModel, Doubles, Row
from service.convert.graphs.graph_export import FEATURES, THRESHOLD
from service.convert.graphs.graph_head import FoundHead, find_head, name_classes_of
from service.convert.graphs.graph_metadata import OWN_PRODUCER, read_names
from service.convert.graphs.graph_parser import Graph, parse_graph, read_graph_file, show
from service.convert.graphs.graph_pruning import prune_graph
from service.convert.graphs.graph_session import InputForm, OnnxSession
from service.convert.graphs.graph_values import INTEGERS, Columns, Named, Thresholded, Value
from service.convert.graphs.graph_walk import find_optional, find_values
from service.convert.graphs.layer_weights import make_layers
from service.convert.graphs.table_operators import read_flag
from service.convert.head_probabilities import to_probabilities
from service.convert.source_options import ReadSource, SourceOptions
from service.errors import ConversionError

# What skl2onnx and the export call the probabilities.
PROBABILITIES: Final = ("probabilities", "probabilities_", "output_probability", "probability")
NO_OPTIONS: Final = SourceOptions()
# The forms of an output that is asked for logits.
LOGIT_FORMS: Final = frozenset({"logits", "negative_logits", "raw_scores"})
LABELS: Final = ("label", "label_", "output_label")


class ConvertedGraph(NamedTuple):
    """A graph as a model, and the graph itself; None if onnxruntime has no operators for its types."""

    model: ConvertedModel
    source: "OnnxSource | None"


class GraphInputs(NamedTuple):
    """The inputs of a graph as values of a row.

    Attributes:
        raw: The values of a row.
        values: The inputs by name.
        forms: How rows become inputs.
        vectors: The name of each vector, and the indices of its first number and the one after its last.
        one_row: Whether the graph takes one row at a time.
    """

    raw: RawInputs
    values: dict[str, Value]
    forms: list[InputForm]
    vectors: list[tuple[str, int, int]]
    one_row: bool


class OnnxSource:
    """A graph that can be asked for probabilities.

    Args:
        raw: The bytes of the model.
        inputs: Its inputs.
        output: The output to ask for.
        found: The head.
    """

    def __init__(self, raw: bytes, inputs: GraphInputs, output: str, found: FoundHead) -> None:
        floats = [form.name for form in inputs.forms if form.datatype == onnx.TensorProto.FLOAT]
        self._session: Final = OnnxSession(
            prune_graph(raw, output, floats, raw_scores=found.form == "raw_scores"), inputs.forms, output
        )
        self._one_row: Final = inputs.one_row
        self._found: Final = found

    @property
    def compared_with(self) -> str:
        """The name of the answers: those of onnxruntime, or its logits, whose probabilities are computed here."""
        return "the logits of onnxruntime" if self._found.form in LOGIT_FORMS else "onnxruntime"

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of B rows.

        Raises:
            ConversionError: onnxruntime cannot answer them.
        """
        parts = [[row] for row in rows] if self._one_row else [list(rows)]
        outputs = [np.asarray(self._session.run(part), np.float64).reshape(len(part), -1) for part in parts]
        made: Doubles = np.concatenate(outputs)
        match self._found.form:
            case "logarithms":
                return np.asarray(np.exp(made))
            case "second":
                return np.hstack([1 - made, made])
            case "last_half":
                return made[:, self._found.n_classes :]
            case form if form in LOGIT_FORMS:
                return to_probabilities(-made if form == "negative_logits" else made, self._found.head)
        return made


def read_onnx_source(path: Path, options: SourceOptions) -> ReadSource:
    """Read an ONNX file for `softstep import`.

    Raises:
        ConversionError: As for `read_graph`.
    """
    converted = read_graph(path, options)
    source = converted.source
    return ReadSource(converted.model, source, "" if source is None else source.compared_with)


def read_graph(path: Path, options: SourceOptions = NO_OPTIONS) -> ConvertedGraph:
    """Read an ONNX file.

    Args:
        path: The file.
        options: The head, if the graph ends with logits; the names of the classes and of the numbers of the only input,
            or that input as a vector; and the number of training rows.

    Raises:
        ConversionError: The graph cannot be read or converted; the message names the node and its operator.
    """
    raw = read_graph_file(path)
    graph = parse_graph(raw)
    try:
        return _convert(raw, graph, options)
    except RecursionError:
        raise ConversionError("the graph has too many steps behind each other") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Exporters write parts that fit each other; a file may be put together by hand.
        raise ConversionError("the parts of the graph contradict each other") from None


def _convert(raw: bytes, graph: Graph, options: SourceOptions) -> ConvertedGraph:
    inputs = list_graph_inputs(graph, options.features, options.vector)
    inputs.raw.note_rows(options.training_rows)
    output = find_output(graph, inputs)
    label = next((name for name in graph.outputs if name in LABELS), None)
    try:
        # Numbers that overflow give weights that are not finite, which are refused.
        with np.errstate(all="ignore"):
            values = find_values(graph, inputs.values, [output])
            labels = None if label is None else find_optional(graph, inputs.values, label)
            found = find_head(values[output], options.head)
            names = name_classes_of(found, labels, tuple(options.classes) or read_names(graph, "classes"))
            layers, choice = make_layers(found.logits, inputs.raw, inputs.vectors)
    except ColumnError as error:
        raise ConversionError(f"the output {show(output)}: {error}") from None
    thresholds = labels.thresholds.tolist() if isinstance(labels, Thresholded) else []
    model = ConvertedModel(
        found.head,
        names,
        layers,
        choice.fields,
        choice.features,
        choice.tensors,
        choice.others,
        choice.training,
        thresholds=thresholds if found.head == "multilabel" and set(thresholds) - {THRESHOLD} else None,
        provenance={"source": f"ONNX, {graph.producer.strip() or 'of an unknown producer'}"[:256]},
    )
    asked = next((name for name, value in values.items() if _has_matrix(value, found.asked)), None)
    if found.asked is not None and asked is None:
        found = found._replace(form="probabilities")
    value = values[output]
    tensor = next((name for name, one in values.items() if isinstance(value, Named) and one is value.value), output)
    forms = [_widen(form, model) for form in inputs.forms]
    try:
        source = OnnxSource(raw, inputs._replace(forms=forms), asked or tensor, found)
    except ConversionError:
        return ConvertedGraph(model, None)
    return ConvertedGraph(model, source)


def _has_matrix(value: Value, matrix: SymbolicMatrix | None) -> bool:
    return matrix is not None and isinstance(value, Columns) and value.matrix is matrix


def _widen(form: InputForm, model: ConvertedModel) -> InputForm:
    """Return an input of whole numbers as one of any numbers, if the model uses them as such."""
    if form.datatype not in INTEGERS:
        return form
    kinds: dict[str, set[str]] = {name: {"number"} for name in model.features or ()}
    for record in model.fields or ():
        kinds.setdefault(record.get("source", record["name"]), set()).add(record["kind"])
    is_number = all(kinds.get(name, {"number"}) == {"number"} for name in form.names)
    return form._replace(datatype=onnx.TensorProto.FLOAT) if is_number else form


def list_graph_inputs(graph: Graph, features: Sequence[str], vector: str = "") -> GraphInputs:
    """Return the inputs of a graph as values of a row.

    The columns of an only input are values of their own, unless it is a vector, which then has this name. Of several
    inputs one of more than one column is a vector.

    Raises:
        ConversionError: The names do not fit, or two of them are equal.
    """
    inputs = RawInputs(form="matrix")
    values: dict[str, Value] = {}
    forms, vectors = [], []
    for one in graph.inputs:
        first, width = len(inputs), one.width
        is_only = len(graph.inputs) == 1
        if is_only and (width == 1 or not (vector or is_own_field(graph, one.name))):
            others = (one.name,) if width == 1 else tuple(f"feature_{i}" for i in range(width))
            names = tuple(features) or read_names(graph, "features") or others
            if len(names) != width:
                raise ConversionError(f"a row has {width} numbers, and {len(names)} names are given")
            forms.append(InputForm(one.name, one.datatype, names))
        elif width > 1:
            if one.datatype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
                raise ConversionError(f"the input {show(one.name)} has several values that are no numbers")
            name = vector if is_only and vector else one.name
            names = tuple(f"{name}[{i}]" for i in range(width))
            forms.append(InputForm(one.name, one.datatype, (name,), width))
            vectors.append((name, first, first + width))
        else:
            names = (one.name,)
            forms.append(InputForm(one.name, one.datatype, names))
        try:
            inputs.add_all(names)
        except ColumnError as error:
            raise ConversionError(f"the input {show(one.name)}: {error}") from None
        forms[-1] = forms[-1]._replace(rank=len(one.tail) + 1)
        values[one.name] = _to_columns(inputs, range(first, first + width), one.datatype, one.tail)
    inputs.mark_read()
    return GraphInputs(inputs, values, forms, vectors, any(one.one_row for one in graph.inputs))


def is_own_field(graph: Graph, name: str) -> bool:
    """Return whether the export wrote an input for a field, and not for all features."""
    return graph.producer.startswith(OWN_PRODUCER) and name != FEATURES


def find_output(graph: Graph, inputs: GraphInputs) -> str:
    """Return the name of the output that has the probabilities.

    Raises:
        ConversionError: It is not clear which one has them.
    """
    for name in PROBABILITIES:
        if name in graph.outputs:
            return name
    others = [name for name in graph.outputs if name not in LABELS and name not in inputs.values]
    if len(others) != 1:
        raise ConversionError("the graph has several outputs; call the one with the probabilities probabilities")
    return others[0]


def _to_columns(inputs: RawInputs, indices: range, datatype: int, tail: tuple[int, ...]) -> Columns:
    """Return an input as columns."""
    block = NumberBlock.of_inputs(inputs, indices)
    if datatype != onnx.TensorProto.BOOL:
        return Columns(SymbolicMatrix((block,)), tail, datatype)
    flags = tuple(read_flag(block.select(np.array([i]))) for i in range(len(indices)))
    return Columns(SymbolicMatrix(flags), tail, datatype)
