"""Shipped models with fields that scikit-learn trains are trained on what the service's encoder gives."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from service.fields.column_blocks import FieldLimits
from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.model_factory import build_model
from tests.support.paths import SHIPPED
from tests.support.scripts import load_script
from tests.support.shipped_fields import (
    FIELD_BYTES_MAX,
    exact_probabilities,
    held_out_rows,
    prepared,
    shipped_fields,
)

# Columns, classes, the least accuracy and the largest log loss of the held-out rows.
EXPECTED = {"languages": (1 << 18, 13, 0.885, 0.34)}
# A step of this size would change no probability of the held-out rows by 1e-3.
GRADIENT_MAX = 1e-4
EVERY = pytest.mark.parametrize("name", EXPECTED)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import the script, which is in no package."""
    return load_script("models/field_models.py")


def served(artifact: Artifact, rows: list[dict[str, Any]]) -> Doubles:
    """Return the probabilities of rows as the service computes them."""
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, np.dtype(np.float32))
    P = build_model(artifact).predict(encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns))
    return np.asarray(P, np.float64)


@EVERY
def test_a_shipped_model_is_the_best_one_of_its_columns(script: ModuleType, name: str) -> None:
    """The gradient of what LogisticRegression minimizes is 0 at the shipped weights, in the bias too.

    The loss is strictly convex, so no other weights have this property. Training languages again would take too long.
    """
    artifact, data = shipped_fields(name), prepared(name)
    X, y = data.X[data.train], data.data.y[data.train]
    weights, C = artifact.weights.astype(np.float64), script.CHOSEN[name]
    assert artifact.manifest.provenance["C"] == f"{C:g}"
    error = exact_probabilities(artifact, X) - np.eye(len(data.data.classes))[y]
    gradient = (X.T @ error + weights / C) / len(y)
    assert np.abs(gradient).max() < GRADIENT_MAX
    assert np.abs(error.mean(axis=0)).max() < GRADIENT_MAX
    absent = np.setdiff1d(np.arange(len(weights)), data.occurring)
    assert not weights[absent].any()


@EVERY
def test_a_shipped_model_is_that_of_its_data(name: str) -> None:
    """Sizes, classes, fields, support, metrics and examples follow from the data and the weights."""
    artifact, data = shipped_fields(name), prepared(name)
    manifest, (columns, classes, accuracy, loss) = artifact.manifest, EXPECTED[name]
    assert (artifact.n_features, len(manifest.classes), manifest.head) == (columns, classes, "softmax")
    assert manifest.classes == data.data.classes
    assert [field.model_dump(mode="json", exclude_unset=True) for field in manifest.fields or ()] == data.fields
    assert manifest.training is not None
    assert manifest.training.rows == len(data.train)
    assert artifact.tensors["support"].tobytes() == data.support.tobytes()
    P, y = exact_probabilities(artifact, data.X[data.test]), data.data.y[data.test]
    metrics = manifest.metrics
    assert metrics["held_out_rows"] == len(y)
    assert metrics["accuracy"] == pytest.approx((P.argmax(axis=1) == y).mean(), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(-np.log(P[np.arange(len(y)), y]).mean(), abs=2e-5)
    assert metrics["accuracy"] >= accuracy
    assert metrics["log_loss"] <= loss
    rows = held_out_rows(name)
    assert np.abs(served(artifact, rows) - P).max() < 1e-5
    for example in manifest.examples or ():
        assert P[rows.index(example.row)] == pytest.approx(example.probabilities, abs=1e-5)  # type: ignore[arg-type]


@EVERY
def test_provenance_names_every_source(name: str) -> None:
    """The provenance names data set, license, wheel with version, file, split and script."""
    provenance = shipped_fields(name).manifest.provenance
    assert set(provenance) == {"data_set", "licence", "wheel", "file", "split", "trainer", "C", "script"}
    assert provenance["wheel"] == {"languages": "emoji 2.16.0"}[name]


@pytest.mark.parametrize(("name", "count"), [("penguins", 8), ("languages", 6)])
def test_a_load_computes_the_examples(name: str, count: int) -> None:
    """A load reads the artifact with its examples; those of penguins have gaps."""
    examples = load_artifact(SHIPPED / name / "1", FIELD_BYTES_MAX, FieldLimits()).manifest.examples or ()
    assert len(examples) == count
    assert any(None in dict(example.row).values() for example in examples) == (name == "penguins")
