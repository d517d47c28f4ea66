"""Trains the models that Softstep ships, from data inside the scikit-learn and river wheels; no network is needed.

    .venv/bin/python models/train.py [--out models] [name …]        (`make models` trains all seven)

Each model goes the same way, and running it twice writes the same files:

1. A quarter of the rows is held out: stratified, by a fixed seed, and never looked at before step 4.
2. StandardScaler and LogisticRegression are fitted to the rest; cross-validation there picks C by its log loss.
   Multilabel data has one logistic regression for each class, and one threshold for all of them, picked on the
   cross-validated probabilities by micro-averaged F1. digits-mlp has a hidden layer, trained by hidden.py instead.
3. The standardisation is folded into the weights in float64, the result rounded to float32: the served weights take
   raw features. In front of a hidden layer it is the stage instead. The manifest keeps the training statistics.
4. The held-out rows give the metrics in the manifest.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import river.datasets
import sklearn.datasets
from hidden import NetworkClassifier
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from service.store.artifact.artifact import Artifact, write_artifact

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]  # (B,) class indices, or (B, K) of zeros and ones for multilabel data

SEED = 0
HELD_OUT = 0.25
FOLDS = 5
# Half decades; every shipped model has its best value inside this range.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
THRESHOLDS = tuple(round(0.1 + 0.01 * step, 2) for step in range(81))
# Label sets of multilabel rows that are rarer than this are stratified by their number of labels alone.
LABEL_SET_ROWS_MIN = 10
LABEL_COUNT_MAX = 8


@dataclass(frozen=True)
class Data:
    """One data set.

    Attributes:
        X: Raw features, (B, N).
        y: The labels.
        features: N names.
        classes: K names, in the order of the label indices.
        origin: Where it comes from, in words.
        width: Of the hidden layer of its model, 0 where there is none.
    """

    X: Floats
    y: Labels
    features: tuple[str, ...]
    classes: tuple[str, ...]
    origin: dict[str, str]
    width: int = 0

    @property
    def head(self) -> Literal["softmax", "sigmoid", "multilabel"]:
        """The head that fits the labels."""
        if self.y.ndim > 1:
            return "multilabel"
        return "sigmoid" if len(self.classes) == 2 else "softmax"  # noqa: PLR2004


@dataclass(frozen=True)
class Trained:
    """One trained model.

    Attributes:
        pipeline: The fitted scikit-learn pipeline; `predict_proba` is what the service must equal.
        X_test: The held-out rows, raw, (B, N).
        y_test: Their labels.
        artifact: What is served.
    """

    pipeline: Pipeline
    X_test: Floats
    y_test: Labels
    artifact: Artifact


def load(name: str) -> Data:
    """Loads all rows of the data set of one model, in the order of its file."""
    return DATA[name]()


# Sums that are split over threads would vary with the number of processors.
@threadpool_limits.wrap(limits=1)
def fit(name: str, C: float | None = None) -> Trained:
    """Trains one model.

    Args:
        name: One of `DATA`.
        C: The inverse strength of the regularisation; None lets cross-validation pick it. A shipped manifest names
            the value that was picked, under provenance.
    """
    data = load(name)
    train, test = _split(data)
    C = _pick_strength(data, train) if C is None else C
    pipeline = _pipeline(data, C, solver="newton-cholesky", tol=1e-8).fit(data.X[train], data.y[train])
    threshold = _pick_threshold(data, train, C) if data.head == "multilabel" else None
    metrics = _metrics(data.y[test], pipeline.predict_proba(data.X[test]), threshold)
    fields, tensors = _described(data, pipeline, C)
    fields["metrics"] = metrics
    if threshold is not None:
        fields["thresholds"] = [threshold] * len(data.classes)
    return Trained(pipeline, data.X[test], data.y[test], Artifact.from_fields(fields, tensors))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the models that the command line (by default the process's) names, or all; writes each as version 1."""
    parser = argparse.ArgumentParser(description="Train the shipped models again.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(DATA)}; none: all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="directory to write to")
    options = parser.parse_args(arguments)
    if not DATA.keys() >= set(options.names):
        parser.error(f"the models are {', '.join(DATA)}")
    for name in options.names or DATA:
        artifact = fit(name).artifact
        write_artifact(options.out / name / "1", artifact)
        metrics = "  ".join(f"{metric} {value:.4g}" for metric, value in artifact.manifest.metrics.items())
        print(f"{name:13}  C {artifact.manifest.provenance['C']:4}  {metrics}", flush=True)


# The data sets: files inside the wheels.


def _iris() -> Data:
    return _from_sklearn(sklearn.datasets.load_iris(), "iris.csv", "Iris (Fisher, 1936)")


def _breast_cancer() -> Data:
    bunch = sklearn.datasets.load_breast_cancer()
    return _from_sklearn(bunch, "breast_cancer.csv", "Breast Cancer Wisconsin (Diagnostic)")


def _digits() -> Data:
    bunch = sklearn.datasets.load_digits()
    return _from_sklearn(bunch, "digits.csv.gz", "Optical Recognition of Handwritten Digits, its test part")


def _digits_mlp() -> Data:
    return replace(_digits(), width=32)


def _phishing() -> Data:
    rows = list(river.datasets.Phishing())
    y = [int(label) for _, label in rows]
    origin = _origin("river", "river/datasets/phishing.csv.gz", "Website Phishing")
    return _from_river(rows, y, ("legitimate", "phishing"), origin)


def _segment() -> Data:
    rows = list(river.datasets.ImageSegments())
    classes = tuple(sorted({label for _, label in rows}))
    y = [classes.index(label) for _, label in rows]
    origin = _origin("river", "river/datasets/segment.csv.zip", "Statlog (Image Segmentation)")
    return _from_river(rows, y, classes, origin)


def _yeast() -> Data:
    rows = list(river.datasets.Yeast())
    y = [[int(label) for label in labels.values()] for _, labels in rows]
    title = "Yeast gene functions (Elisseeff and Weston, 2002), as in MULAN"
    origin = _origin("river", "river/datasets/yeast.csv.gz", title, licence="not stated by its source")
    return _from_river(rows, y, tuple(rows[0][1]), origin)


DATA: dict[str, Callable[[], Data]] = {
    "iris": _iris,
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "digits-mlp": _digits_mlp,
    "phishing": _phishing,
    "segment": _segment,
    "yeast": _yeast,
}


def _from_sklearn(bunch: Any, file: str, title: str) -> Data:  # noqa: ANN401 - scikit-learn's bunches have no types
    features, classes = (tuple(str(name) for name in names) for names in (bunch.feature_names, bunch.target_names))
    origin = _origin("scikit-learn", f"sklearn/datasets/data/{file}", title)
    return Data(bunch.data, bunch.target, features, classes, origin)


def _from_river(rows: list[Any], y: list[Any], classes: tuple[str, ...], origin: dict[str, str]) -> Data:
    X = np.array([list(row.values()) for row, _ in rows], dtype=np.float64)
    return Data(X, np.array(y), tuple(rows[0][0]), classes, origin)


def _origin(wheel: str, file: str, title: str, licence: str = "CC BY 4.0") -> dict[str, str]:
    """Where data comes from; the licence is that of every data set in the UCI Machine Learning Repository."""
    return {"data_set": title, "licence": licence, "wheel": f"{wheel} {version(wheel)}", "file": file}


# The training


def _split(data: Data) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The row numbers to train on, and those held out."""
    rows = np.arange(len(data.y))
    train, test = train_test_split(rows, test_size=HELD_OUT, stratify=_strata(data.y), random_state=SEED)
    return train, test


def _strata(y: Labels) -> NDArray[np.str_]:
    """What each row counts as for stratification: its class, or its set of labels, or (rare sets) their number."""
    if y.ndim == 1:
        return y.astype(np.str_)
    sets = ["".join(map(str, row)) for row in y]
    rows = Counter(sets)
    return np.array([s if rows[s] >= LABEL_SET_ROWS_MIN else str(min(s.count("1"), LABEL_COUNT_MAX)) for s in sets])


def _pipeline(data: Data, C: float, solver: str = "lbfgs", tol: float = 1e-4) -> Pipeline:
    if data.width:
        return Pipeline([("network", NetworkClassifier(C, data.width, SEED))])
    model = LogisticRegression(C=C, solver=solver, tol=tol, max_iter=5000)
    classifier = OneVsRestClassifier(model) if data.head == "multilabel" else model
    return Pipeline([("scaler", StandardScaler()), ("classifier", classifier)])


def _cross_validated(data: Data, train: NDArray[np.intp], C: float) -> Floats:
    """Each training row's probabilities, (B, K), from the model that did not see its fold."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(train, _strata(data.y)[train])
    X, y = data.X[train], data.y[train]
    P: Floats = cross_val_predict(_pipeline(data, C), X, y, cv=list(folds), method="predict_proba")
    return P


def _pick_strength(data: Data, train: NDArray[np.intp]) -> float:
    losses = {C: _log_loss(data.y[train], _cross_validated(data, train, C)) for C in STRENGTHS}
    return min(losses, key=losses.__getitem__)


def _pick_threshold(data: Data, train: NDArray[np.intp], C: float) -> float:
    y, P = data.y[train], _cross_validated(data, train, C)
    return max(THRESHOLDS, key=lambda threshold: float(f1_score(y, threshold <= P, average="micro")))


def _folded(pipeline: Pipeline) -> dict[str, NDArray[np.float32]]:
    """The weights (N, K) and bias (K,) that take raw features: folded in float64, then rounded."""
    scaler, classifier = pipeline["scaler"], pipeline["classifier"]
    models = getattr(classifier, "estimators_", [classifier])
    weight = np.vstack([model.coef_ for model in models]).T / scaler.scale_[:, None]
    bias = np.concatenate([model.intercept_ for model in models]) - scaler.mean_ @ weight
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def _described(data: Data, pipeline: Pipeline, C: float) -> tuple[dict[str, object], dict[str, NDArray[np.float32]]]:
    """The manifest's fields but for the metrics, and the tensors."""
    if data.width:
        network = pipeline["network"]
        trainer, fields, tensors = "NetworkClassifier of models/hidden.py", network.fields(), network.tensors()
    else:
        scaler = pipeline["scaler"]
        trainer = f"StandardScaler and LogisticRegression of scikit-learn {version('scikit-learn')}"
        statistics = {"mean": [*scaler.mean_], "scale": [*scaler.scale_]}
        fields = {
            "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
            "training": {"rows": int(scaler.n_samples_seen_), **statistics},
        }
        tensors = _folded(pipeline)
    how = {
        "split": f"{HELD_OUT:.0%} of the rows held out, stratified, seed {SEED}",
        "trainer": trainer,
        "C": f"{C:g}",
        "script": "models/train.py",
    }
    head = {"head": data.head, "classes": data.classes, "features": data.features, "dtype": "float32"}
    return {**head, **fields, "provenance": data.origin | how}, tensors


# The metrics


def _log_loss(y: Labels, P: Floats) -> float:
    """The mean over rows of the cross-entropy; for multilabel rows, of the sum of their binary cross-entropies."""
    if y.ndim == 1:
        return float(log_loss(y, P))
    return float(sum(log_loss(y[:, k], P[:, k], labels=[0, 1]) for k in range(y.shape[1])))


def _metrics(y: Labels, P: Floats, threshold: float | None) -> dict[str, float]:
    """What the held-out rows say, to six digits: the last bits of a sum may vary from processor to processor."""
    metrics = {"held_out_rows": len(y), "log_loss": _log_loss(y, P)}
    if threshold is None:
        metrics["accuracy"] = accuracy_score(y, P.argmax(axis=1))
    else:
        named = threshold <= P
        metrics["subset_accuracy"] = accuracy_score(y, named)
        metrics["hamming_loss"] = hamming_loss(y, named)
        metrics["hamming_loss_at_half"] = hamming_loss(y, P >= 0.5)  # noqa: PLR2004
        metrics["micro_f1"] = f1_score(y, named, average="micro")
        metrics["macro_f1"] = f1_score(y, named, average="macro")
    return {name: round(float(value), 6) for name, value in metrics.items()}


if __name__ == "__main__":
    main()
