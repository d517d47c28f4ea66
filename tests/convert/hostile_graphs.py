"""ONNX files that were made to harm the person who imports them, each with words of the sentence that refuses it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

from service.convert.graphs.graph_parser import NODES_MAX

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    """Return a node; its inputs and outputs are names with spaces between."""
    return helper.make_node(operator, inputs.split(" "), outputs.split(" "), **attributes)


def model_of(nodes: list[Any] | None = None, width: Any = 3, datatype: int = TensorProto.FLOAT) -> ModelProto:
    """Return a model with the input `x` and the constant `W`; by default a linear classifier."""
    if nodes is None:
        nodes = [node("MatMul", "x W", "z"), node("Softmax", "z")]
    inputs = [helper.make_tensor_value_info("x", datatype, ["rows", width])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(WEIGHTS, "W"), onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "S")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def changed(change: Callable[[ModelProto], object]) -> bytes:
    """Return the bytes of a linear classifier after a change."""
    model = model_of()
    change(model)
    return model.SerializeToString()


def external(location: str) -> bytes:
    """Return a model whose weights are in another file."""

    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "24")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return changed(change)


def weights(change: Callable[[TensorProto], object]) -> bytes:
    """Return a model after a change of its weights."""
    return changed(lambda model: change(model.graph.initializer[0]))


def in_attribute(change: Callable[[AttributeProto], object]) -> bytes:
    """Return a model whose node has an attribute that is changed."""

    def add(model: ModelProto) -> None:
        attribute = model.graph.node[0].attribute.add()
        attribute.name = "a"
        change(attribute)

    return changed(add)


def nested_graphs(depth: int) -> bytes:
    """Return a model with graphs within graphs."""
    inner = helper.make_graph([], "g", [], [])
    for _ in range(depth):
        outer = helper.make_graph([node("If", "x", "z", then_branch=inner, else_branch=inner)] * 1, "g", [], [])
        inner = outer
    return model_of([node("If", "x", "y", then_branch=inner, else_branch=inner)]).SerializeToString()


def doubling(steps: int) -> bytes:
    """Return a model whose columns double in each step."""
    nodes = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=1) for i in range(steps)]
    return model_of([node("Identity", "x", "v0"), *nodes, node("Softmax", f"v{steps}")]).SerializeToString()


def sums(steps: int, *, scaled: bool = False) -> bytes:
    """Return a model that adds a value to itself again and again."""
    add = [node("Add", f"v{i} v{i}", f"s{i}") for i in range(steps)]
    then = [node("Neg" if scaled else "Identity", f"s{i}", f"v{i + 1}") for i in range(steps)]
    nodes = [each for pair in zip(add, then, strict=True) for each in pair]
    return model_of([node("Identity", "x", "v0"), *nodes, node("Softmax", f"v{steps}")]).SerializeToString()


def set_dims(*dims: int) -> Callable[[TensorProto], object]:
    """Return a change of the shape that a tensor claims."""

    def change(tensor: TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return change


def categories(**attributes: Any) -> bytes:
    """Return a model with an encoder of categories."""
    made = [node("LabelEncoder", "x", "e", domain="ai.onnx.ml", **attributes), node("Concat", "e e", "z", axis=1)]
    made.append(node("Softmax", "z"))
    return model_of(made, 1, TensorProto.STRING).SerializeToString()


GOOD = model_of().SerializeToString()
CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is no ONNX model"),
    "zeros": (bytes(64), "the file is no ONNX model"),
    "noise": (bytes(range(256)) * 4, "the file is no ONNX model"),
    "pickle": (b"\x80\x04cos\nsystem\n.", "the file is no ONNX model"),
    "truncated": (GOOD[:-7], "the file is no ONNX model"),
    "truncated early": (GOOD[:9], "the file is no ONNX model"),
    "a claim of 2 GB": (b"\x3a\xff\xff\xff\xff\x07" + GOOD, "the file is no ONNX model"),
    "a varint without end": (b"\x08" + b"\xff" * 64, "the file is no ONNX model"),
    "groups within groups": (b"\x0b" * 4096, "the file is no ONNX model"),
    "no graph": (changed(lambda model: model.ClearField("graph")), "the file is no ONNX model"),
    "no opset": (changed(lambda model: model.ClearField("opset_import")), "the file is no ONNX model"),
    "no version": (changed(lambda model: model.ClearField("ir_version")), "the file is no ONNX model"),
    "an old opset": (changed(lambda m: setattr(m.opset_import[0], "version", 1)), "operators from before opset 7"),
    "external ..": (external("../../../etc/passwd"), 'the constant "W" keeps its data in another file'),
    "external absolute": (external("/etc/passwd"), "keeps its data in another file"),
    "external device": (external("/dev/zero"), "keeps its data in another file"),
    "external empty": (external(""), "keeps its data in another file"),
    "external beside": (external("weights.bin"), "keeps its data in another file"),
    "external and raw": (
        weights(lambda t: (t.external_data.add(), setattr(t, "data_location", TensorProto.EXTERNAL))),
        "keeps its data in another file",
    ),
    "external entries alone": (weights(lambda t: t.external_data.add()), "keeps its data in another file"),
    "external attribute": (
        in_attribute(lambda a: (setattr(a, "type", AttributeProto.TENSOR), setattr(a.t, "data_location", 1))),
        "keeps its data in another file",
    ),
    "huge dims": (weights(set_dims(1 << 40, 1 << 20)), "has other numbers than its shape says"),
    "dims that overflow": (weights(set_dims(1 << 62, 4, 3, 2)), "has other numbers than its shape says"),
    "dims whose product is 0": (weights(set_dims(0, 1 << 62)), "has other numbers than its shape says"),
    "negative dims": (weights(set_dims(-3, -2)), "has no shape of a tensor"),
    "many dims": (weights(set_dims(*[1] * 64, 3, 2)), "has no shape of a tensor"),
    "short data": (weights(lambda t: setattr(t, "raw_data", bytes(7))), "has other numbers than its shape says"),
    "an unknown type": (weights(lambda t: setattr(t, "data_type", 999)), "has a type that is not read"),
    "complex": (weights(lambda t: setattr(t, "data_type", TensorProto.COMPLEX64)), "has a type that is not read"),
    "texts as weights": (
        weights(lambda t: (t.ClearField("raw_data"), setattr(t, "data_type", TensorProto.STRING),
                           t.string_data.extend([b"a"] * 6))), "a text is used as a number",
    ),
    "texts that are not UTF-8": (
        weights(lambda t: (t.ClearField("raw_data"), setattr(t, "data_type", TensorProto.STRING),
                           t.string_data.extend([b"\xff"] * 6))), "has a text that is not UTF-8",
    ),
    "NaN weights": (weights(lambda t: setattr(t, "raw_data", np.full(6, np.nan, np.float32).tobytes())),
                    "a weight is not finite"),
    "infinite weights": (weights(lambda t: setattr(t, "raw_data", np.full(6, np.inf, np.float32).tobytes())),
                         "a weight is not finite"),
    "two constants of one name": (changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
                                  "two constants have one name"),
    "two inputs of one name": (changed(lambda m: m.graph.input.append(m.graph.input[0])),
                               "two values of the graph have one name"),
    "a node that overwrites": (model_of([node("MatMul", "x W", "x"), node("Softmax", "x")]).SerializeToString(),
                               "two values of the graph have one name"),
    "a circle": (model_of([node("Add", "a W", "b"), node("Add", "b W", "a"), node("Softmax", "a")]).SerializeToString(),
                 "it reads what no node before it writes"),
    "a node of itself": (model_of([node("Softmax", "y")]).SerializeToString(), "it reads what no node before it"),
    "a missing input": (model_of([node("MatMul", "x V", "z"), node("Softmax", "z")]).SerializeToString(),
                        "it reads what no node before it writes"),
    "a missing output": (model_of([node("MatMul", "x W", "z")]).SerializeToString(), "is no output of a node"),
    "no outputs": (changed(lambda m: m.graph.ClearField("output")), "is no output of a node"),
    "a subgraph": (nested_graphs(1), "it has a graph within it"),
    "deep subgraphs": (nested_graphs(12), "it has a graph within it"),
    "a list of graphs": (
        in_attribute(lambda a: (setattr(a, "type", AttributeProto.GRAPHS), a.graphs.add())), "it has a graph within it",
    ),
    "an unknown attribute": (in_attribute(lambda _: None), "it has an attribute of an unknown type"),
    "an attribute twice": (
        changed(lambda m: [m.graph.node[1].attribute.append(helper.make_attribute("axis", 1)) for _ in range(2)]),
        "it has an attribute twice",
    ),
    "functions": (changed(lambda m: m.functions.add()), "functions, training information or sparse tensors"),
    "training": (changed(lambda m: m.training_info.add()), "functions, training information or sparse tensors"),
    "sparse weights": (changed(lambda m: m.graph.sparse_initializer.add()), "functions, training information or"),
    "many nodes": (model_of([node("Identity", "x", f"v{i}") for i in range(NODES_MAX + 1)]).SerializeToString(),
                   f"the graph has more than {NODES_MAX} nodes"),
    "a node of many inputs": (model_of([node("Concat", " ".join(["x"] * 5000), axis=1)]).SerializeToString(),
                              "it has more than 4096 inputs"),
    "columns that double": (doubling(60), "there are more than 65536 columns"),
    "a wide input": (model_of(width=1 << 30).SerializeToString(), "a row has more than 65536 values"),
    "an input without width": (model_of(width="columns").SerializeToString(), "has no width"),
    "an input of no type": (model_of(datatype=TensorProto.COMPLEX128).SerializeToString(), "has a type that no value"),
    "a wide constant": (
        model_of([node("Identity", "W", "c"), node("Expand", "x c")]).SerializeToString(),
        "it is neither linear nor a field",
    ),
    "sums of sums": (sums(40), "too many paths"),
    "scaled sums of sums": (sums(40, scaled=True), "too many paths"),
    "a long chain": (
        model_of([node("Identity", "x", "v0"), *(node("MatMul", f"v{i} S", f"v{i + 1}") for i in range(9000)),
                  node("Softmax", "v9000")]).SerializeToString(), "too many steps behind each other",
    ),
    "a category twice": (categories(keys_strings=["a", "a"], values_int64s=[0, 1]), "it has one category twice"),
    "a table that does not fit": (categories(keys_strings=["a"], values_int64s=[0, 1]), "it has no table"),
    "an infinite table": (categories(keys_strings=["a"], values_floats=[float("inf")]), "a weight is not finite"),
    "a long category": (categories(keys_strings=["a" * 999], values_int64s=[0]), "more than 256 characters"),
    "code in a name": (
        model_of([node("__import__('os').system('true')", "x", name="x\n\x1b[31m" * 99)]).SerializeToString(),
        "it is neither linear nor a field",
    ),
}  # fmt: skip
