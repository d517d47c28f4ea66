"""Random ONNX graphs: pipelines of scikit-learn, converted by skl2onnx; graph_conversions.py runs it in an environment.

python graph_models.py FOLDER COUNT      writes FOLDER/0.onnx, 1.onnx, …; and N.txt, what each is
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

ROWS = 200
TYPES = {"f": FloatTensorType([None, 1]), "U": StringTensorType([None, 1]), "i": Int64TensorType([None, 1])}


def make_head(rng: np.random.Generator) -> Any:  # noqa: ANN401  # of scikit-learn
    """Return a classifier."""
    activation = str(rng.choice(["relu", "tanh", "logistic", "identity"]))
    heads = [
        LogisticRegression(),
        SGDClassifier(loss="log_loss"),
        LinearDiscriminantAnalysis(),
        OneVsRestClassifier(LogisticRegression()),
        MLPClassifier((int(rng.integers(2, 9)),), activation=activation, max_iter=30),
    ]
    return heads[int(rng.integers(len(heads)))]


def to_bytes(graph: Any) -> bytes:  # noqa: ANN401  # of onnx
    """Return the bytes of a graph.

    Raises:
        ValueError: A selector keeps the first column alone, for which skl2onnx writes a graph that nothing can run.
    """
    if any(node.op_type == "ConstantOfShape" for node in graph.graph.node):
        raise ValueError("no valid graph")
    return bytes(graph.SerializeToString())


def make_graph(seed: int) -> tuple[bytes, str]:
    """Return a graph, and what it is."""
    rng = np.random.default_rng(seed)
    n, K = int(rng.integers(2, 8)), int(rng.integers(2, 5))
    X = (rng.normal(0, 1, (ROWS, n)) * np.exp(rng.normal(0, 1, n)) + rng.normal(0, 3, n)).astype(np.float32)
    y = (X @ rng.normal(0, 1, n) + rng.normal(0, 1, ROWS)).argsort().argsort() * K // ROWS
    head, options = make_head(rng), {"zipmap": bool(rng.integers(2))}
    scalers = [StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler(), "passthrough"]
    scaler = scalers[int(rng.integers(len(scalers)))]
    if seed % 2:
        steps = [PCA(2), PCA(2, whiten=True), TruncatedSVD(1), SelectKBest(k=1), "passthrough"]
        model = make_pipeline(scaler, steps[int(rng.integers(len(steps)))], head).fit(X, y)
        dtype = np.float32 if seed % 4 == 1 else np.float64
        return to_bytes(to_onnx(model, X.astype(dtype), options=options)), str(model)
    table = pd.DataFrame({f"x{i}": X[:, i] for i in range(n)})
    table["c"], table["d"] = rng.choice(["a", "b", "c", "ü"], ROWS), rng.integers(-2, 3, ROWS)
    encoders = [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(drop="first"),
        OneHotEncoder(min_frequency=45, handle_unknown="infrequent_if_exist"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ]
    encoder = encoders[int(rng.integers(len(encoders)))]
    numbers = [f"x{i}" for i in range(n)]
    filled = SimpleImputer() if scaler == "passthrough" else make_pipeline(SimpleImputer(), scaler)
    columns = ColumnTransformer([("n", filled, numbers), ("c", encoder, ["c", "d"])])
    model = make_pipeline(columns, head).fit(table, y)
    types = [(name, TYPES["U" if name == "c" else "i" if name == "d" else "f"]) for name in table]
    return to_bytes(convert_sklearn(model, initial_types=types, options=options)), str(model)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
    made = seed = 0
    while made < wanted:
        try:
            graph, text = make_graph(seed)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            graph = b""  # scikit-learn or skl2onnx does not take this one
        if graph:
            (folder / f"{made}.onnx").write_bytes(graph)
            (folder / f"{made}.txt").write_text(" ".join(text.split()))
            made += 1
        seed += 1
