"""docs/examples/read_model.py and read_mixture.py compute what the service computes, from the files and NumPy alone."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InputError
from service.learn.state import LearnerState
from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.model_factory import build_model
from tests.support.budgets import examples
from tests.support.field_artifacts import DENSE_FIELDS, SPARSE_FIELDS, field_artifact
from tests.support.field_options import field_lists, rows_of
from tests.support.field_rows import ROWS, valid_rows
from tests.support.mixture_states import make_artifact, make_rows
from tests.support.model_artifacts import extra_artifacts
from tests.support.paths import ROOT, SHIPPED
from tests.support.scripts import load_script

MODELS = sorted(path.name for path in SHIPPED.iterdir() if (path / "1" / "model.json").exists())
EXTRA = extra_artifacts()
DOUBLE = field_artifact(dtype="float64", seed=3)
PATHS = ["docs/examples/read_model.py", "docs/examples/read_mixture.py"]
BYTES_MAX = 1 << 24


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script for all models; it lies in no package."""
    return load_script(PATHS[0])


@pytest.fixture(scope="module")
def mixture_script() -> ModuleType:
    """The script for models that have learned a mixture."""
    return load_script(PATHS[1])


def answers_of(artifact: Artifact, rows: list[Any]) -> Doubles:
    """Return the probabilities of the service for rows of names and values."""
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    X: Any = encoded if artifact.has_sparse_rows else encoded.to_matrix(artifact.n_features)
    return np.asarray(build_model(artifact).predict(X), np.float64)


def usual_features(artifact: Artifact) -> Any:
    """Return rows of features around the statistics that a manifest has."""
    statistics = artifact.manifest.training or artifact.manifest.stage
    X = 2 * np.random.default_rng(5).standard_normal((40, artifact.n_features))
    if statistics is not None:
        X = X * np.array(statistics.scale) + np.array(statistics.mean)
    return X.astype(artifact.weights.dtype)


def write_model(folder: Path, artifact: Artifact) -> Path:
    """Write an artifact, and return its folder."""
    write_artifact(folder, artifact, overwrite=True)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models(script: ModuleType, name: str) -> None:
    """Rows around the training statistics, or the manifest's examples with gaps and unknown values.

    A name of a character may not be missing, because scikit-learn refuses it.
    """
    folder = SHIPPED / name / "1"
    artifact, model = read_artifact(folder, BYTES_MAX), script.Model(folder)
    if artifact.manifest.fields is None:
        X = usual_features(artifact)
        expected, rows = build_model(artifact).predict(X), X.tolist()
    else:
        given_rows = [dict(example.row) for example in artifact.manifest.examples or ()]
        gaps = [{}, *({**row, next(iter(row)): None} for row in given_rows)]
        rows = [*given_rows, *(row for row in gaps if name != "characters")]
        expected = answers_of(artifact, rows)
    np.testing.assert_allclose(model.predict(rows), expected, atol=1e-5)


@pytest.mark.parametrize("name", EXTRA)
def test_models_of_features(script: ModuleType, tmp_path: Path, name: str) -> None:
    """Each head and dtype, hidden layers, a stage with a cut, calibrations."""
    artifact = EXTRA[name]
    model, X = script.Model(write_model(tmp_path / "1", artifact)), usual_features(artifact)
    np.testing.assert_allclose(model.predict(X.tolist()), build_model(artifact).predict(X), atol=5e-6)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "multilabel", "ovr"])
@pytest.mark.parametrize("fields", [DENSE_FIELDS, SPARSE_FIELDS], ids=["dense", "sparse"])
def test_models_with_fields(script: ModuleType, tmp_path: Path, head: str, fields: Any) -> None:
    """Rows with tensors of terms, idf, means and scales; as objects and as lists."""
    artifact = field_artifact(fields, head=head)
    model = script.Model(write_model(tmp_path / "1", artifact))
    rows = [row for row in ROWS if fields is DENSE_FIELDS or "city" not in row]
    np.testing.assert_allclose(model.predict(rows), answers_of(artifact, rows), atol=2e-6)
    lists = [[row.get(name) for name in dict.fromkeys(f.source for f in model.fields if f.source)] for row in rows]
    np.testing.assert_array_equal(model.predict(lists), model.predict(rows))


@given(rows=valid_rows)
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_with_every_kind_of_value(script: ModuleType, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Numbers in float64, so that large ones differ no more than small ones."""
    model = script.Model(write_model(tmp_path / "1", DOUBLE))
    np.testing.assert_allclose(model.predict(rows), answers_of(DOUBLE, rows), rtol=1e-9, atol=1e-12)


@given(data=st.data())
@settings(max_examples=examples(1200), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_of_any_fields_have_the_same_entries(script: ModuleType, tmp_path: Path, data: st.DataObject) -> None:
    """Every kind and option, with values that are missing and unknown."""
    fields = tuple(data.draw(field_lists()))
    artifact = field_artifact(fields, seed=None)
    model = script.Model(write_model(tmp_path / "1", artifact))
    encoder = artifact.row_encoder
    assert encoder is not None
    for row in data.draw(st.lists(rows_of(list(fields)), min_size=1, max_size=4)):
        try:
            encoded = encoder.encode_objects([row]).rows
        except InputError:
            continue  # the script does not refuse what the service refuses
        with np.errstate(over="ignore"):
            entries = model.encode(row)
        assert list(entries) == encoded.columns.tolist()
        np.testing.assert_allclose(list(entries.values()), encoded.values, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("n_features", "has_offset"), [(6, False), (6, True), (1, False), (600, False)],
    ids=["narrow", "offset", "one feature", "wide"],
)  # fmt: skip
def test_learned_mixtures(  # noqa: PLR0917
    script: ModuleType, mixture_script: ModuleType, tmp_path: Path, head: str, dtype: str, n_features: int,
    has_offset: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    """The random features are drawn again; the other script says who reads such a model."""
    X, labels = make_rows(head, dtype, max(n_features, 2))
    X = np.ascontiguousarray(X[:, :n_features])
    rule = "ftrl" if has_offset else "mixture"
    state = LearnerState(make_artifact(head, rule=rule, dtype=dtype, n_features=n_features))
    state.fold_rows(X[:120], labels[:120])
    if has_offset:
        state.configure({"rule": "mixture", "constants": {"features": 64}})
        state.fold_rows(X[120:], labels[120:])
    artifact = state.export_artifact(list(state.artifact.manifest.classes), {})
    assert artifact.manifest.mixture is not None
    folder = write_model(tmp_path / "1", artifact)
    model = mixture_script.MixtureModel(folder)
    tolerance = 3e-5 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(model.predict(X[:40].tolist()), build_model(artifact).predict(X[:40]), atol=tolerance)
    with pytest.raises(NotImplementedError, match=r"read_mixture\.py"):
        script.Model(folder).predict(X[:1].tolist())


def test_a_learned_delta(script: ModuleType, mixture_script: ModuleType, tmp_path: Path) -> None:
    """What a trained model has learned from feedback is a tensor of its own, on cut features."""
    trained = read_artifact(SHIPPED / "iris" / "1", BYTES_MAX)
    state, X = LearnerState(trained), usual_features(trained)
    state.fold_rows(X, np.arange(len(X)) % 3)
    artifact = state.export_artifact(list(trained.manifest.classes), {})
    assert artifact.manifest.delta is not None
    folder = write_model(tmp_path / "1", artifact)
    for model in (script.Model(folder), mixture_script.MixtureModel(folder)):
        np.testing.assert_allclose(model.predict(X.tolist()), build_model(artifact).predict(X), atol=2e-6)


def test_labels(script: ModuleType, tmp_path: Path) -> None:
    """The most probable class; of a multilabel model all whose probability reaches the threshold."""
    assert script.Model(SHIPPED / "iris" / "1").label(np.array([0.2, 0.5, 0.3])) == "versicolor"
    model = script.Model(write_model(tmp_path / "1", EXTRA["tags"]))
    assert model.label(np.array([0.2, 0.499, 0.8])) == ["a", "ü\n"]


def test_files_that_do_not_belong_together_are_refused(script: ModuleType, tmp_path: Path) -> None:
    """The manifest names the hash of the tensors."""
    folder = write_model(tmp_path / "1", EXTRA["double"])
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match="does not belong"):
        script.Model(folder)


@pytest.mark.parametrize("path", PATHS)
def test_the_scripts_need_numpy_alone(path: str) -> None:
    """Beside the standard library and each other."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names <= {"numpy", "read_model"}


@pytest.mark.parametrize("path", PATHS)
def test_the_command_lines(path: str) -> None:
    """A row of names and values gives one line of JSON."""
    row = json.dumps({"bill_length_mm": 39.1, "island": "Torgersen"})
    command = [sys.executable, str(ROOT / path), str(SHIPPED / "penguins" / "1"), row]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    answer = json.loads(done.stdout)
    expected = answers_of(read_artifact(SHIPPED / "penguins" / "1", BYTES_MAX), [json.loads(row)])[0]
    assert answer["label"] == "Adelie"
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=2e-6)
