"""Walk through the nodes of a graph, and find what each value is as a function of a row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from service.convert.columns.raw_inputs import ColumnError
from service.convert.graphs import gap_operators as gaps
from service.convert.graphs import head_operators as heads
from service.convert.graphs import linear_operators as linear
from service.convert.graphs import shape_operators as shapes
from service.convert.graphs import table_operators as tables
from service.convert.graphs.graph_parser import Graph, GraphNode
from service.convert.graphs.graph_values import Columns, Value
from service.convert.graphs.node_reading import Call
from service.errors import ConversionError

Operator = Callable[[Call], Value | tuple[Value, ...]]
ML: Final = "ai.onnx.ml."
OPERATORS: Final[Mapping[str, Operator]] = {
    **heads.ACTIVATION_OPERATORS,
    "Add": linear.add,
    "ArgMax": heads.arg_max,
    "BatchNormalization": linear.batch_normalization,
    "Cast": shapes.cast,
    "Clip": gaps.clip,
    "Concat": shapes.concat,
    "Constant": shapes.constant_node,
    "ConstantOfShape": shapes.constant_of_shape,
    "Div": linear.divide,
    "Dropout": shapes.identity,
    "Equal": tables.equal,
    "Exp": heads.exponential,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Gemm": linear.affine_product,
    "GreaterOrEqual": heads.reach_threshold,
    "Identity": shapes.identity,
    "IsNaN": gaps.is_missing,
    "Log": heads.logarithm,
    "LogSoftmax": heads.log_softmax,
    "MatMul": linear.matrix_product,
    "Max": gaps.largest,
    "Min": gaps.smallest,
    "Mul": linear.multiply,
    "Neg": linear.negate,
    "Not": tables.invert_flags,
    "Reciprocal": linear.invert,
    "ReduceLogSumExp": heads.reduce_log_sum_exp,
    "ReduceSum": heads.reduce_sum,
    "Reshape": shapes.reshape,
    "Slice": shapes.slice_columns,
    "Softmax": heads.softmax,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Sub": linear.subtract,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
    "Where": gaps.where,
    ML + "ArrayFeatureExtractor": shapes.extract_features,
    ML + "Imputer": gaps.imputer,
    ML + "LabelEncoder": tables.label_encoder,
    ML + "LinearClassifier": heads.linear_classifier,
    ML + "Normalizer": heads.normalizer,
    ML + "OneHotEncoder": tables.one_hot_encoder,
    ML + "Scaler": linear.scaler,
    ML + "ZipMap": heads.zip_map,
}
# Parts of matrices that all nodes make together: thousands of nodes on thousands of parts.
WORK_MAX: Final = 1 << 20
# They split texts otherwise than scikit-learn does.
TEXT_OPERATORS: Final = frozenset(
    ("StringNormalizer", "StringSplit", "RegexFullMatch", "StringConcat", "TfIdfVectorizer", "com.microsoft.Tokenizer")
)


def find_values(graph: Graph, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
    """Return the values of a graph that some outputs depend on, by name.

    Args:
        graph: The graph.
        inputs: The values of its inputs.
        outputs: The names of the outputs.

    Raises:
        ConversionError: A node is neither linear nor a field; the message names it and its operator.
    """
    needed = set(outputs)
    chosen = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed |= set(filter(None, node.inputs))
            chosen.append(node)
    values: dict[str, Value] = {**graph.constants, **inputs}
    work = 0
    for node in reversed(chosen):
        made = _run(node, [values.get(name) for name in node.inputs])
        values |= dict(zip(node.outputs, made, strict=False))
        work += sum(len(value.matrix.blocks) for value in made if isinstance(value, Columns))
        if work > WORK_MAX:
            raise node.refuse("the graph has too many steps on too many parts of a row")
    return values


def _run(node: GraphNode, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """Return the outputs of a node."""
    operator = OPERATORS.get(node.operator)
    if node.operator in TEXT_OPERATORS:
        raise node.refuse("it splits texts otherwise than scikit-learn does; convert the pipeline from a .skops file")
    call = Call(node, tuple(arguments))
    try:
        constant = shapes.compute_constant(call)
        if constant is not None:
            return (constant,)
        if operator is None:
            raise node.refuse("it is neither linear nor a field")
        made = operator(call)
    except ColumnError as error:
        raise node.refuse(str(error)) from None
    return made if isinstance(made, tuple) else (made,)


def find_optional(graph: Graph, inputs: Mapping[str, Value], output: str) -> Value:
    """Return the value of an output, or None if one of its nodes cannot be read."""
    try:
        return find_values(graph, inputs, [output])[output]
    except ConversionError:
        return None
