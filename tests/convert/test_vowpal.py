"""Readable models of Vowpal Wabbit: the same probabilities as Vowpal Wabbit's own, and what is refused."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.convert.converted_model import ConvertedModel, DenseLayer, Doubles, Head, Row
from service.convert.head_probabilities import to_probabilities
from service.convert.proof import prove, prove_expected
from service.convert.vowpal.vowpal_fields import VowpalModel, hash_namespace
from service.convert.vowpal.vowpal_source import VowpalSource
from service.errors import ConversionError
from service.store.artifact.model_factory import build_model
from tests.clients.environments import VOWPAL, is_available
from tests.support.paths import ROOT
from tests.support.reference import probabilities

GOLDEN = ROOT / "tests" / "golden" / "vowpal"
MODELS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "rows.json").read_text())
LABELS = {
    "oaa3": ("1", "2", "3"),
    "oaa10": tuple("0123456789"),
    "named": ("ant", "bee", "cat", "dog"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("names", [False, True])
def test_probabilities_are_those_of_vowpal_wabbit(name: str, *, names: bool) -> None:
    """Bags, crosses, one weight table for all of them, several classes, and the gravity of --l1."""
    golden = MODELS[name]
    path = GOLDEN / (f"{name}.names.txt" if names else f"{name}.txt")
    model = VowpalModel(path, () if names else golden["namespaces"])
    converted = model.convert()
    assert set(model.fields) == set(golden["namespaces"])
    assert converted.classes == LABELS.get(name, ("-1", "1"))
    assert converted.head == ("ovr" if name in LABELS else "sigmoid")
    P = np.array(golden["probabilities"])
    assert np.ptp(P[:, 0]) > 0.05
    proof = prove_expected(converted, golden["rows"], P)
    assert proof.difference < 5e-6  # the file has six digits of each weight
    assert proof.artifact.manifest.provenance["source"] == "Vowpal Wabbit 9.11.9"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("l1", b"l1_state ", b"other_state "),
        ("crosses", b"--quadratic ui", b""),
        ("crosses", b"options:", b"options: --noconstant"),
        ("oaa3", b"--oaa 3", b"--oaa 3 --noconstant"),
    ],
)
def test_each_part_of_a_file_counts(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    """Without gravity, a cross or the constant, the golden rows are off."""
    golden, path = MODELS[name], tmp_path / "model.txt"
    content = (GOLDEN / f"{name}.txt").read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    converted = VowpalModel(path, golden["namespaces"]).convert()
    with pytest.raises(ConversionError, match="differs from the source"):
        prove_expected(converted, golden["rows"], np.array(golden["probabilities"]))


def test_namespaces_and_classes_have_the_names_that_are_given() -> None:
    """The default namespace is the field "features"; a readable model has no namespaces, so they are named."""
    model = VowpalModel(GOLDEN / "oaa3.txt", ["item", "", "user"], ["low", "middle", "high"])
    assert model.fields == {"item": "item", "": "features", "user": "user"}
    converted = model.convert()
    assert converted.classes == ("low", "middle", "high")
    assert [field["name"] for field in converted.fields or ()] == ["item", "features", "user", "user*item"]
    assert hash_namespace("subject") == 3_170_325_535
    assert hash_namespace("") == 0
    with pytest.raises(ConversionError, match=r"^the model has 3 classes$"):
        VowpalModel(GOLDEN / "oaa3.txt", [], ["a", "b"])
    with pytest.raises(ConversionError, match=r'^no namespace begins with "u", which an interaction'):
        VowpalModel(GOLDEN / "oaa3.txt", ["item"]).convert()
    for names in (["a", "a"], ["", "features"], ["a b"], ["a|b"], ["x" * 257]):
        with pytest.raises(ConversionError, match="namespace"):
            VowpalModel(GOLDEN / "binary.txt", names)


def test_generated_rows_reach_the_weights() -> None:
    """Hashes of random names would miss a table of a million weights, so rows have names that it has weights for."""
    for path in (GOLDEN / "oaa3.txt", GOLDEN / "oaa3.names.txt"):
        converted = VowpalModel(path, ["user", "item", ""]).convert()
        without = [DenseLayer(layer.weight * 1.01, layer.bias, "identity") for layer in converted.layers]
        with pytest.raises(ConversionError, match="differs from the source"):
            prove(converted, ModelSource(replace(converted, layers=without)))


class ModelSource:
    """A source that computes with the weights of a converted model."""

    def __init__(self, model: ConvertedModel) -> None:
        self._artifact = model.to_artifact("float32")

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C)."""
        encoder = self._artifact.row_encoder
        assert encoder is not None
        X = encoder.to_model_rows(encoder.encode_objects(rows).rows, np.dtype(np.float32))
        return np.asarray(build_model(self._artifact).predict(X), np.float64)


@pytest.mark.skipif(not is_available(VOWPAL), reason="Vowpal Wabbit has no wheel for this processor")
@pytest.mark.parametrize("name", ["crosses", "l1", "oaa10"])
def test_vowpal_wabbit_is_asked(name: str) -> None:
    """It gets the weights of the file, and hashes generated names by itself."""
    model = VowpalModel(GOLDEN / f"{name}.txt", MODELS[name]["namespaces"])
    proof = prove(model.convert(), VowpalSource(model, str(VOWPAL.ensure())))
    assert proof.rows == 200
    assert proof.difference < 1e-5


def test_a_source_that_cannot_be_asked_says_what_to_do() -> None:
    """The package is not here, the interpreter is not there, or a name cannot be in a line."""
    model = VowpalModel(GOLDEN / "binary.txt")
    with pytest.raises(ConversionError, match="--expected"):
        VowpalSource(model, "/nowhere/python").predict_rows([{}])
    with pytest.raises(ConversionError, match=r"^Vowpal Wabbit is not installed here; .* --expected$"):
        VowpalSource(model, sys.executable).predict_rows([{}])
    for bag in ({"a b": 1}, ["a:b"], {"": 1}, {"a|b": 2}):
        with pytest.raises(ConversionError, match="white space"):
            VowpalSource(model).predict_rows([{"features": bag}])


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "multilabel", "ovr"])
def test_scores_become_probabilities(head: Head) -> None:
    """Also where every logit is far below the range of a float."""
    Z = np.random.default_rng(0).normal(0, 30, (50, 1 if head == "sigmoid" else 3)) - np.arange(50)[:, None] * 20
    assert np.abs(to_probabilities(Z, head) - probabilities(head, Z)).max() < 1e-12


HEADER = "Version 9.11.9\nId \nMin label:-50\nMax label:50\nbits:10\nlda:0\n0 ngram:\n0 skip:\noptions:%s\n:0\n"
WRONG_OPTIONS = {
    "--hash all": "the model uses --hash all, which hashes names of digits as texts, and Softstep does not",
    "--hash_seed 3": "the model uses --hash_seed, which changes all hashes, and Softstep does not",
    "--ignore i": "the model uses --ignore, and Softstep does not",
    "--link poisson": "the model uses a --link that is not logistic, and Softstep does not",
    "--loss_function=squared": "the model uses a --loss_function that is not logistic, and Softstep does not",
    "--lrq ui7": "the model uses --lrq, and Softstep does not",
    "--coin": "the model uses --coin, and Softstep does not",
    "--quadratic u:": "--quadratic of the model must have letters or digits, and no wildcard",
    "--quadratic uu": "--quadratic of the model crosses a namespace with itself, and Softstep does not",
    "--cubic ui": "--cubic of the model must have 3 letters",
    "--interactions uixy": "--interactions of the model must have 2 or 3 letters",
    "--quadratic ui --interactions iu": "the model has two interactions of the same namespaces",
    "--oaa 1": "--oaa of the model must have from 2 to 65536 classes",
    "--oaa 99999999999999": "--oaa of the model must have from 2 to 65536 classes",
    "--oaa -3": "--oaa of the model must have from 2 to 65536 classes",
    "--oaa 2 --named_labels a,a": "the model must have one name of its own for each class of --oaa",
    "--oaa 2 --named_labels a,b,c": "the model must have one name of its own for each class of --oaa",
    "--oaa 2 --indexing 7": "--indexing of the model must be 0 or 1",
    "--oaa 60000": "the table of the model is smaller than the number of its classes",
    "ui": "the options of the model must begin with --",
}


@pytest.mark.parametrize("options", WRONG_OPTIONS)
def test_options_that_change_the_meaning_are_refused_by_name(tmp_path: Path, options: str) -> None:
    """Options of training are fine."""
    path = tmp_path / "model.txt"
    path.write_text(HEADER % f" --ftrl --power_t 0.5 --link logistic {options}" if options != "ui" else HEADER % " ui")
    with pytest.raises(ConversionError) as caught:
        VowpalModel(path, ["user", "item", "x"]).convert()
    assert str(caught.value) == WRONG_OPTIONS[options]


def test_a_table_that_is_too_large_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """Eight namespaces of 22 bits have more columns than a model may have."""
    path = tmp_path / "model.txt"
    path.write_text((HEADER % "").replace("bits:10", "bits:22"))
    with pytest.raises(ConversionError, match=r"^8 namespaces and crosses of 22 bits have more columns than a model"):
        VowpalModel(path, list("abcdefgh")).convert()
