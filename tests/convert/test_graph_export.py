"""Models as ONNX: onnxruntime answers what the service answers, and what ONNX cannot express is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from service.convert.graphs import graph_file
from service.convert.graphs.field_nodes import MISSING_INTEGER
from service.convert.graphs.graph_builder import IR_VERSION, ML_OPSET, OPSET
from service.convert.graphs.graph_export import input_forms, make_onnx
from service.convert.graphs.graph_file import check_onnx, is_expressible, write_onnx
from service.convert.graphs.graph_session import InputForm, OnnxSession, make_input
from service.errors import ConversionError
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.model_factory import build_model
from tests.support.artifact_files import HEAD_LAYER, HIDDEN_LAYER
from tests.support.budgets import examples
from tests.support.field_artifacts import DENSE_FIELDS, HASHED_FIELDS, field_artifact
from tests.support.mixture_states import make_artifact, make_rows
from tests.support.model_artifacts import extra_artifacts
from tests.support.paths import SHIPPED
from tests.support.plain_fields import KINDS, plain_fields

BYTES_MAX = 1 << 24
# ONNX has no texts and bags.
REFUSED = {"languages", "characters", "flares"}
SHIPPED_NAMES = sorted(
    path.name for path in SHIPPED.iterdir() if (path / "1" / "model.json").exists() and path.name not in REFUSED
)
EXTRA = extra_artifacts()
PLAIN = tuple(field for field in DENSE_FIELDS if field["kind"] in KINDS)
HEADS = ("softmax", "sigmoid", "multilabel", "ovr")


def shipped(name: str) -> Artifact:
    """Return a shipped model."""
    return read_artifact(SHIPPED / name / "1", BYTES_MAX)


def answer(artifact: Artifact, rows: list[dict[str, Any]], output: int = 1) -> Any:
    """Return an output of the graph for rows: 0 for the labels, 1 for the probabilities."""
    model = make_onnx(artifact)
    return OnnxSession(model.SerializeToString(), input_forms(artifact), model.graph.output[output].name).run(rows)


def expect(artifact: Artifact, rows: list[dict[str, Any]]) -> Any:
    """Return the probabilities of the service."""
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    return build_model(artifact).predict(encoded.to_matrix(encoder.n_columns))


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_shipped_models(name: str) -> None:
    """They are valid ONNX, and nearly all generated rows are compared."""
    check = check_onnx(shipped(name))
    onnx.checker.check_model(onnx.load_model_from_string(check.raw), full_check=True)
    assert check.difference < 1e-5
    assert check.rows == 200


@pytest.mark.parametrize("name", EXTRA)
def test_models_of_features(name: str) -> None:
    """Each head and dtype, hidden layers, a stage with a cut, calibrations."""
    check = check_onnx(EXTRA[name])
    assert check.difference < (1e-5 if EXTRA[name].manifest.dtype == "float32" else 1e-14)
    assert check.rows >= 180


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", HEADS)
def test_models_with_fields(head: str, dtype: str) -> None:
    """A number with a cut and a flag, a boolean that may be missing, mixed categories, a vector with tensors."""
    artifact = field_artifact(PLAIN, head=head, dtype=dtype)
    check = check_onnx(artifact)
    assert check.difference < (1e-5 if dtype == "float32" else 1e-14)
    assert check.rows >= 150


def test_a_network_with_fields() -> None:
    """Hidden layers behind fields."""
    rng = np.random.default_rng(0)
    fields = [{"name": "n", "kind": "number"}, {"name": "c", "kind": "category", "values": ["a", "b"]}]
    manifest = {
        "head": "softmax", "classes": ["no", "yes"], "fields": fields, "dtype": "float32",
        "layers": [HIDDEN_LAYER, HEAD_LAYER],
    }  # fmt: skip
    shapes = {"h": (3, 5), "c": (5,), "weight": (5, 2), "bias": (2,)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    assert check_onnx(Artifact.from_fields(manifest, tensors)).difference < 1e-6


def test_a_learned_delta() -> None:
    """What a trained model has learned from feedback, with its calibration."""
    state = LearnerState(shipped("iris"))
    X = np.random.default_rng(1).normal(4, 2, (60, 4)).astype(np.float32)
    state.fold_rows(X, np.arange(60) % 3)
    artifact = state.export_artifact(list(state.artifact.manifest.classes), {})
    assert artifact.manifest.delta is not None
    assert check_onnx(artifact).difference < 1e-5


@given(fields=plain_fields(), head=st.sampled_from(HEADS), seed=st.integers(0, 99))
@settings(max_examples=examples(160), deadline=None)
def test_random_fields(fields: tuple[dict[str, Any], ...], head: str, seed: int) -> None:
    """Every option of numbers, booleans, categories and vectors, in float64, where nothing is left to rounding."""
    artifact = field_artifact(fields, head=head, dtype="float64", seed=seed)
    try:
        input_forms(artifact)
    except ConversionError:
        event("inputs of different types")
        return
    assert check_onnx(artifact, seed=seed).difference < 1e-9


def test_fields_of_one_value_share_its_input() -> None:
    """A number and a category of whole numbers, two booleans; a text and a boolean have no common type."""
    whole = {
        "name": "c",
        "kind": "category",
        "values": [1, 2, 3],
        "source": "x",
        "missing": "column",
        "unknown": "other",
    }
    fields = (
        {"name": "n", "kind": "number", "source": "x"}, whole, {"name": "b", "kind": "boolean"},
        {"name": "b or gap", "kind": "boolean", "source": "b", "missing": "column"},
    )  # fmt: skip
    artifact = field_artifact(fields)
    assert [(form.name, form.datatype) for form in input_forms(artifact)] == [
        ("x", onnx.TensorProto.DOUBLE),
        ("b", onnx.TensorProto.DOUBLE),
    ]
    rows = [{"x": x, "b": b} for x in (None, 1, 2.0, 7) for b in (None, True, False)]
    np.testing.assert_allclose(answer(artifact, rows), expect(artifact, rows), atol=1e-6)
    mixed = ({"name": "b", "kind": "boolean"}, {"name": "t", "kind": "category", "values": [True, "a"], "source": "b"})
    with pytest.raises(ConversionError, match='the fields that read "b" need inputs of different types'):
        make_onnx(field_artifact(mixed))


def test_missing_values_have_a_form_in_each_type() -> None:
    """NaN, the least whole number and the empty text; each is the row's null."""
    fields = (
        {"name": "n", "kind": "number", "missing": "column"},
        {"name": "i", "kind": "category", "values": [1, 2], "missing": "column"},
        {"name": "t", "kind": "category", "values": ["a", "b"], "missing": {"value": "b"}},
        {"name": "v", "kind": "vector", "size": 2, "missing": "column"},
        {"name": "b", "kind": "boolean", "missing": {"value": True}},
    )
    artifact = field_artifact(fields)
    gaps: dict[str, Any] = dict.fromkeys(("n", "i", "t", "v", "b"))
    inputs = {form.name: make_input(form, [gaps]).tolist() for form in input_forms(artifact)}
    assert inputs["i"] == [[MISSING_INTEGER]]
    assert inputs["t"] == [[""]]
    assert np.isnan([inputs["n"][0][0], *inputs["v"][0], inputs["b"][0][0]]).all()
    rows = [gaps, {"n": 1, "i": 2.0, "t": "a", "v": [1, 2], "b": False}]
    np.testing.assert_allclose(answer(artifact, rows), expect(artifact, rows), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"kind": "number", "missing": "refuse", "clip": 1.0}, None),
        ({"kind": "category", "values": ["a"], "unknown": "refuse"}, "b"),
        ({"kind": "category", "values": [1], "missing": "refuse"}, None),
        ({"kind": "vector", "size": 2, "missing": "refuse"}, None),
        ({"kind": "boolean", "missing": "refuse"}, None),
    ],
)
def test_refused_values_have_no_probabilities(field: dict[str, Any], value: object) -> None:
    """A graph cannot refuse a row, so its probabilities are NaN."""
    artifact = field_artifact(({"name": "x", **field}, {"name": "y", "kind": "number"}))
    assert np.isnan(answer(artifact, [{"x": value, "y": 1.0}])).all()


def test_labels() -> None:
    """The most probable class; of a multilabel model 1 for each class that reaches its threshold."""
    X = np.random.default_rng(3).normal(0, 2, (50, 4)).astype(np.float32)
    rows = [dict(zip(EXTRA["ovr"].column_names, row, strict=True)) for row in X.tolist()]
    P, labels = (answer(EXTRA["ovr"], rows, output) for output in (1, 0))
    assert labels.tolist() == [EXTRA["ovr"].manifest.classes[k] for k in P.argmax(axis=1)]
    assert len(set(labels.tolist())) > 1
    tags = EXTRA["tags"]
    rows = [dict(zip(tags.column_names, row, strict=False)) for row in X.tolist()]
    P, named = (answer(tags, rows, output) for output in (1, 0))
    assert (named == (np.float32([0.2, 0.5, 0.8]) <= P)).all()
    assert set(named.ravel().tolist()) == {0, 1}


def test_the_least_and_the_largest_logits_of_one_versus_rest() -> None:
    """The sum of the sigmoids may be too small for the dtype."""
    artifact = EXTRA["ovr"]
    rows = [dict.fromkeys(artifact.column_names, x) for x in (-1e4, 1e4, 0.0)]
    P = answer(artifact, rows)
    X = np.array([[x] * 4 for x in (-1e4, 1e4, 0.0)], np.float32)
    np.testing.assert_allclose(P, build_model(artifact).predict(X), atol=1e-4)


def test_names_of_the_graph_are_those_of_the_fields() -> None:
    """Whatever these are called; an output gives way."""
    fields = tuple(
        {"name": name, "kind": "number"} for name in ("label", "probabilities", "constant_1", "Sub_3", "größe / m²")
    )
    artifact = field_artifact(fields)
    graph = make_onnx(artifact).graph
    assert [value.name for value in graph.input] == [field["name"] for field in fields]
    assert [value.name for value in graph.output] == ["label_", "probabilities_"]
    assert check_onnx(artifact).difference < 1e-6


def test_the_versions_are_modest() -> None:
    """Runtimes of some years ago read the file."""
    model = make_onnx(EXTRA["network"])
    assert (model.ir_version, {opset.domain: opset.version for opset in model.opset_import}) == (
        IR_VERSION,
        {"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    assert (IR_VERSION, OPSET, ML_OPSET) == (8, 17, 3)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"kind": "text", "words": [1, 1], "bits": 4}, "is a text, and ONNX takes numbers"),
        ({"kind": "bag", "terms": ["a"]}, "is a bag, and ONNX takes numbers"),
        ({"kind": "category", "bits": 4}, "is a hashed category, and ONNX takes numbers"),
        ({"kind": "category", "values": ["1", 1]}, "are one text, and ONNX has no mixed types"),
    ],
)
def test_fields_that_onnx_does_not_have(field: dict[str, Any], problem: str) -> None:
    """Each is refused by its name."""
    with pytest.raises(ConversionError, match=f'"x" .*{problem}|"x" {problem}'):
        make_onnx(field_artifact(({"name": "x", **field},)))


def test_crosses_and_mixtures_are_refused() -> None:
    """A cross by its name; a learned mixture as a whole."""
    cross = {"name": "x", "kind": "cross", "fields": ["n", "m"], "bits": 4}
    numbers = tuple({"name": name, "kind": "number"} for name in "nm")
    with pytest.raises(ConversionError, match='the field "x" is a cross'):
        make_onnx(field_artifact((*numbers, cross)))
    state = LearnerState(make_artifact())
    state.fold_rows(*make_rows())
    with pytest.raises(ConversionError, match="the model has learned a mixture"):
        make_onnx(state.export_artifact(list(state.artifact.manifest.classes), {}))
    with pytest.raises(ConversionError, match="takes numbers"):
        make_onnx(field_artifact(HASHED_FIELDS[:1]))


@pytest.mark.parametrize(
    ("values", "value", "expressible"),
    [
        (["a"], "", False), (["a", ""], "", True), (["a", ""], None, False), (["a", 7], "7", False),
        (["a", 7], 7, True), (["a", True], "true", False), ([1], None, True), ([1], 2**70, False), ([1], 3.0, True),
    ],
)  # fmt: skip
def test_values_that_no_input_expresses(values: list[Any], value: object, *, expressible: bool) -> None:
    """One type for all values, and the empty text for a missing one."""
    artifact = field_artifact(({"name": "x", "kind": "category", "values": values},))
    assert is_expressible(artifact, {"x": value}) is expressible


def test_the_file_appears_once_it_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph with other probabilities is refused, and a file that is there stays."""
    path = tmp_path / "iris.onnx"
    check = write_onnx(path, shipped("iris"))
    assert path.read_bytes() == check.raw
    assert check_onnx(shipped("iris")).raw == check.raw
    wrong = Artifact.from_fields(
        {
            **shipped("iris").manifest.model_dump(
                mode="json", include={"head", "classes", "features", "dtype", "layers"}
            )
        },
        {"weight": shipped("iris").weights * np.float32(1.01), "bias": shipped("iris").bias},
    )
    monkeypatch.setattr(graph_file, "make_onnx", lambda _: make_onnx(wrong))
    with pytest.raises(ConversionError, match=r"differs by .*, and at most 0\.0001 is allowed"):
        write_onnx(path, shipped("iris"))
    assert path.read_bytes() == check.raw
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_that_cannot_run_is_refused() -> None:
    """Bytes that are no model, and rows that do not fit."""
    with pytest.raises(ConversionError, match="onnxruntime cannot run the model"):
        OnnxSession(b"no model", [], "y")
    model = make_onnx(shipped("iris"))
    form = InputForm("features", onnx.TensorProto.FLOAT, ("a", "b"))
    session = OnnxSession(model.SerializeToString(), [form], "probabilities")
    with pytest.raises(ConversionError, match="onnxruntime cannot answer the rows"):
        session.run([{"a": 1.0, "b": 2.0}])
