"""A pipeline in memory becomes an artifact that gives its probabilities."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import KernelPCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from service.convert.scikit.artifact_of import artifact_of
from service.errors import ConversionError
from service.store.artifact.artifact import read_artifact, write_artifact

TEXTS = ["a late refund", "good day sir", "refund now", "hello good sir"] * 5
FLOAT32_DIFFERENCE = 1e-5


def passengers(n: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "age": rng.normal(40, 10, n), "fare": rng.lognormal(3, 1, n), "sex": rng.choice(["m", "f"], n),
        "port": rng.choice(np.array(["S", "C", "Q", None], object), n), "class": rng.integers(1, 4, n),
        "name": ["x"] * n,
        "note": rng.choice(["please refund me", "good day", "the order is late"], n),
    })  # fmt: skip
    frame.loc[rng.choice(n, 40), "age"] = np.nan
    return frame, (frame.age.fillna(40) + 10 * (frame.sex == "m") > 45).map({True: "yes", False: "no"})


def columns() -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    categories = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer([
        ("numbers", numbers, ["age", "fare"]),
        ("categories", categories, ["sex", "port"]),
        ("class", OneHotEncoder(drop="first"), ["class"]),
        ("note", TfidfVectorizer(ngram_range=(1, 2)), "note"),
    ])  # fmt: skip


def test_scaled_numbers_are_features_with_their_statistics() -> None:
    iris = load_iris(as_frame=True)
    scaler, model = StandardScaler(), LogisticRegression()
    artifact = artifact_of(make_pipeline(scaler, model).fit(iris.data, iris.target), classes=list(iris.target_names))
    manifest = artifact.manifest
    assert manifest.head == "softmax"
    assert manifest.classes == ("setosa", "versicolor", "virginica")
    assert manifest.features == tuple(iris.data.columns)
    assert manifest.training.rows == 150
    np.testing.assert_allclose(manifest.training.mean, scaler.mean_)
    np.testing.assert_allclose(manifest.training.scale, scaler.scale_)
    np.testing.assert_allclose(artifact.weights, (model.coef_ / scaler.scale_).T, rtol=1e-6)


def test_columns_become_fields(tmp_path: Path) -> None:
    frame, target = passengers()
    artifact = artifact_of(make_pipeline(columns(), LogisticRegression()).fit(frame, target))
    records = {field.name: field for field in artifact.manifest.fields}
    assert list(records) == ["age", "fare", "sex", "port", "class", "note"]
    assert records["age"].flag
    assert not records["fare"].flag
    assert records["age"].missing.value == frame.age.median()
    assert records["sex"].unknown == "none"
    assert records["class"].unknown == "refuse"
    assert records["class"].values == (1, 2, 3)  # noqa: PD011  # a record
    assert artifact.manifest.others == "ignore"
    assert artifact.manifest.classes == ("no", "yes")
    assert artifact.manifest.training.rows == 300
    assert float(artifact.manifest.provenance["largest_difference"]) < FLOAT32_DIFFERENCE
    assert artifact.manifest.provenance["rows_compared"] == "200"
    write_artifact(tmp_path / "1", artifact)
    assert len(read_artifact(tmp_path / "1", 1 << 20).manifest.examples) == 8


def test_texts_become_a_field() -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [0, 1, 2, 1] * 5)
    artifact = artifact_of(pipeline, features=["subject"])
    assert [field.name for field in artifact.manifest.fields] == ["subject"]
    assert artifact.manifest.fields[0].terms == tuple(sorted(pipeline[0].vocabulary_))


def test_rows_of_the_caller_are_compared() -> None:
    frame, target = passengers()
    pipeline = make_pipeline(columns(), LogisticRegression()).fit(frame, target)
    rows = [{"age": 30, "fare": 7.5, "sex": "f", "port": "S", "class": 2, "note": "good day"}]
    assert artifact_of(pipeline, rows=rows).manifest.provenance["rows_compared"] == "201"
    with pytest.raises(
        ConversionError, match=r'^a row is no row of the model: Row 0: "class" must be one of the values'
    ):
        artifact_of(pipeline, rows=[{**rows[0], "class": 4}])


def test_a_wrong_weight_is_noticed() -> None:
    class Doubled(LogisticRegression):
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(2 * X)

    Doubled.__module__, Doubled.__qualname__ = LogisticRegression.__module__, "LogisticRegression"
    iris = load_iris()
    with pytest.raises(ConversionError, match="differs from the source"):
        artifact_of(Doubled(max_iter=1000).fit(iris.data, iris.target))


def test_a_part_that_is_not_linear_is_named() -> None:
    pipeline = Pipeline([("pca", KernelPCA(2)), ("model", LogisticRegression())])
    iris = load_iris()
    with pytest.raises(ConversionError, match=r'^step "pca": KernelPCA is not linear and no field\.$'):
        artifact_of(pipeline.fit(iris.data, iris.target))


def test_nothing_of_scikit_learn_is_imported() -> None:
    packages = ("sklearn", "skops", "pandas", "onnx")
    code = f"import service.convert.scikit.artifact_of, sys; print([m for m in {packages} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
