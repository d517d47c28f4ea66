"""Make the golden graphs: ONNX files of skl2onnx and PyTorch, with rows and the probabilities of the models.

python -m venv build/graphs
build/graphs/bin/pip install --requirement tests/golden/graphs/requirements.txt
build/graphs/bin/python tests/support/make_graphs.py tests/golden/graphs

NAME.onnx    the graph
NAME.json    {"rows": objects of names and values, "probabilities": those of scikit-learn or PyTorch, "classes",
             "head": of a graph that ends with logits}
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

FOLDER = Path(sys.argv[1])
IRIS = load_iris()
X, Y = IRIS.data.astype(np.float32), IRIS.target
SHOWN = 7  # every so many rows are kept
TENSORS = {"zipmap": False}


def keep(name: str, graph: bytes, rows: list[dict[str, Any]], probabilities: Any, classes: Any, **more: str) -> None:
    """Write a graph with its rows."""
    (FOLDER / f"{name}.onnx").write_bytes(graph)
    known = [str(one) for one in classes]
    facts = {
        "rows": rows,
        "probabilities": np.asarray(probabilities, float).round(9).tolist(),
        "classes": known,
        **more,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(facts) + "\n")


def number_rows(matrix: Any) -> list[dict[str, Any]]:
    """Return rows of numbered features; NaN is a missing number."""
    return [{f"feature_{i}": None if np.isnan(x) else float(x) for i, x in enumerate(row)} for row in matrix.tolist()]


def stack(probabilities: Any) -> Any:
    """Return the probabilities (B, C) of a multilabel network, which gives a list of arrays or an array."""
    return np.stack([one[:, 1] for one in probabilities], 1) if isinstance(probabilities, list) else probabilities


def make_matrices() -> None:
    """Make classifiers of a matrix of numbers."""
    names = np.array(IRIS.target_names)[Y]
    two, sets = (Y > 0).astype(int), np.stack([Y > 0, Y > 1], 1).astype(int)
    gaps = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X).astype(np.float32)
    options: dict[str, Any] = {"max_iter": 60, "random_state": 0}
    models: dict[str, tuple[Any, Any, Any, Any]] = {
        "logistic_names": (make_pipeline(StandardScaler(), LogisticRegression()), X, names, None),
        "logistic_two_double": (make_pipeline(StandardScaler(), LogisticRegression()), X.astype(float), two, TENSORS),
        "imputer": (make_pipeline(SimpleImputer(), RobustScaler(), LogisticRegression()), gaps, Y, TENSORS),
        "clip_network": (make_pipeline(MinMaxScaler(clip=True), MLPClassifier((6, 5), **options)), X, Y, TENSORS),
        "tanh_two": (MLPClassifier((5,), activation="tanh", **options), X, two, TENSORS),
        "logistic_sets": (MLPClassifier((5,), activation="logistic", **options), X, sets, TENSORS),
        "one_versus_rest": (OneVsRestClassifier(LogisticRegression()), X, Y, TENSORS),
        "sets": (OneVsRestClassifier(LogisticRegression()), X, sets, TENSORS),
        "gradient": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), X, Y, TENSORS),
        "discriminant": (LinearDiscriminantAnalysis(), X, Y, TENSORS),
        "naive": (MultinomialNB(), X, Y, TENSORS),
        "union": (
            make_pipeline(
                FeatureUnion([("s", StandardScaler()), ("p", PCA(2, whiten=True))], transformer_weights={"s": 2.0}),
                SelectKBest(k=4),
                LogisticRegression(),
            ),
            X, Y, TENSORS,
        ),
    }  # fmt: skip
    for name, (model, matrix, labels, tensors) in models.items():
        model.fit(matrix, labels)
        rows = matrix[::SHOWN]
        graph = to_onnx(model, matrix, options=tensors).SerializeToString()
        classes = getattr(model, "classes_", [])
        keep(name, graph, number_rows(rows), stack(model.predict_proba(rows)), range(2) if labels is sets else classes)


def make_tables() -> None:
    """Make classifiers of a table of numbers, texts and whole numbers."""
    rng, n = np.random.default_rng(1), len(X)
    columns = {
        "a": X[:, 0], "b": X[:, 1], "c": rng.choice(["x", "y", "z"], n), "d": rng.choice(["p", "q", ""], n),
        "e": rng.integers(0, 3, n),
    }  # fmt: skip
    table = pd.DataFrame(columns)
    types = [
        ("a", FloatTensorType([None, 1])), ("b", FloatTensorType([None, 1])), ("c", StringTensorType([None, 1])),
        ("d", StringTensorType([None, 1])), ("e", Int64TensorType([None, 1])),
    ]  # fmt: skip
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    infrequent = OneHotEncoder(min_frequency=45, handle_unknown="infrequent_if_exist")
    tables = {
        "one_hot": ([("n", scaled, ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c", "d", "e"])], Y),
        "dropped": ([("n", "passthrough", ["a", "e"]), ("c", OneHotEncoder(drop="first"), ["c", "d"])], Y),
        "ordinal": ([("n", StandardScaler(), ["a", "b"]), ("c", ordinal, ["c", "d", "e"])], Y),
        "infrequent": ([("c", infrequent, ["c", "d", "e"])], Y),
        "target": ([("c", TargetEncoder(random_state=0), ["c", "d"])], (Y > 0).astype(int)),
    }
    for name, (steps, labels) in tables.items():
        model = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(table, labels)
        graph = convert_sklearn(model, initial_types=types, options=TENSORS).SerializeToString()
        used = [column for _, _, names in steps for column in names]
        shown = table.iloc[::SHOWN]
        rows = [{key: value for key, value in row.items() if key in used} for row in shown.to_dict("records")]
        keep(f"table_{name}", graph, rows, model.predict_proba(shown), model.classes_)


def make_networks() -> None:
    """Make networks of PyTorch, by both of its exporters."""
    torch.manual_seed(0)
    modules = {
        "softmax": ([torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3), torch.nn.Softmax(dim=1)], {}),
        "normalized": (
            [
                torch.nn.BatchNorm1d(4),
                torch.nn.Linear(4, 3),
                torch.nn.Tanh(),
                torch.nn.Linear(3, 1),
                torch.nn.Sigmoid(),
            ],
            {},
        ),
        "logits": ([torch.nn.Linear(4, 3), torch.nn.Dropout()], {"head": "softmax"}),
        "logarithms": ([torch.nn.Linear(4, 3), torch.nn.LogSoftmax(dim=-1)], {}),
    }
    rows = torch.tensor(X[::SHOWN])
    for name, (layers, more) in modules.items():
        network = torch.nn.Sequential(*layers)
        network(torch.tensor(X))  # statistics of the normalization
        network.eval()
        made = network(rows).detach().double()
        probabilities = {"logits": torch.softmax(made, 1), "logarithms": made.exp()}.get(name, made)
        if made.shape[1] == 1:
            probabilities = torch.cat([1 - made, made], 1)
        for dynamo in (False, True):
            path = FOLDER / "network.onnx"
            shapes: dict[str, Any] = {"dynamic_axes": {"x": {0: "rows"}}}
            if dynamo:
                shapes = {"dynamic_shapes": [{0: torch.export.Dim("rows")}], "external_data": False}
            torch.onnx.export(network, (rows,), str(path), dynamo=dynamo, input_names=["x"], **shapes)
            graph = path.read_bytes()
            path.unlink()
            label = f"torch_{name}{'_dynamo' * dynamo}"
            keep(label, graph, number_rows(rows.numpy()), probabilities, range(probabilities.shape[1]), **more)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    make_matrices()
    make_tables()
    make_networks()
