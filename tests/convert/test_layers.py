"""Layers of safetensors and .npz files: the same function whichever way round the weights are, and what is refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from service.convert.converted_model import Doubles
from service.convert.layers.layer_list import NamedLayer, parse_layers
from service.convert.layers.layer_model import read_layer_source
from service.convert.proof import prove, prove_expected
from service.convert.source_options import SourceOptions
from service.errors import ConversionError
from tests.support.budgets import examples
from tests.support.reference import probabilities

ACTIVATIONS: dict[str, Any] = {
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write a safetensors file, or an .npz file that is compressed or not."""
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)
    elif "packed" in path.stem:
        np.savez_compressed(path, **tensors)
    else:
        np.savez(path, **tensors)


def make_network(sizes: list[int], seed: int = 0) -> dict[str, Doubles]:
    """Return the tensors of a network, its weights (N, K)."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Doubles] = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        tensors[f"w{i}"] = rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(np.float32).astype(np.float64)
        tensors[f"b{i}"] = rng.normal(0, 0.3, outputs).astype(np.float32).astype(np.float64)
    return tensors


def compute(X: Doubles, tensors: dict[str, Doubles], activations: list[str]) -> Doubles:
    """Return the logits of rows X (B, N)."""
    for i, activation in enumerate([*activations, ""]):
        X = X @ tensors[f"w{i}"] + tensors[f"b{i}"]
        X = ACTIVATIONS[activation](X) if activation else X
    return X


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.tuples(
        st.sampled_from(["a.safetensors", "a.npz", "packed.npz"]),
        st.sampled_from(["outputs", "inputs"]),
        st.sampled_from(["<f8", "<f4"]),
    ),
    st.data(),
)
def test_probabilities_are_those_of_the_network(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], form: tuple[str, str, str], data: st.DataObject
) -> None:
    """Any number of layers and activations, both files, both ways round, and any head."""
    (name, rows, dtype), tensors = form, make_network(sizes)
    hidden = [data.draw(st.sampled_from(list(ACTIVATIONS))) for _ in sizes[2:]]
    K = sizes[-1]
    head = "sigmoid" if K == 1 else data.draw(st.sampled_from(["softmax", "multilabel", "ovr"]))
    stored = {key: (x.T if rows == "outputs" and x.ndim == 2 else x).astype(dtype) for key, x in tensors.items()}
    path = tmp_path_factory.mktemp("layers") / name
    write_tensors(path, stored)
    words = [f"w{i},b{i}{':' + activation if activation else ''}" for i, activation in enumerate([*hidden, ""])]
    read = read_layer_source(path, SourceOptions(layers=",".join(words), head=head, weight_rows=rows))
    assert read.source is not None
    proof = prove(read.model, read.source)
    assert proof.difference < 1e-5
    X = np.random.default_rng(1).normal(0, 2, (50, sizes[0]))
    objects = [{f"feature_{i}": x for i, x in enumerate(row)} for row in X.tolist()]
    expected = probabilities(head, compute(X, tensors, hidden)).astype(np.float64)
    assert prove_expected(read.model, objects, expected).difference < 1e-5


def test_the_side_of_the_outputs_is_found(tmp_path: Path) -> None:
    """By the biases and widths; a square weight needs to be told, or the other layers show it."""
    path = tmp_path / "a.safetensors"
    X = np.random.default_rng(1).normal(0, 1, (9, 4))
    for sizes, options in (
        ([4, 4, 3], {}),
        ([4, 4], {"weight_rows": "outputs"}),
        ([4, 1], {}),
        ([4, 3], {"features": ["a", "b", "c", "d"]}),
    ):
        tensors = make_network(sizes)
        for rows in ("outputs", "inputs"):
            write_tensors(path, {key: x.T if rows == "outputs" and x.ndim == 2 else x for key, x in tensors.items()})
            layers = "w0,b0:tanh,w1,b1" if len(sizes) == 3 else "w0,b0"
            given = {key: rows if key == "weight_rows" else value for key, value in options.items()}
            model = read_layer_source(path, SourceOptions(layers=layers, **given)).model
            names = model.features or ()
            expected = probabilities(
                "sigmoid" if sizes[-1] == 1 else "softmax", compute(X, tensors, ["tanh"] * (len(sizes) - 2))
            )
            objects = [dict(zip(names, row, strict=True)) for row in X.tolist()]
            assert prove_expected(model, objects, expected.astype(np.float64)).difference < 1e-5
    write_tensors(path, make_network([4, 4]))
    with pytest.raises(ConversionError, match="fit both ways round; add --weight-rows"):
        read_layer_source(path, SourceOptions(layers="w0,b0"))
    with pytest.raises(ConversionError, match=r"^the weights and biases of --layers do not fit each other$"):
        read_layer_source(path, SourceOptions(layers="w0,w0"))


def test_vectors_of_one_output_and_layers_without_bias(tmp_path: Path) -> None:
    """A weight (N,) has one output, as scikit-learn's coefficients of two classes; a bias may be left out."""
    path = tmp_path / "a.npz"
    write_tensors(path, {"coef": np.array([1.0, -2.0]), "rows": np.array([[1.0, 0.5], [0.0, 1.0], [2.0, 2.0]])})
    one = read_layer_source(path, SourceOptions(layers="coef,", classes=["no", "yes"], features=["x", "y"])).model
    assert (one.head, one.classes, one.features) == ("sigmoid", ["no", "yes"], ["x", "y"])
    assert one.layers[0].weight.tolist() == [[1.0], [-2.0]]
    assert one.layers[0].bias.tolist() == [0.0]
    three = read_layer_source(path, SourceOptions(layers="rows,", classes=["a", "b", "c"])).model
    assert three.layers[0].weight.tolist() == [[1.0, 0.0, 2.0], [0.5, 1.0, 2.0]]


def test_an_embedding_is_a_vector(tmp_path: Path) -> None:
    """A row is one field with a list of numbers; its examples have the source's probabilities."""
    path = tmp_path / "head.safetensors"
    write_tensors(path, make_network([16, 3]))
    read = read_layer_source(path, SourceOptions(layers="w0,b0", vector="embedding", classes=["a", "b", "c"]))
    assert read.source is not None
    manifest = prove(read.model, read.source).artifact.manifest
    assert [(field.name, field.kind) for field in manifest.fields or ()] == [("embedding", "vector")]
    assert len(manifest.examples or ()) == 8


def test_half_precision_is_read(tmp_path: Path) -> None:
    """float16 in both files, and bfloat16, which NumPy does not have."""
    x = np.array([[1.5, -0.25, 3.0]])
    np.savez(tmp_path / "a.npz", w=x.astype(np.float16))
    safetensors.numpy.save_file({"w": x.astype(np.float16)}, tmp_path / "a.safetensors")
    raw = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = b'{"w":{"dtype":"BF16","shape":[1,3],"data_offsets":[0,6]}}'
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
    for name in ("a.npz", "a.safetensors", "b.safetensors"):
        model = read_layer_source(tmp_path / name, SourceOptions(layers="w,", weight_rows="outputs")).model
        assert model.layers[0].weight.tolist() == x.T.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name the tensors of each layer, as in --layers w1,b1:relu,w2,b2"),
        ("w", "--layers must have a weight and a bias for each layer, as in w1,b1:relu,w2,b2"),
        (",b", "layer 1 of --layers has no weight"),
        ("w,b:gelu", "the activation of layer 1 of --layers must be softmax, sigmoid or nothing"),
        ("w,b:softmax,w,b", "the activation of layer 1 of --layers must be relu, sigmoid or tanh"),
        ("w,b,w,b", "the activation of layer 1 of --layers must be relu, sigmoid or tanh"),
        (",".join(["w,b:relu"] * 200), "--layers has more than 128 layers"),
    ],
)
def test_lists_of_layers_are_checked(text: str, message: str) -> None:
    """Each part is named by its place."""
    with pytest.raises(ConversionError) as caught:
        parse_layers(text)
    assert str(caught.value) == message


def test_lists_of_layers_are_parsed() -> None:
    """Names may have dots, as PyTorch's do."""
    assert parse_layers("0.weight,0.bias:ReLU,2.weight,:softmax") == [
        NamedLayer("0.weight", "0.bias", "relu"),
        NamedLayer("2.weight", "", "softmax"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "the weights and biases of --layers do not fit each other"),
        ({"classes": ["a", "b"], "weight_rows": "inputs"}, "the model has 3 classes, and --classes names 2"),
        ({"features": ["a"], "weight_rows": "inputs"}, "the model takes 5 numbers, and --features names 1"),
        ({"head": "sigmoid"}, "a model of 3 outputs cannot have the head sigmoid"),
        ({"weight_rows": "outputs"}, "the bias of layer 1 has 3 numbers, and its weight 5"),
        ({"layers": "w0,b1"}, 'the source has no tensor "b1"; its tensors are "w0", "b0"'),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """The sentence has both numbers."""
    path = tmp_path / "a.npz"
    write_tensors(path, make_network([5, 3]))
    with pytest.raises(ConversionError) as caught:
        read_layer_source(path, SourceOptions(**{"layers": "w0,b0", **options}))
    assert str(caught.value) == message
