"""Parse ONNX files: the graph as plain nodes, constants, inputs and outputs, within bounds. Nothing is run or opened.

Only the bytes of the file itself are read: a tensor whose data are in another file is refused, and so are subgraphs,
functions, sparse tensors, names that are used twice, and nodes that read what no node before them writes.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from service.convert.graphs.graph_session import DTYPES
from service.convert.source_file import open_source
from service.errors import ConversionError

# A file of 16 million weights; its parse takes some four times as much memory.
GRAPH_BYTES_MAX: Final = 64 << 20
# Some nodes for each of a thousand fields.
NODES_MAX: Final = 20_000
# Inputs and outputs of a node, and attributes.
NODE_LINKS_MAX: Final = 4096
# Values of a row, which become fields.
ROW_VALUES_MAX: Final = 65_536
# The dimensions of a tensor.
DIMENSIONS_MAX: Final = 8
# Operators of earlier opsets broadcast otherwise.
OPSET_MIN: Final = 7
# The longest name that an error shows.
SHOWN_MAX: Final = 80

Attributes = Mapping[str, Any]
Array = NDArray[Any]
STORED: Final[Mapping[int, str]] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT32: "int32_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.BOOL: "int32_data",
    onnx.TensorProto.STRING: "string_data",
}
NESTED: Final = frozenset(
    (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.SPARSE_TENSOR,
     onnx.AttributeProto.SPARSE_TENSORS, onnx.AttributeProto.TYPE_PROTO, onnx.AttributeProto.TYPE_PROTOS)
)  # fmt: skip


class GraphNode(NamedTuple):
    """A node of a graph.

    Attributes:
        name: Its name, or that of its first output.
        operator: The operator, with its domain unless that is ONNX's own: "ai.onnx.ml.Scaler".
        inputs: The names of its inputs; empty for one that is left out.
        outputs: The names of its outputs.
        attributes: Its attributes: numbers, texts, lists of them, and arrays.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes

    def refuse(self, problem: str) -> ConversionError:
        """Return the error of a node."""
        return ConversionError(f"the node {show(self.name)} ({self.operator[:SHOWN_MAX]}): {problem}")


class GraphInput(NamedTuple):
    """An input of a graph.

    Attributes:
        name: Its name.
        datatype: Its type, as ONNX numbers it.
        tail: Its shape after the rows: () or (W,).
        one_row: Whether it takes one row at a time.
    """

    name: str
    datatype: int
    tail: tuple[int, ...]
    one_row: bool

    @property
    def width(self) -> int:
        """The number of values of a row."""
        return math.prod(self.tail)


@dataclass(frozen=True)
class Graph:
    """A graph.

    Attributes:
        nodes: Its nodes, each after those whose outputs it reads.
        constants: Its constants by name.
        inputs: Its inputs.
        outputs: The names of its outputs.
        metadata: Names and texts that describe it.
        producer: The name and version of the program that wrote it.
    """

    nodes: tuple[GraphNode, ...]
    constants: Mapping[str, Array]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    producer: str = ""


def read_graph_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        ConversionError: It is too large, no regular file, or cannot be read.
    """
    with open_source(path, GRAPH_BYTES_MAX) as file:
        return file.read(GRAPH_BYTES_MAX)


def parse_graph(raw: bytes) -> Graph:
    """Return the graph of an ONNX model.

    Raises:
        ConversionError: The bytes are no ONNX model, or it has what is refused above.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except DecodeError:
        raise ConversionError("the file is no ONNX model, or it is nested too deeply") from None
    _check_names(model)
    if not model.HasField("graph") or not model.opset_import or not model.ir_version:
        raise ConversionError("the file is no ONNX model")
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if versions.get("", versions.get("ai.onnx", OPSET_MIN)) < OPSET_MIN:
        raise ConversionError(f"the model has operators from before opset {OPSET_MIN}; export it with a later one")
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ConversionError("the model has functions, training information or sparse tensors, which are not read")
    if len(graph.node) > NODES_MAX:
        raise ConversionError(f"the graph has more than {NODES_MAX} nodes")
    constants = _read_constants(graph)
    inputs = tuple(_read_input(value) for value in graph.input if value.name not in constants)
    if sum(one.width for one in inputs) > ROW_VALUES_MAX:
        raise ConversionError(f"a row has more than {ROW_VALUES_MAX} values")
    known = _unique([one.name for one in inputs] + list(constants))
    nodes = []
    for node in graph.node:
        nodes.append(_read_node(node, known))
        known |= _unique([name for name in node.output if name], known)
    outputs = tuple(value.name for value in graph.output)
    if not outputs or not known.issuperset(outputs):
        raise ConversionError("an output of the graph is no output of a node")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Graph(tuple(nodes), constants, inputs, outputs, metadata, f"{model.producer_name} {model.producer_version}")


def read_tensor(tensor: onnx.TensorProto, place: str) -> Array:
    """Return a tensor of the file.

    Args:
        tensor: The tensor.
        place: Where it is, for errors.

    Raises:
        ConversionError: It has another type, its data are elsewhere, or they are not as many as its shape says.
    """
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise ConversionError(f"{place} keeps its data in another file; export the model as one file")
    if tensor.data_type not in STORED:
        raise ConversionError(f"{place} has a type that is not read; use float, double, integers, booleans or texts")
    shape = tuple(tensor.dims)
    if len(shape) > DIMENSIONS_MAX or any(size < 0 for size in shape):
        raise ConversionError(f"{place} has no shape of a tensor")
    count = math.prod(shape)
    dtype = np.dtype(DTYPES[tensor.data_type])
    if tensor.data_type == onnx.TensorProto.STRING:
        if len(tensor.string_data) != count:
            raise ConversionError(f"{place} has other numbers than its shape says")
        return np.array([_decode(text, place) for text in tensor.string_data], np.object_).reshape(shape)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise ConversionError(f"{place} has other numbers than its shape says")
        return np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    numbers = getattr(tensor, STORED[tensor.data_type])
    if len(numbers) != count:
        raise ConversionError(f"{place} has other numbers than its shape says")
    return np.array(numbers, dtype).reshape(shape)


def show(name: str) -> str:
    """Return a name of a graph in quotes, shortened and printable."""
    printable = "".join(c if c.isprintable() else "?" for c in name[:SHOWN_MAX])
    return f'"{printable}{"…" if len(name) > SHOWN_MAX else ""}"'


def _check_names(model: onnx.ModelProto) -> None:
    """Raise ConversionError if a name is not UTF-8: it would be bytes, and not a text."""
    graph = model.graph
    names: list[Any] = [model.producer_name, model.producer_version, *(opset.domain for opset in model.opset_import)]
    names += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    names += [one.name for part in (graph.input, graph.output, graph.initializer) for one in part]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise ConversionError("a name of the graph is not UTF-8")


def _read_constants(graph: onnx.GraphProto) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in constants:
            raise ConversionError("two constants have one name")
        constants[tensor.name] = read_tensor(tensor, f"the constant {show(tensor.name)}")
    return constants


def _read_input(value: onnx.ValueInfoProto) -> GraphInput:
    place = f"the input {show(value.name)}"
    if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in DTYPES:
        raise ConversionError(f"{place} has a type that no value of a row has")
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if not kind.HasField("shape") or len(dims) not in {1, 2} or dims[0] not in {0, 1}:
        raise ConversionError(f"{place} is not (rows, width); export the model with a first dimension that varies")
    if any(size < 1 for size in dims[1:]):
        raise ConversionError(f"{place} has no width; export the model with a fixed number of columns")
    return GraphInput(value.name, kind.elem_type, tuple(dims[1:]), dims[0] == 1)


def _read_node(node: onnx.NodeProto, known: set[str]) -> GraphNode:
    name = node.name or (node.output[0] if node.output else "")
    domain = "" if node.domain in {"", "ai.onnx"} else f"{node.domain}."
    read = GraphNode(name, domain + node.op_type, tuple(node.input), tuple(node.output), {})
    if max(len(node.input), len(node.output), len(node.attribute)) > NODE_LINKS_MAX:
        raise read.refuse(f"it has more than {NODE_LINKS_MAX} inputs, outputs or attributes")
    if not known.issuperset(filter(None, node.input)):
        raise read.refuse("it reads what no node before it writes")
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.name in attributes:
            raise read.refuse("it has an attribute twice")
        if attribute.type in NESTED:
            raise read.refuse("it has a graph within it, and only plain nodes are read")
        attributes[attribute.name] = _read_attribute(attribute, read)
    return read._replace(attributes=attributes)


def _read_attribute(attribute: onnx.AttributeProto, node: GraphNode) -> Any:  # noqa: ANN401  # of many types
    place = f"an attribute of the node {show(node.name)}"
    readers: dict[int, Callable[[], Any]] = {
        onnx.AttributeProto.FLOAT: lambda: float(attribute.f),
        onnx.AttributeProto.INT: lambda: int(attribute.i),
        onnx.AttributeProto.STRING: lambda: _decode(attribute.s, place),
        onnx.AttributeProto.TENSOR: lambda: read_tensor(attribute.t, place),
        onnx.AttributeProto.FLOATS: lambda: np.array(attribute.floats, np.float64),
        onnx.AttributeProto.INTS: lambda: np.array(attribute.ints, np.int64),
        onnx.AttributeProto.STRINGS: lambda: [_decode(text, place) for text in attribute.strings],
    }
    if attribute.type not in readers:
        raise node.refuse("it has an attribute of an unknown type")
    return readers[attribute.type]()


def _decode(text: bytes, place: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ConversionError(f"{place} has a text that is not UTF-8") from None


def _unique(names: Iterable[str], known: set[str] = frozenset()) -> set[str]:  # type: ignore[assignment]  # never changed
    """Return names as a set, or raise ConversionError if one occurs twice or is known."""
    listed = list(names)
    if len(set(listed)) < len(listed) or not known.isdisjoint(listed):
        raise ConversionError("two values of the graph have one name")
    return set(listed)
