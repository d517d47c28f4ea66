"""Hostile ONNX files are refused in one sentence, within bounds; nothing is run, and no other file is opened."""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

from service.convert.graphs.graph_parser import GRAPH_BYTES_MAX, NODES_MAX
from service.convert.graphs.graph_source import read_graph
from service.errors import ConversionError
from tests.support.paths import ROOT

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)
GOLDEN = Path(__file__).parents[1] / "golden" / "graphs"


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


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    """Each by what is wrong with it; no file beside it is opened, and none is written."""
    raw, sentence = CASES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(raw)
    with opened_files() as opened, pytest.raises(ConversionError) as caught:
        read_graph(path)
    message = str(caught.value)
    assert sentence in message
    assert len(message) < 300
    assert message.isprintable()
    assert opened <= {str(path)}
    assert list(tmp_path.iterdir()) == [path]


def test_there_are_enough_of_them() -> None:
    """Figure T6 counts them."""
    assert len(CASES) >= 60


def test_large_files_and_other_files_are_refused(tmp_path: Path) -> None:
    """A file above the bound is not read, and neither are pipes and folders."""
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(GRAPH_BYTES_MAX + 1)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, sentence in (
        (large, "bytes, and at most"),
        (pipe, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "missing.onnx", "cannot be read"),
    ):
        with pytest.raises(ConversionError, match=sentence):
            read_graph(path)


def test_damaged_bytes_are_refused_or_read(tmp_path: Path) -> None:
    """Any byte of a model may be any other one; only ConversionError is raised."""
    rng, path = np.random.default_rng(4), tmp_path / "model.onnx"
    originals = [GOOD, *((GOLDEN / f"{name}.onnx").read_bytes() for name in ("table_one_hot", "gradient"))]
    refused = 0
    for i in range(900):
        raw = bytearray(originals[i % 3])
        for _ in range(int(rng.integers(1, 4))):
            raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
        path.write_bytes(raw)
        try:
            read_graph(path)
        except ConversionError as error:
            refused += str(error).isprintable()
    assert 200 < refused < 900


def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """All cases in one process of their own: what it takes above its imports is within 256 MiB."""
    for i, (raw, _) in enumerate(CASES.values()):
        (tmp_path / f"{i}.onnx").write_bytes(raw)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from service.convert.graphs.graph_source import read_graph\n"
        "from service.errors import ConversionError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        read_graph(path)\n"
        "    except ConversionError:\n"
        "        continue\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 256
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


class opened_files:  # noqa: N801  # used as a function
    """The paths that this thread opens within a block; threads of other tests may still follow files of theirs."""

    _sets: dict[int, set[str]] = {}  # noqa: RUF012  # by thread; one hook serves all blocks

    def __enter__(self) -> set[str]:
        opened = self._sets[threading.get_ident()] = set()
        return opened

    def __exit__(self, *_: object) -> None:
        del self._sets[threading.get_ident()]

    @classmethod
    def note(cls, event: str, arguments: tuple[Any, ...]) -> None:
        """Note a file that is opened; sys.addaudithook calls it."""
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            cls._sets.get(threading.get_ident(), set()).add(os.fspath(arguments[0]))


sys.addaudithook(opened_files.note)
