"""The shipped models without fields: reproducible, equal to scikit-learn, and good."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.repository import Repository
from tests.support.imported_models import IMPORTED_NAMES
from tests.support.shipped_fields import FIELD_BYTES_MAX, FIELD_NAMES

MODELS = Path(__file__).parent.parent.parent / "models"

# name: (head, N, K), the floor of the accuracy (yeast: of micro-averaged F1), the ceiling of the log loss
EXPECTED: dict[str, tuple[tuple[str, int, int], float, float]] = {
    "iris": (("softmax", 4, 3), 0.97, 0.05),
    "breast-cancer": (("sigmoid", 30, 1), 0.95, 0.09),
    "digits": (("softmax", 64, 10), 0.96, 0.13),
    "digits-mlp": (("softmax", 64, 10), 0.97, 0.075),
    "phishing": (("sigmoid", 9, 1), 0.89, 0.29),
    "segment": (("softmax", 18, 7), 0.96, 0.13),
    "yeast": (("multilabel", 103, 14), 0.64, 6.3),
}


def probabilities(artifact: Artifact, X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of rows, from float32 logits as the service has them, with a float64 head."""
    A, manifest = X.astype(np.float32), artifact.manifest
    if manifest.stage is not None:
        mean, scale = np.array([manifest.stage.mean, manifest.stage.scale], np.float32)
        A = np.clip((A - mean) / scale, -np.float32(manifest.stage.clip), np.float32(manifest.stage.clip))
    for layer in manifest.hidden:
        assert layer.activation == "sigmoid"
        A = 1 / (1 + np.exp(-(A @ artifact.tensors[layer.weight] + artifact.tensors[layer.bias])))
    logits = (A @ artifact.weights + artifact.bias).astype(np.float64)
    if manifest.head == "multilabel":
        return 1 / (1 + np.exp(-logits))
    if manifest.head == "sigmoid":
        logits = np.hstack([np.zeros_like(logits), logits])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_all_shipped_models_are_ready() -> None:
    """The repository serves them all, and nothing else is in their directory."""
    view = Repository(MODELS, FIELD_BYTES_MAX, 256).scan()
    assert set(view.versions) == {(name, 1) for name in (*EXPECTED, *FIELD_NAMES, *IMPORTED_NAMES)}
    assert {(version.state, version.reason) for version in view.versions.values()} == {("READY", None)}


def test_a_model_has_its_head_and_sizes(name: str, shipped: Artifact) -> None:
    """Head, number of features and number of logits are those of the data set."""
    manifest = shipped.manifest
    assert (manifest.head, shipped.n_features, manifest.n_outputs) == EXPECTED[name][0]
    assert manifest.dtype == "float32"


def test_classes_are_in_the_order_of_the_data(train: ModuleType, name: str, shipped: Artifact) -> None:
    """Names of classes and features are those of the data set, in its order."""
    data = train.load(name)
    assert (shipped.manifest.classes, shipped.manifest.features) == (data.classes, data.features)
    assert {
        "iris": ("setosa", "versicolor", "virginica"),
        "breast-cancer": ("malignant", "benign"),
        "digits": tuple("0123456789"),
        "phishing": ("legitimate", "phishing"),
    }.get(name, data.classes) == data.classes


def test_a_model_predicts_what_scikit_learn_predicts(shipped: Artifact, trained: Any) -> None:
    """Folding and rounding the weights changes no held-out probability by more than 1e-5."""
    expected = trained.pipeline.predict_proba(trained.X_test)
    np.testing.assert_allclose(probabilities(shipped, trained.X_test), expected, rtol=0, atol=1e-5)


def test_the_script_makes_the_shipped_model(shipped: Artifact, trained: Any) -> None:
    """The script makes the shipped manifest and weights; another processor may change the last digits."""
    actual, expected = (artifact.manifest.model_dump() for artifact in (trained.artifact, shipped))
    for manifest in (actual, expected):
        manifest.pop("tensors_sha256")
    assert actual.pop("metrics") == pytest.approx(expected.pop("metrics"), abs=2e-5)
    for field in ("mean", "scale"):
        assert actual["training"].pop(field) == pytest.approx(expected["training"].pop(field), rel=1e-12)
    assert actual == expected
    for tensor, values in trained.artifact.tensors.items():
        np.testing.assert_allclose(values, shipped.tensors[tensor], rtol=1e-4, atol=1e-5)


def test_held_out_metrics_are_those_of_the_served_weights(name: str, shipped: Artifact, trained: Any) -> None:
    """The manifest's metrics are those of the served weights, computed here without scikit-learn."""
    metrics, y, P = shipped.manifest.metrics, trained.y_test, probabilities(shipped, trained.X_test)
    assert metrics["held_out_rows"] == len(y)
    if name == "yeast":
        assert shipped.manifest.thresholds is not None
        chosen = np.array(shipped.manifest.thresholds) <= P
        loss = -(y * np.log(P) + (1 - y) * np.log(1 - P)).sum(axis=1).mean()
        assert metrics["hamming_loss"] == pytest.approx((chosen != y).mean(), abs=1e-3)
        assert metrics["subset_accuracy"] == pytest.approx((chosen == y).all(axis=1).mean(), abs=2e-3)
        assert metrics["micro_f1"] == pytest.approx(2 * (chosen & (y == 1)).sum() / (chosen.sum() + y.sum()), abs=1e-3)
    else:
        loss = -np.log(P[np.arange(len(y)), y]).mean()
        assert metrics["accuracy"] == pytest.approx((P.argmax(axis=1) == y).mean(), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(loss, abs=1e-5)


def test_held_out_metrics_are_good(name: str, shipped: Artifact) -> None:
    """The held-out metrics stay above their floor, so that a worse training fails the test."""
    _, floor, ceiling = EXPECTED[name]
    metrics = shipped.manifest.metrics
    assert metrics["micro_f1" if name == "yeast" else "accuracy"] >= floor
    assert metrics["log_loss"] <= ceiling


def test_training_statistics_are_those_of_the_training_rows(train: ModuleType, name: str, shipped: Artifact) -> None:
    """Training rows and held-out rows add up to the data set, so no held-out row took part in training."""
    training = shipped.manifest.training
    assert training is not None
    assert training.rows + shipped.manifest.metrics["held_out_rows"] == len(train.load(name).y)


def test_held_out_rows_are_stratified(train: ModuleType, name: str, trained: Any) -> None:
    """Each class is as frequent among the held-out rows as in all rows, within three in a hundred."""
    y, y_test = train.load(name).y, trained.y_test
    if y.ndim == 1:
        y, y_test = (np.eye(y.max() + 1)[labels] for labels in (y, y_test))
    assert np.abs(y.mean(axis=0) - y_test.mean(axis=0)).max() < 0.03


def test_provenance_names_every_source(shipped: Artifact) -> None:
    """The provenance names data set, license, wheel with version, file, split and script."""
    provenance = shipped.manifest.provenance
    assert set(provenance) == {"data_set", "licence", "wheel", "file", "split", "trainer", "C", "script"}
    assert re.fullmatch(r"(scikit-learn|river) \d+\.\d+\.\d+", provenance["wheel"])


def test_running_the_script_picks_and_writes_the_shipped_models(train: ModuleType, tmp_path: Path) -> None:
    """Cross-validation picks the same strength again, and two runs write the same bytes."""
    for out in ("one", "two"):
        train.main(["--out", str(tmp_path / out), "iris", "phishing"])
    for name in ("iris", "phishing"):
        actual, expected = (read_artifact(root / name / "1", 1 << 20) for root in (tmp_path / "one", MODELS))
        assert actual.manifest.provenance == expected.manifest.provenance
        np.testing.assert_allclose(actual.weights, expected.weights, rtol=1e-4, atol=1e-5)
        for file in ("model.json", "model.safetensors"):
            written = [(tmp_path / out / name / "1" / file).read_bytes() for out in ("one", "two")]
            assert written[0] == written[1]


def test_the_network_is_better_than_the_linear_model(fit_again: Callable[[str, float], Any]) -> None:
    """On the same held-out rows the network has a higher accuracy and a lower loss than the linear model."""
    linear, network = (read_artifact(MODELS / name / "1", 1 << 20).manifest for name in ("digits", "digits-mlp"))
    held_out = [
        fit_again(name, float(manifest.provenance["C"])).X_test
        for name, manifest in (("digits", linear), ("digits-mlp", network))
    ]
    assert np.array_equal(*held_out)
    assert network.metrics["held_out_rows"] == linear.metrics["held_out_rows"]
    assert network.metrics["accuracy"] > linear.metrics["accuracy"]
    assert network.metrics["log_loss"] < linear.metrics["log_loss"]


def test_the_network_is_trained_to_the_bit(fit_again: Callable[[str, float], Any]) -> None:
    """Training digits-mlp again gives the shipped weights to the bit: it is all kernels or element by element."""
    shipped = read_artifact(MODELS / "digits-mlp" / "1", 1 << 20)
    again = fit_again("digits-mlp", float(shipped.manifest.provenance["C"])).artifact
    assert again.weights_sha256 == shipped.weights_sha256
    assert (again.manifest.stage, again.manifest.training) == (shipped.manifest.stage, shipped.manifest.training)


def test_the_script_rejects_unknown_names(train: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown model name exits with a message that lists the models."""
    with pytest.raises(SystemExit):
        train.main(["unknown"])
    assert (
        "the models are iris, breast-cancer, digits, digits-mlp, phishing, segment, yeast, penguins, languages, "
        "wine, characters, flares" in capsys.readouterr().err
    )
