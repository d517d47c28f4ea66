"""Write .skops files into a folder, each beside rows and their probabilities; with any scikit-learn from 1.3 on.

It runs in an environment with scikit-learn, skops and pandas alone, so it imports nothing of Softstep.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

ROWS = 120
WORDS = ["refund", "order", "late", "please", "the", "Café", "good", "day"]


def make_frame(rng: Any) -> Any:
    frame = pd.DataFrame({
        "age": rng.normal(40, 10, ROWS).round(1), "sex": rng.choice(["m", "f"], ROWS),
        "class": rng.integers(1, 4, ROWS),
        "port": rng.choice(["S", "C", "Q", "X"], ROWS, p=[0.5, 0.3, 0.18, 0.02]),
        "note": [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(ROWS)],
    })  # fmt: skip
    target = np.where(frame.age + 10 * (frame.sex == "m") > 45, "yes", "no")
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "port"] = np.nan
    return frame, target


def columns_model(rng: Any) -> Any:
    frame, target = make_frame(rng)
    columns = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["age"]),
        ("port", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5), ["port"]),
        ("sex", make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder()), ["sex"]),
        ("class", TargetEncoder(random_state=0), ["class"]),
        ("note", TfidfVectorizer(ngram_range=(1, 2)), "note"),
    ])  # fmt: skip
    return make_pipeline(columns, LogisticRegression()).fit(frame, target), frame, "frame"


def network_model(rng: Any) -> Any:
    X = rng.normal(0, 1, (ROWS, 5)).round(3)
    y = np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])
    steps = (MinMaxScaler(), SelectKBest(k=4), PCA(3, whiten=True, random_state=0))
    return make_pipeline(*steps, MLPClassifier((4,), max_iter=80, random_state=0)).fit(X, y), X, "matrix"


def text_model(rng: Any) -> Any:
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(ROWS)]
    y = [text.count("late") + text.count("refund") for text in texts]
    y = np.minimum(y, 2)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), sublinear_tf=True)
    union = FeatureUnion(
        [("words", TfidfVectorizer(norm=None)), ("letters", letters)], transformer_weights={"letters": 0.5}
    )
    model = GridSearchCV(make_pipeline(union, SGDClassifier(loss="log_loss", random_state=0)), {}, cv=2)
    return model.fit(texts, y), texts, "texts"


def labels_model(rng: Any) -> Any:
    X = rng.normal(0, 1, (ROWS, 4)).round(3)
    Y = np.column_stack([X[:, 0] > 0, X[:, 1] > 0.5, X.sum(axis=1) > 0]).astype(int)
    return OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegression())).fit(X, Y), X, "matrix"


def main() -> None:
    folder = Path(sys.argv[1])
    for make in (columns_model, network_model, text_model, labels_model):
        name = make.__name__.removesuffix("_model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, X, form = make(np.random.default_rng(1))
        P = model.predict_proba(X[:20]).tolist()
        if form == "frame":
            rows = json.loads(X[:20].to_json(orient="records"))
        elif form == "matrix":
            rows = [{f"feature_{i}": number for i, number in enumerate(row)} for row in X[:20].tolist()]
        else:
            rows = [{"text": text} for text in X[:20]]
        skops.io.dump(model, folder / f"{name}.skops", compression=8, compresslevel=9)
        (folder / f"{name}.json").write_text(json.dumps({"rows": rows, "probabilities": P}) + "\n")


if __name__ == "__main__":
    main()
