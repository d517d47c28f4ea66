"""Reading ONNX: golden graphs of skl2onnx and PyTorch, what the export writes, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.convert.graphs.graph_export import input_forms
from service.convert.graphs.graph_file import check_onnx, is_expressible
from service.convert.graphs.graph_source import ConvertedGraph, read_graph, read_onnx_source
from service.convert.proof import feature_encoder, prove
from service.convert.source_options import SourceOptions
from service.errors import ConversionError
from service.fields.generated_rows import RowGenerator
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact, read_artifact
from tests.support.budgets import examples
from tests.support.converted_models import answer_in_float64, answer_rows, to_imported_row
from tests.support.field_artifacts import DENSE_FIELDS, field_artifact
from tests.support.model_artifacts import extra_artifacts, make_artifact
from tests.support.paths import SHIPPED
from tests.support.plain_fields import plain_fields

GOLDEN = Path(__file__).parents[1] / "golden" / "graphs"
GRAPHS = sorted(path.stem for path in GOLDEN.glob("*.onnx"))
EXTRA = extra_artifacts()
BYTES_MAX = 1 << 24
# ONNX has no texts and bags.
REFUSED = {"languages", "characters", "flares"}
SHIPPED_NAMES = sorted(
    path.name for path in SHIPPED.iterdir() if (path / "1" / "model.json").exists() and path.name not in REFUSED
)
HEADS = ("softmax", "sigmoid", "multilabel", "ovr")
PLAIN = tuple(field for field in DENSE_FIELDS if field["kind"] not in {"text", "bag"})


def read_back(artifact: Artifact, path: Path) -> ConvertedGraph:
    """Return a model that was exported, as it is read from its file."""
    path.write_bytes(check_onnx(artifact).raw)
    return read_graph(path)


@pytest.mark.parametrize("name", GRAPHS)
def test_golden_graphs(name: str) -> None:
    """The artifact has the probabilities of scikit-learn and PyTorch, and those of onnxruntime on generated rows."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    converted = read_graph(GOLDEN / f"{name}.onnx", SourceOptions(head=facts.get("head")))
    assert list(converted.model.classes) == facts["classes"]
    assert converted.source is not None
    proof = prove(converted.model, converted.source)
    assert proof.difference < 1e-5
    assert proof.rows >= 200
    # The graphs are in float32, whatever made them.
    np.testing.assert_allclose(answer_rows(proof.artifact, facts["rows"]), facts["probabilities"], atol=2e-6)


def test_golden_graphs_become_the_heads_and_fields_that_they_mean() -> None:
    """One of each kind."""
    models = {name: read_graph(GOLDEN / f"{name}.onnx", SourceOptions(head="softmax")).model for name in GRAPHS}
    heads = {name: model.head for name, model in models.items()}
    assert {head: {name for name in heads if heads[name] == head} for head in ("sigmoid", "multilabel", "ovr")} == {
        "sigmoid": {
            "logistic_two_double", "tanh_two", "table_target", "torch_normalized", "torch_normalized_dynamo",
        },
        "multilabel": {"logistic_sets", "sets"},
        "ovr": {"gradient", "one_versus_rest"},
    }  # fmt: skip
    assert [layer.activation for layer in models["clip_network"].layers] == ["relu", "relu", "identity"]
    assert {field["clip"] for field in models["clip_network"].fields or ()} == {1.0}
    assert models["logistic_names"].features == ["feature_0", "feature_1", "feature_2", "feature_3"]
    assert {field["missing"]["value"] for field in models["imputer"].fields or () if field["missing"] != "mean"}
    assert [field["kind"] for field in models["table_one_hot"].fields or ()] == ["number"] * 2 + ["category"] * 3
    whole = {field["name"]: field for field in models["table_one_hot"].fields or ()}
    assert whole["e"]["values"] == [0, 1, 2]
    assert whole["d"]["missing"] == {"value": ""}
    assert whole["a"]["scale"] == pytest.approx(0.825, abs=0.01)
    dropped = {field["name"]: field for field in models["table_dropped"].fields or ()}
    assert {dropped[name]["unknown"] for name in "cd"} == {"refuse"}
    assert models["table_dropped"].others == "ignore"


def test_a_graph_that_ends_with_logits_needs_a_head() -> None:
    """PyTorch's losses have the head; its kind cannot be seen."""
    path = GOLDEN / "torch_logits.onnx"
    with pytest.raises(ConversionError, match="it has logits and no probabilities; name the head with --head"):
        read_graph(path)
    for head in ("softmax", "multilabel", "ovr"):
        converted = read_graph(path, SourceOptions(head=head))  # type: ignore[arg-type]
        assert converted.source is not None
        assert prove(converted.model, converted.source).artifact.manifest.head == head
    with pytest.raises(ConversionError, match="a sigmoid head has one logit"):
        read_graph(path, SourceOptions(head="sigmoid"))


def test_names_that_are_given() -> None:
    """Classes and features have the names of the caller, and as many."""
    path = GOLDEN / "torch_softmax.onnx"
    model = read_graph(path, SourceOptions(classes=["x", "y", "z"], features=list("abcd"))).model
    assert (list(model.classes), list(model.features or ())) == (["x", "y", "z"], list("abcd"))
    with pytest.raises(ConversionError, match="it has 3 classes, and 2 names are given"):
        read_graph(path, SourceOptions(classes=["x", "y"]))
    with pytest.raises(ConversionError, match="a row has 4 numbers, and 2 names are given"):
        read_graph(path, SourceOptions(features=["a", "b"]))


def test_an_embedding_in_front_is_a_vector() -> None:
    """The only input, as one value of a row; its scaling is that of the graph."""
    for name in ("torch_normalized", "logistic_names"):
        converted = read_graph(GOLDEN / f"{name}.onnx", SourceOptions(vector="embedding"))
        assert [(field["name"], field["kind"]) for field in converted.model.fields or ()] == [("embedding", "vector")]
        assert converted.source is not None
        assert prove(converted.model, converted.source).difference < 1e-5


def test_training_rows_need_the_scaler_of_the_graph() -> None:
    """Its means and scales are those of the training rows."""
    training = read_graph(GOLDEN / "logistic_names.onnx", SourceOptions(training_rows=150)).model.training
    assert training is not None
    assert training["rows"] == 150
    assert training["mean"][0] == pytest.approx(5.843, abs=0.01)
    assert read_graph(GOLDEN / "torch_softmax.onnx", SourceOptions(training_rows=150)).model.training is None


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_shipped_models_come_back(name: str, tmp_path: Path) -> None:
    """Exported and read again, they have the same classes, and the same probabilities on generated rows."""
    check_round_trip(read_artifact(SHIPPED / name / "1", BYTES_MAX), tmp_path)


@pytest.mark.parametrize("name", sorted(EXTRA.keys() - {"heavy"}))
def test_models_of_features_come_back(name: str, tmp_path: Path) -> None:
    """Each head and dtype, hidden layers, stages, calibrations and thresholds."""
    check_round_trip(EXTRA[name], tmp_path)


@pytest.mark.parametrize("head", HEADS)
def test_models_with_fields_come_back(head: str, tmp_path: Path) -> None:
    """A number with a cut and a flag, a boolean that may be missing, mixed categories, a vector."""
    model = check_round_trip(field_artifact(PLAIN, head=head), tmp_path)
    assert [field["kind"] for field in model.fields or ()] == ["number", "number", "category", "vector"]


def test_one_feature_comes_back_with_its_name(tmp_path: Path) -> None:
    """As several do; the caller may give another name, and no second one."""
    artifact = make_artifact("sigmoid", 1, ["no", "yes"])
    assert check_round_trip(artifact, tmp_path).features == ["x0"]
    path = tmp_path / "model.onnx"
    assert read_graph(path, SourceOptions(features=["age"])).model.features == ["age"]
    with pytest.raises(ConversionError, match="a row has 1 numbers, and 2 names are given"):
        read_graph(path, SourceOptions(features=["age", "sex"]))


def test_a_delta_comes_back(tmp_path: Path) -> None:
    """Numbers as they are, and the same ones cut to an interval."""
    state = LearnerState(read_artifact(SHIPPED / "iris" / "1", BYTES_MAX))
    state.fold_rows(np.random.default_rng(1).normal(4, 2, (60, 4)).astype(np.float32), np.arange(60) % 3)
    model = check_round_trip(state.export_artifact(list(state.artifact.manifest.classes), {}), tmp_path)
    sources = [field.get("source", field["name"]) for field in model.fields or ()]
    assert sources == [*state.artifact.column_names] * 2


@given(fields=plain_fields(), head=st.sampled_from(HEADS), seed=st.integers(0, 99))
@settings(max_examples=examples(160), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_fields_come_back(fields: tuple[dict[str, Any], ...], head: str, seed: int, tmp_path: Path) -> None:
    """Every option of numbers, booleans, categories and vectors; T5."""
    artifact = field_artifact(fields, head=head, seed=seed)
    try:
        input_forms(artifact)
    except ConversionError:
        event("inputs of different types")
        return
    assume(not any(field.get("mean") == -1e300 for field in fields))  # it overflows once it is divided
    check_round_trip(artifact, tmp_path)


def check_round_trip(artifact: Artifact, folder: Path) -> Any:
    """Assert that a model that is exported and read again has the same probabilities; return what is read."""
    converted = read_back(artifact, folder / "model.onnx")
    model = converted.model
    assert list(model.classes) == list(artifact.manifest.classes)
    assert model.head == artifact.manifest.head
    assert (model.thresholds and tuple(model.thresholds)) == artifact.manifest.thresholds
    back = model.to_artifact(artifact.manifest.dtype)
    generator = RowGenerator(artifact.row_encoder or feature_encoder(artifact, scaled=True))
    rows = [row for row in generator.make_rows(0, 200) if is_expressible(artifact, row)]
    expected, exact = answer_rows(artifact, rows), answer_in_float64(artifact, rows)
    # Rows whose probabilities the rounding of float32 decides say nothing.
    stable = np.abs(expected - exact).max(axis=1) <= 1e-7 if rows else np.empty(0, np.bool_)
    if rows and stable.any():
        made = answer_rows(back, [to_imported_row(row, back) for row in rows])
        np.testing.assert_allclose(made[stable], expected[stable], atol=1e-6)
    return model


def save(path: Path, nodes: list[Any], inputs: list[Any], constants: dict[str, Any], **more: Any) -> Path:
    """Write a graph whose output is `y`."""
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", None])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [
        helper.make_opsetid("", 17),
        helper.make_opsetid("ai.onnx.ml", 3),
        helper.make_opsetid("com.microsoft", 1),
    ]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8, **more).SerializeToString())
    return path


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    """Return a node; its inputs and outputs are names with spaces between."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def numbers(name: str = "x", width: int = 3) -> Any:
    """Return an input of numbers."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])


ML = {"domain": "ai.onnx.ml"}
TWO = {"W": np.ones((3, 2), np.float32), "c": np.ones(3, np.float32)}
REFUSED: list[tuple[str, list[Any], str]] = [
    ("text", [node("StringNormalizer", "t", name="n")],
     "it splits texts otherwise than scikit-learn does; convert the pipeline from a .skops file"),
    ("tokens", [node("Tokenizer", "t", domain="com.microsoft")], "(com.microsoft.Tokenizer): it splits texts"),
    ("tf-idf", [node("TfIdfVectorizer", "t", name="n")], "(TfIdfVectorizer): it splits texts"),
    ("trees", [node("TreeEnsembleClassifier", "x", "l y", name="n", **ML)],
     'the node "n" (ai.onnx.ml.TreeEnsembleClassifier): it is neither linear nor a field'),
    ("norm", [node("Normalizer", "x", norm="L2", **ML)], "only probabilities may be divided by a norm"),
    ("product", [node("Mul", "x x")], "it multiplies two values of a row with each other"),
    ("quotient", [node("Div", "x x")], "it divides by a value of the row"),
    ("reciprocal", [node("Div", "c x")], "it divides by a value of the row"),
    ("square", [node("Pow", "x c")], "(Pow): it is neither linear nor a field"),
    ("softmax of features", [node("Softmax", "x", "s"), node("MatMul", "s W")],
     "its input is not a matrix of columns"),
    ("exponential", [node("Exp", "x", "e"), node("MatMul", "e W", "z"),
                     node("Softmax", "z")], 'the output "y": exp: neither linear nor one activation'),
    ("skipped layer", [node("Relu", "x", "r"), node("Add", "r x", "a"),
                       node("MatMul", "a W", "z"), node("Softmax", "z")],
     "a layer has inputs before and behind an activation"),
    ("two activations", [node("Relu", "x", "r"), node("Tanh", "x", "t2"),
                         node("Add", "r t2", "a"), node("MatMul", "a W", "z"),
                         node("Softmax", "z")], "relu and tanh: neither linear nor one activation"),
    ("a cut at one end", [node("Clip", "x zero", "r"), node("MatMul", "r W", "z"),
                          node("Softmax", "z")], "a number is cut at one end only"),
    ("a cut number", [node("Cast", "x", "i", to=TensorProto.INT64), node("Add", "i c")],
     "a number is cut to a whole one"),
    ("rows mixed", [node("ReduceSum", "x axis0")], "it adds up something else than the columns of a row"),
    ("rows exchanged", [node("Transpose", "x")], "it exchanges rows and columns"),
    ("other shape", [node("Reshape", "x six")], "it does not keep the rows"),
    ("absent column", [node("Gather", "x seven", axis=1)], "it chooses columns that are not there"),
    ("wrong weights", [node("MatMul", "x c")], "its weights do not fit the columns"),
    ("constant output", [node("Identity", "c")], 'the output "y": it has no probabilities'),
    ("one class", [node("Gemm", "x one", "z"), node("Softmax", "z")],
     "it has one class, and a model has at least two"),
    ("infinite weights", [node("Gemm", "x inf", "z"), node("Softmax", "z")],
     "a weight is not finite"),
    ("division by 0", [node("Div", "x zero")], "it divides by 0"),
    ("shape of a row", [node("ConstantOfShape", "x", "k"), node("MatMul", "k W")],
     "its shape is a value of the row; skl2onnx writes it wrongly where only column 0 is selected"),
    ("huge constant", [node("ConstantOfShape", "huge", "k"), node("Mul", "x k")], "a constant would be too large"),
    ("negative shape", [node("ConstantOfShape", "minus", "k"), node("Mul", "x k")], "its shape or its value"),
]  # fmt: skip
MORE = {
    "zero": np.float32(0), "axis0": np.array([0]), "six": np.array([-1, 6]), "seven": np.array([7]),
    "huge": np.array([1 << 20, 1 << 20]), "minus": np.array([-1]),
    "one": np.ones((3, 1), np.float32), "inf": np.full((3, 2), np.inf, np.float32),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "sentence"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_neither_linear_nor_a_field_is_refused(nodes: list[Any], sentence: str, tmp_path: Path) -> None:
    """By the name of the node and its operator."""
    text = helper.make_tensor_value_info("t", TensorProto.STRING, ["rows", 1])
    path = save(tmp_path / "g.onnx", nodes, [numbers(), text], {**TWO, **MORE})
    with pytest.raises(ConversionError) as caught:
        read_graph(path)
    assert sentence in str(caught.value)


def test_a_constant_of_a_shape_is_read(tmp_path: Path) -> None:
    """It is 0 in float32, or the number of its attribute."""
    two = onnx.numpy_helper.from_array(np.array([2], np.float32))
    nodes = [
        node("ConstantOfShape", "shape", "twos", value=two),
        node("ConstantOfShape", "shape", "zeros"),
        node("Mul", "x twos", "m"),
        node("Add", "m zeros", "a"),
        node("MatMul", "a W", "z"),
        node("Softmax", "z"),
    ]
    constants = {"shape": np.array([3]), "W": np.arange(6, dtype=np.float32).reshape(3, 2)}
    converted = read_graph(save(tmp_path / "g.onnx", nodes, [numbers()], constants))
    assert converted.source is not None
    proof = prove(converted.model, converted.source)
    assert proof.difference < 1e-6
    assert proof.artifact.weights.tolist() == [[0, 2], [4, 6], [8, 10]]


@pytest.mark.parametrize(("name", "asked"), [("one_versus_rest", "the logits of onnxruntime"), ("sets", "onnxruntime")])
def test_the_proof_says_what_was_asked(name: str, asked: str) -> None:
    """Logistic functions that are divided by their sum are compared by their logits."""
    read = read_onnx_source(GOLDEN / f"{name}.onnx", SourceOptions())
    assert read.compared_with == asked


def test_a_graph_for_one_row_is_asked_row_by_row(tmp_path: Path) -> None:
    """PyTorch fixes the number of rows to that of its example, unless an option makes it variable."""
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    nodes = [node("Gemm", "x W", "z"), node("Softmax", "z")]
    weights = {"W": np.arange(6, dtype=np.float32).reshape(3, 2)}
    converted = read_graph(save(tmp_path / "g.onnx", nodes, [one], weights))
    assert converted.source is not None
    assert prove(converted.model, converted.source).difference < 1e-6


def test_a_graph_that_onnxruntime_cannot_run_is_read(tmp_path: Path) -> None:
    """An imputer of doubles has no kernel; probabilities then come from a file."""
    double = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["rows", 3])
    nodes = [
        node("Imputer", "x", "f", imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=np.nan, **ML),
        node("MatMul", "f W", "z"),
        node("Softmax", "z"),
    ]
    converted = read_graph(save(tmp_path / "g.onnx", nodes, [double], {"W": np.ones((3, 2))}))
    assert converted.source is None
    assert [field["missing"] for field in converted.model.fields or ()] == [
        {"value": 1.0},
        {"value": 2.0},
        {"value": 3.0},
    ]


def test_whole_numbers_that_are_numbers_take_any_number(tmp_path: Path) -> None:
    """So generated rows between them can be compared."""
    whole = helper.make_tensor_value_info("x", TensorProto.INT64, ["rows", 3])
    nodes = [
        node("Cast", "x", "f", to=TensorProto.FLOAT),
        node("MatMul", "f W", "z"),
        node("Softmax", "z"),
    ]
    weights = {"W": np.arange(6, dtype=np.float32).reshape(3, 2)}
    converted = read_graph(save(tmp_path / "g.onnx", nodes, [whole], weights))
    assert converted.source is not None
    assert prove(converted.model, converted.source).difference < 1e-6
