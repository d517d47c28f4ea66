"""The proof of a conversion: which differences are refused, which dtype is chosen, and what the artifact keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.convert.converted_model import ConvertedModel, DenseLayer, Doubles, Row
from service.convert.proof import GENERATED_ROWS, prove, prove_expected
from service.errors import ConversionError
from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import RowEncoder
from service.store.artifact.artifact import write_artifact
from service.store.artifact.artifact_loader import load_artifact
from tests.support.field_artifacts import DENSE_COLUMNS, DENSE_FIELDS, SPARSE_COLUMNS, SPARSE_FIELDS, field_tensors
from tests.support.field_lists import parse_fields
from tests.support.reference import probabilities

CLASSES = ["a", "b", "c"]


class FieldSource:
    """A source that computes in float64 what a model with fields should; the part `even` of each answer is 1/3."""

    def __init__(self, model: ConvertedModel) -> None:
        self._encoder = RowEncoder(parse_fields(*model.fields or ()), model.field_tensors, FieldLimits())
        self._layer = model.layers[0]
        self.even = 0.0
        self.asked: list[Row] = []

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C)."""
        self.asked.extend(rows)
        X = self._encoder.encode_objects(rows).rows.to_matrix(self._encoder.n_columns)
        P = probabilities("softmax", X @ self._layer.weight + self._layer.bias).astype(np.float64)
        return self.even / 3 + (1 - self.even) * P


class NumberSource:
    """A source of plain numbers."""

    def __init__(self, model: ConvertedModel) -> None:
        self._names, self._layer = list(model.features or ()), model.layers[0]

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C)."""
        X = np.array([[row[name] for name in self._names] for row in rows], np.float64)
        return probabilities("softmax", X @ self._layer.weight + self._layer.bias)


def field_model(*, sparse: bool) -> ConvertedModel:
    """Return a model with one field of each kind."""
    rng = np.random.default_rng(0)
    fields, columns = (SPARSE_FIELDS, SPARSE_COLUMNS) if sparse else (DENSE_FIELDS, DENSE_COLUMNS)
    layer = DenseLayer(rng.standard_normal((columns, 3)), rng.standard_normal(3), "identity")
    return ConvertedModel(
        "softmax", CLASSES, [layer], fields, field_tensors=field_tensors(), provenance={"source": "a test"}
    )


def number_model(mean: list[float], scale: list[float]) -> ConvertedModel:
    """Return a model of numbers whose logits are of a usual size around the mean."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((len(mean), 3)) / np.array(scale)[:, None]
    layer = DenseLayer(weight, -np.array(mean) @ weight, "identity")
    training = {"rows": 10, "mean": mean, "scale": scale}
    return ConvertedModel("softmax", CLASSES, [layer], features=["x", "y"], training=training)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_artifact_keeps_the_proof(tmp_path: Path, *, sparse: bool) -> None:
    """Eight rows with the probabilities of the source, the largest difference, and where the model is from."""
    model = field_model(sparse=sparse)
    source = FieldSource(model)
    source.even = 6e-5  # small enough to pass, and larger than any rounding
    proof = prove(model, source, [{"age": 41}, {}])
    assert proof.rows == len(source.asked) == GENERATED_ROWS + 2
    assert 3e-5 < proof.difference < 5e-5
    manifest = proof.artifact.manifest
    assert manifest.provenance == {
        "source": "a test",
        "largest_difference": f"{proof.difference:.2g}",
        "rows_compared": "202",
    }
    examples = manifest.examples
    assert examples is not None
    assert [example.row for example in examples] == source.asked[:8]
    expected = source.predict_rows(source.asked[:8])
    assert np.array_equal([example.probabilities for example in examples], expected)
    write_artifact(tmp_path / "1", proof.artifact)
    assert load_artifact(tmp_path / "1", 1 << 20, FieldLimits()).content_sha256 == proof.artifact.content_sha256


def test_a_difference_is_refused() -> None:
    """The sentence names the class and the row; no artifact comes out."""
    model = field_model(sparse=True)
    source = FieldSource(model)
    source.even = 3e-4
    with pytest.raises(ConversionError, match=r'^the probability of the class "[abc]" of generated row [0-9]+ differs'):
        prove(model, source)
    rows: list[Row] = [{}, {"age": 4}]
    P = FieldSource(model).predict_rows(rows)
    P[1, 1] += 2e-4 if P[1, 1] < 0.5 else -2e-4
    with pytest.raises(ConversionError) as caught:
        prove_expected(model, rows, P)
    sentence = (
        'the probability of the class "b" of row 1 differs from the source by 0.0002, and at most 0.0001 is allowed'
    )
    assert str(caught.value) == f"{sentence}; nothing was written"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-3, 1.001])
def test_answers_that_are_no_probabilities_are_refused(wrong: float) -> None:
    """NaN compares as no difference at all, so it is looked for."""
    model = field_model(sparse=False)
    P = FieldSource(model).predict_rows([{}, {}])
    P[1, 2] = wrong
    with pytest.raises(ConversionError, match=r"^the source has no probability from 0 to 1 for row 1$"):
        prove_expected(model, [{}, {}], P)


def test_float64_is_chosen_where_float32_is_off() -> None:
    """A time of day in seconds since 1970 has more digits than float32."""
    near, far = number_model([5.0, -3.0], [2.0, 1.0]), number_model([1.7e9, 0.0], [1e5, 1.0])
    assert prove(near, NumberSource(near)).artifact.manifest.dtype == "float32"
    proof = prove(far, NumberSource(far))
    assert proof.artifact.manifest.dtype == "float64"
    assert proof.difference < 1e-9
    assert proof.artifact.manifest.examples is None


def test_expected_probabilities_prove_as_well() -> None:
    """Rows and probabilities of a file take the place of a source that cannot be asked; the provenance says so."""
    model = field_model(sparse=False)
    rows: list[Row] = [{"age": 41, "country": "PT"}, {"subject": "a late refund"}]
    P = FieldSource(model).predict_rows(rows)
    proof = prove_expected(model, rows, P)
    assert proof.artifact.manifest.provenance["compared_with"] == "expected probabilities"
    assert proof.artifact.manifest.provenance["rows_compared"] == "2"
    assert [example.row for example in proof.artifact.manifest.examples or ()] == rows
    with pytest.raises(ConversionError, match=r"^the source must answer 2 rows with 3 probabilities each$"):
        prove_expected(model, rows, P[:, :2])
    with pytest.raises(
        ConversionError, match=r'^a row is no row of the model: Row 1: "age" must be a number or null\.$'
    ):
        prove_expected(model, [rows[0], {"age": "old"}], P)
    with pytest.raises(ConversionError, match=r"^no row was compared; give rows in a file$"):
        prove_expected(model, [], P[:0])


def test_each_model_of_a_proof_is_compared_in_its_own_dtype() -> None:
    """Weights that float32 cannot represent are off by their rounding, and the proof sees it."""
    model = field_model(sparse=True)
    scaled = replace(model, layers=[replace(model.layers[0], weight=model.layers[0].weight * (1 + 1e-3))])
    with pytest.raises(ConversionError, match="differs from the source"):
        prove(scaled, FieldSource(model))
