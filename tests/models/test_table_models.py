"""Shipped models that `softstep train` makes: made again, the best ones of their columns, and good."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from service.store.artifact.artifact import read_artifact
from service.train.class_labels import Classes, LabelReader
from service.train.held_out_rows import HeldOutRows
from service.train.open_table import open_table
from service.train.row_encoding import TableEncoder
from tests.support.paths import ROOT, SHIPPED
from tests.support.scripts import load_script
from tests.support.shipped_fields import shipped_fields

PENGUINS = ROOT / "docs" / "examples" / "penguins.csv"
FOLDER = SHIPPED / "penguins" / "1"
GRADIENT_MAX = 1e-5


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import the script, which is in no package."""
    return load_script("models/table_models.py")


@pytest.fixture(scope="module")
def runs(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Train penguins twice."""
    folders = [tmp_path_factory.mktemp("models") for _ in range(2)]
    for folder in folders:
        script.train_table("penguins", folder)
    return [folder / "penguins" / "1" for folder in folders]


def test_two_runs_write_the_same_files(runs: list[Path]) -> None:
    """Model, card and pictures; and they are the shipped files, by their names."""
    names = sorted(path.name for path in FOLDER.iterdir())
    for folder in runs:
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_the_script_makes_the_shipped_penguins(runs: list[Path]) -> None:
    made, shipped = read_artifact(runs[0], 1 << 20), shipped_fields("penguins")
    actual, expected = (artifact.manifest.model_dump() for artifact in (made, shipped))
    for manifest in (actual, expected):
        manifest.pop("tensors_sha256")
    for one, other in zip(actual.pop("examples"), expected.pop("examples"), strict=True):
        assert one["row"] == other["row"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-6)
    assert actual.pop("metrics") == pytest.approx(expected.pop("metrics"), abs=2e-5)
    assert actual == expected
    for tensor, values in made.tensors.items():
        np.testing.assert_allclose(values, shipped.tensors[tensor], rtol=1e-4, atol=1e-4)


def test_penguins_are_good() -> None:
    manifest = shipped_fields("penguins").manifest
    assert manifest.metrics["accuracy"] >= 0.98
    assert manifest.metrics["log_loss"] <= 0.01
    assert manifest.training is not None
    assert manifest.training.rows + manifest.metrics["held_out_rows"] == 344
    assert {"data_set", "licence", "wheel", "script", "file", "label", "C", "trainer"} <= manifest.provenance.keys()
    assert manifest.provenance["wheel"] == "palmerpenguins 0.1.6"


def test_penguins_are_the_best_of_their_columns() -> None:
    """The gradient of what is minimized is 0 at the shipped weights, over the rows that are trained on."""
    artifact = shipped_fields("penguins")
    encoder = artifact.row_encoder
    assert encoder is not None
    classes = Classes("softmax", artifact.manifest.classes, (0, 0, 0))
    reader, held_out = LabelReader("species", None), HeldOutRows("hash", 0)
    table = TableEncoder(encoder, reader, classes, None, held_out, is_dense=True).pack(
        open_table(PENGUINS), lambda _: None
    )
    X, y, weights = table.trained.read_block(0)
    assert table.held_out is not None
    assert (len(X), len(table.held_out.read_block(0).rows)) == (302, 42)
    assert (weights == 1).all()
    X, W, b = (np.asarray(array, np.float64) for array in (X, artifact.weights, artifact.bias))
    powers = np.exp(X @ W + b - (X @ W + b).max(axis=1, keepdims=True))
    error = powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[y]
    gradient = (X.T @ error + W / float(artifact.manifest.provenance["C"])) / len(y)
    assert np.abs(gradient).max() < GRADIENT_MAX
    assert np.abs(error.mean(axis=0)).max() < GRADIENT_MAX
    np.testing.assert_allclose(artifact.tensors["support"], (X**2).sum(axis=0), rtol=1e-6)
