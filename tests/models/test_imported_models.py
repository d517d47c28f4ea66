"""The shipped models that are imported: converted again, equal to their sources, and good."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.convert.vowpal.vowpal_fields import VowpalModel
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.artifact_loader import load_artifact
from tests.clients.environments import VOWPAL, is_available
from tests.support.imported_models import BYTES_MAX, IMPORTED_NAMES, imported, imported_data, script
from tests.support.paths import SHIPPED

# The head, the kinds of the fields, the least accuracy and the largest log loss of the held-out rows.
EXPECTED = {
    "wine": ("softmax", [], 0.97, 0.03),
    "characters": ("softmax", ["text", "category", "category"], 0.99, 0.03),
    "flares": ("sigmoid", ["bag", "bag", "cross"], 0.82, 0.42),
}
EVERY = pytest.mark.parametrize("name", IMPORTED_NAMES)
FILES = pytest.mark.parametrize("name", ["wine", "flares"])


def check_equal(made: Artifact, shipped: Artifact, tolerance: float) -> None:
    """Compare everything but what the proof, the metrics and the origin of the data add."""
    actual, expected = (artifact.manifest.model_dump() for artifact in (made, shipped))
    for manifest in (actual, expected):
        for member in ("examples", "provenance", "metrics", "tensors_sha256"):
            manifest.pop(member)
    numbers, others = (statistics(manifest) for manifest in (actual, expected))
    assert numbers == [pytest.approx(one, rel=1e-12) for one in others]
    assert actual == expected
    assert made.tensors.keys() == shipped.tensors.keys()
    for name, values in made.tensors.items():
        np.testing.assert_allclose(values, shipped.tensors[name], rtol=tolerance, atol=tolerance)


def statistics(manifest: dict[str, Any]) -> list[Any]:
    """Take the means and scales out of a manifest; their last bits may differ between processors."""
    records = [manifest[name] for name in ("stage", "training") if manifest[name] is not None]
    return [record.pop(name) for record in records for name in ("mean", "scale") if record[name] is not None]


@FILES
def test_the_file_makes_the_shipped_model(name: str) -> None:
    """Read again, it has the same weights; a processor may change their last bits."""
    shipped = imported(name)
    converted = script().convert_file(name, imported_data(name)).model
    check_equal(converted.to_artifact(shipped.manifest.dtype), shipped, 1e-6)


@pytest.mark.skipif(not is_available(VOWPAL), reason="Vowpal Wabbit has wheels for x86-64 only")
def test_vowpal_wabbit_makes_the_file_of_flares(tmp_path: Path) -> None:
    """Trained again, the file has the same weights."""
    path, data = tmp_path / "flares.txt", imported_data("flares")
    script().train_flares(data, path)
    made = VowpalModel(path, classes=data.classes).convert().layers[0]
    np.testing.assert_allclose(made.weight[:, 0], imported("flares").weights[:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(made.bias, imported("flares").bias, rtol=1e-3, atol=1e-4)


def test_the_pipeline_makes_the_shipped_characters() -> None:
    """Fitted and converted again, it has the same terms, and weights to the tolerance of its solver."""
    shipped = imported("characters")
    check_equal(script().prove_characters(imported_data("characters")), shipped, 1e-3)


@EVERY
def test_a_shipped_model_is_that_of_its_data(name: str) -> None:
    """Classes, names, metrics and the statistics of training follow from the data and the weights."""
    artifact, data = imported(name), imported_data(name)
    manifest, (head, kinds, accuracy, loss) = artifact.manifest, EXPECTED[name]
    assert (manifest.head, manifest.classes) == (head, data.classes)
    assert [field.kind for field in manifest.fields or ()] == kinds
    assert manifest.training is not None
    assert manifest.training.rows == len(data.trained_rows)
    assert manifest.training.rows + manifest.metrics["held_out_rows"] == len(data.rows)
    P, y = script().predict(artifact, data.held_out_rows), data.held_out_y
    assert manifest.metrics["accuracy"] == pytest.approx((P.argmax(axis=1) == y).mean(), abs=1e-6)
    assert manifest.metrics["log_loss"] == pytest.approx(-np.log(P[np.arange(len(y)), y]).mean(), abs=2e-5)
    assert manifest.metrics["accuracy"] >= accuracy
    assert manifest.metrics["log_loss"] <= loss
    if manifest.fields is None:
        X = np.array([list(row.values()) for row in data.trained_rows])
        np.testing.assert_allclose(manifest.training.mean or (), X.mean(axis=0))
        np.testing.assert_allclose(manifest.training.scale or (), X.std(axis=0))
    else:
        encoder = artifact.row_encoder
        assert encoder is not None
        X = encoder.encode_objects(data.trained_rows[:200]).rows.to_matrix(encoder.n_columns)
        support = artifact.tensors["support"]
        assert (support + 1e-3 >= (X**2).sum(axis=0)).all()
        assert support.sum() == pytest.approx(total_squares(artifact, data), rel=1e-5)


def total_squares(artifact: Artifact, data: Any) -> float:
    """Return the sum of the squares of all entries of the training rows."""
    encoder = artifact.row_encoder
    assert encoder is not None
    return sum(float((encoder.encode_objects([row]).rows.values ** 2).sum()) for row in data.trained_rows)


@EVERY
def test_a_load_computes_the_examples(name: str) -> None:
    """Each load compares the rows of the manifest with the probabilities that the source gave them."""
    examples = load_artifact(SHIPPED / name / "1").manifest.examples or ()
    assert len(examples) == (0 if name == "wine" else 8)


@EVERY
def test_the_proof_and_the_origin_are_kept(name: str) -> None:
    """The provenance has the source, the largest difference and the origin of the data, and the card shows them."""
    artifact = read_artifact(SHIPPED / name / "1", BYTES_MAX)
    provenance = artifact.manifest.provenance
    assert float(provenance["largest_difference"]) < 1e-5
    assert int(provenance["rows_compared"]) >= 200
    assert {"data_set", "licence", "wheel", "file", "split", "script"} <= provenance.keys()
    card = (SHIPPED / name / "1" / "card.md").read_text()
    for text in (provenance["source"], provenance["data_set"], f"`{artifact.weights_sha256}`"):
        assert text in card
    assert f"| accuracy | {artifact.manifest.metrics['accuracy']:.6g} |" in card.splitlines()
