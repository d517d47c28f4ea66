"""Models with fields are trained on what the service's encoder gives, and answer as scikit-learn does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.fields.column_blocks import FieldLimits
from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.model_factory import build_model
from tests.support.scripts import load_script


@pytest.fixture(scope="module")
def penguins() -> Any:
    """Train the model penguins."""
    return load_script("models/field_models.py").fit_fields("penguins")


def served(artifact: Artifact, rows: list[dict[str, Any]]) -> Doubles:
    """Return the probabilities of rows as the service computes them."""
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, np.dtype(np.float32))
    P = build_model(artifact).predict(encoded.to_matrix(encoder.n_columns))
    return np.asarray(P, np.float64)


def test_the_service_answers_as_scikit_learn(penguins: Any) -> None:
    """Held-out rows, gaps among them, get the probabilities of the classifier over the encoder's columns."""
    encoder = penguins.artifact.row_encoder
    X = encoder.encode_objects(penguins.rows).rows.to_matrix(encoder.n_columns)
    expected = penguins.classifier.predict_proba(X[:, penguins.occurring])
    assert any(None in row.values() for row in penguins.rows)
    assert np.abs(served(penguins.artifact, penguins.rows) - expected).max() < 1e-5
    assert (expected.argmax(axis=1) == penguins.y).mean() > 0.95


def test_the_support_is_the_sum_of_squares(penguins: Any) -> None:
    """Scaled numbers have a support of about the number of rows, and a category as many as it occurs."""
    support = penguins.artifact.tensors["support"]
    columns = dict(zip(penguins.artifact.column_names, support, strict=True))
    rows = penguins.artifact.manifest.training.rows
    assert columns["bill_length_mm"] == pytest.approx(rows, abs=4)
    assert columns["island=Biscoe"] + columns["island=Dream"] + columns["island=Torgersen"] == rows
    assert columns["island=other"] == 0


def test_a_load_computes_the_examples(penguins: Any, tmp_path: Path) -> None:
    """The artifact is read again with its examples, of which one has gaps."""
    write_artifact(tmp_path / "1", penguins.artifact)
    manifest = load_artifact(tmp_path / "1", 1 << 20, FieldLimits()).manifest
    assert any(None in example.row.values() for example in manifest.examples or () if isinstance(example.row, dict))
