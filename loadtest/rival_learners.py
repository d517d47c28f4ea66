"""Learners of other projects, in one pass over data sets; rivals.py runs this in an environment of its own.

    python rival_learners.py LEARNER SHUFFLES ROWS FILE...

Each file is one data set as NPZ: X (B, N) float32, y (B,) class indices, K. Each line of output is a JSON object about
one pass: the learner's setting, the set, the shuffle, the mean loss, the rows, the processor seconds and the elapsed
seconds.

- A row is predicted with the state before it. Its features change nothing before that, not even a scaler.
- A probability under 1e-6 counts as 1e-6. A learner that has seen no label predicts all classes alike.
- River and scikit-learn give a class without a row the probability 0, and some learners give 0 to known classes. So
  each of their passes is scored twice: as it is, and smoothed with one more row, on which all classes are equal.
- The clock covers predictions, steps and refits. It does not cover parsing, nor scaling for Vowpal Wabbit.
- It counts processor time, because other work on the machine hardly changes that, and elapsed time to show such work.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import vowpalwabbit
from clock import Clock
from numpy.typing import NDArray
from river import forest, linear_model, neighbors, optim
from river.preprocessing import MinMaxScaler
from river.preprocessing import StandardScaler as RunningScaler
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Doubles = NDArray[np.float64]

LOSS_CLIP = 1e-6
# Standardized inputs of Vowpal Wabbit are cut here, which lowers its loss by a tenth or more.
INPUT_CLIP = 2.0
# Examples of Vowpal Wabbit that exist at the same time; each takes some kilobytes.
CHUNK = 256
FIRST_FIT, GROWTH = 10, 1.1
SEED = 1


class Data(NamedTuple):
    """A data set in one order: X (B, N), y (B,) class indices, and the number of classes."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    n_classes: int


class Pass(NamedTuple):
    """The outcome of a pass: each row's probability of its own class (B,), and its clock."""

    p: Doubles
    clock: Clock


Learner = Callable[[Data], Pass]


def standardized(X: NDArray[np.float32]) -> Doubles:
    """Return each row standardized by the mean and variance of earlier rows, and cut."""
    out, mean, squares = np.zeros(X.shape), np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for count, x in enumerate(X.astype(np.float64)):
        scale = np.sqrt(squares / max(count, 1))
        np.divide(x - mean, scale, out=out[count], where=scale > 0)
        difference = x - mean
        mean += difference / (count + 1)
        squares += difference * (x - mean)
    return out.clip(-INPUT_CLIP, INPUT_CLIP)


def vowpal_features(data: Data) -> list[str]:
    """Return the features of each row in Vowpal Wabbit's text format."""
    # Plain numbers as names are not hashed, so crossed features would share weights with each other.
    return [" ".join(f"x{j}:{x:.9g}" for j, x in enumerate(row) if x) for row in standardized(data.X).tolist()]


def run_vowpal(options: str, texts: list[Any], kind: vowpalwabbit.LabelType) -> tuple[Doubles, Clock]:
    """Return the predictions of Vowpal Wabbit for examples, and the clock; a text may be a list of lines."""
    workspace = vowpalwabbit.Workspace(f"{options} --loss_function logistic --quiet")
    found, clock = [], Clock()
    for start in range(0, len(texts), CHUNK):
        examples = [workspace.parse(text, kind) for text in texts[start : start + CHUNK]]
        with clock:
            for example in examples:
                found.append(workspace.predict(example))
                workspace.learn(example)
        for example in examples:
            workspace.finish_example(example)
    workspace.finish()
    return np.array(found), clock


def vowpal(options: str) -> Learner:
    """Return Vowpal Wabbit: one logistic output for two classes, else one for each, divided by their sum."""

    def run(data: Data) -> Pass:
        rows = vowpal_features(data)
        if data.n_classes == 2:  # noqa: PLR2004
            texts = [f"{2 * label - 1} | {row}" for label, row in zip(data.y, rows, strict=True)]
            p, clock = run_vowpal(f"{options} --link logistic", texts, vowpalwabbit.LabelType.SIMPLE)
            return Pass(np.where(data.y == 1, p, 1 - p), clock)
        texts = [f"{label + 1} | {row}" for label, row in zip(data.y, rows, strict=True)]
        outputs = f"{options} --oaa {data.n_classes} --probabilities"
        P, clock = run_vowpal(outputs, texts, vowpalwabbit.LabelType.MULTICLASS)
        return Pass(P[np.arange(len(P)), data.y], clock)

    return run


def vowpal_costs(options: str) -> Learner:
    """Return Vowpal Wabbit's cost-sensitive reduction for more than two classes, and the same as `vowpal` for two."""

    def run(data: Data) -> Pass:
        if data.n_classes == 2:  # noqa: PLR2004
            return vowpal(options)(data)
        texts = []
        for label, row in zip(data.y, vowpal_features(data), strict=True):
            # Each class is a line with its cost and one feature, which is crossed with those of the row.
            costs = [f"{k}:{int(k != label)} |c class{k}:1" for k in range(data.n_classes)]
            texts.append([f"shared |s constant:1 {row}", *costs])
        outputs = f"--csoaa_ldf mc --probabilities -q sc -b 20 {options}"
        P, clock = run_vowpal(outputs, texts, vowpalwabbit.LabelType.COST_SENSITIVE)
        return Pass(P[np.arange(len(P)), data.y], clock)

    return run


def river(make: Callable[[], Any]) -> Learner:
    """Return a learner of River, which learns one row at a time."""

    def run(data: Data) -> Pass:
        model, p, clock = make(), [], Clock()
        rows, labels = [dict(enumerate(x)) for x in data.X.tolist()], data.y.tolist()
        with clock:
            for row, label in zip(rows, labels, strict=True):
                found = model.predict_proba_one(row)
                p.append(found.get(label, 0.0) if found else 1 / data.n_classes)
                model.learn_one(row, label)
        return Pass(np.array(p), clock)

    return run


def refits(make: Callable[[], Any]) -> Learner:
    """Return a learner of scikit-learn, fitted on all rows so far each time that they have grown by a tenth."""

    def run(data: Data) -> Pass:
        p, start, clock = np.full(len(data.y), 1 / data.n_classes), FIRST_FIT, Clock()
        with clock:
            while start < len(data.y):
                end = min(len(data.y), math.ceil(GROWTH * start))
                if len(np.unique(data.y[:start])) > 1:
                    model = make().fit(data.X[:start], data.y[:start])
                    P = np.zeros((end - start, data.n_classes))
                    P[:, model.classes_] = model.predict_proba(data.X[start:end])
                    p[start:end] = P[np.arange(end - start), data.y[start:end]]
                start = end
        return Pass(p, clock)

    return run


def softmax(optimizer: Callable[[], Any]) -> Learner:
    """Return River's softmax regression with a scaler, as in its documentation."""
    return river(lambda: RunningScaler() | linear_model.SoftmaxRegression(optimizer()))


def nearest(count: int, window: int) -> Learner:
    """Return River's nearest neighbors with a scaler and exact search in a window of rows."""
    return river(lambda: RunningScaler() | neighbors.KNNClassifier(count, neighbors.LazySearch(window_size=window)))


def mondrian(scaler: Callable[[], Any] | None, **settings: Any) -> Learner:  # noqa: ANN401
    """Return River's aggregated Mondrian forest, whose splits depend on the scale of the features."""

    def make() -> Any:  # noqa: ANN401
        model = forest.AMFClassifier(seed=SEED, **settings)
        return model if scaler is None else scaler() | model

    return river(make)


def logistic(C: float) -> Learner:
    """Return scikit-learn's logistic regression with a scaler."""
    return refits(lambda: make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)))


def score(one: Pass, *, smoothed: bool, n_classes: int) -> float:
    """Return the mean log loss of a pass."""
    p = np.nan_to_num(one.p)
    if smoothed:
        rows_before = np.arange(len(p))
        p = (rows_before * p + 1 / n_classes) / (rows_before + 1)
    return float(-np.log(p.clip(LOSS_CLIP, 1)).mean())


# Each learner's settings. rivals.py takes the best one for each data set, which it shows.
LEARNERS: dict[str, dict[str, Learner]] = {
    "vowpal-linear": {
        **{
            options: vowpal(options)
            for options in ("-l 0.5", "-l 2", "-l 4", "--ftrl", "--ftrl --ftrl_alpha 1", "--coin", "--freegrad")
        },
        **{
            f"--csoaa_ldf mc {options}": vowpal_costs(options)
            for options in ("-l 2", "--ftrl", "--ftrl --ftrl_alpha 1")
        },
    },
    "vowpal-quadratic": {
        options: vowpal(f"-q :: -b 22 {options}") for options in ("-l 0.5", "-l 2", "-l 4", "--ftrl", "--coin")
    },
    "vowpal-nn": {
        options: vowpal(options)
        for options in (
            "--nn 5 -l 2",
            "--nn 20 -l 0.5",
            "--nn 20 -l 2",
            "--nn 20 --inpass -l 0.5",
            "--nn 20 --inpass -l 2",
            "--nn 20 --inpass --ftrl",
            "--nn 60 --inpass -l 2",
        )
    },
    "river-softmax": {
        "SGD(0.01)": softmax(lambda: optim.SGD(0.01)),
        "SGD(0.1)": softmax(lambda: optim.SGD(0.1)),
        "AdaGrad(0.1)": softmax(lambda: optim.AdaGrad(0.1)),
        "AdaGrad(0.3)": softmax(lambda: optim.AdaGrad(0.3)),
        "Adam(0.01)": softmax(lambda: optim.Adam(0.01)),
    },
    "river-amf": {
        "raw": mondrian(None),
        "raw, dirichlet 0.01": mondrian(None, dirichlet=0.01),
        "MinMaxScaler": mondrian(MinMaxScaler),
        "MinMaxScaler, dirichlet 0.01": mondrian(MinMaxScaler, dirichlet=0.01),
        "raw, dirichlet 0.01, 30 trees": mondrian(None, dirichlet=0.01, n_estimators=30),
    },
    "river-arf": {
        "default": river(lambda: forest.ARFClassifier(seed=SEED)),
        "30 trees": river(lambda: forest.ARFClassifier(30, seed=SEED)),
    },
    "river-knn": {
        "5 of 1,000 rows": nearest(5, 1000),
        "10 of 1,000 rows": nearest(10, 1000),
        "20 of 1,000 rows": nearest(20, 1000),
        "10 of all rows": nearest(10, 10_000),
    },
    "sklearn-logistic": {"C = 1": logistic(1.0), "C = 10": logistic(10.0)},
    "sklearn-forest": {
        "default": refits(lambda: RandomForestClassifier(random_state=SEED)),
        "min_samples_leaf 3": refits(lambda: RandomForestClassifier(min_samples_leaf=3, random_state=SEED)),
    },
    "sklearn-boosting": {
        "default": refits(lambda: HistGradientBoostingClassifier(random_state=SEED)),
        "learning_rate 0.05": refits(lambda: HistGradientBoostingClassifier(learning_rate=0.05, random_state=SEED)),
    },
}


def passes(name: str, path: Path, shuffles: int, rows: int) -> Iterator[dict[str, object]]:
    """Yield a JSON-ready object for each pass over one data set."""
    with np.load(path) as arrays:
        X, y, n_classes = arrays["X"], arrays["y"], int(arrays["K"])
    for shuffle in range(shuffles):
        order = np.random.RandomState(shuffle).permutation(len(y))[:rows]
        data = Data(X[order], y[order], n_classes)
        for setting, learner in LEARNERS[name].items():
            one = learner(data)
            about = {"set": path.stem, "shuffle": shuffle, "rows": len(order), **vars(one.clock)}
            yield about | {"setting": setting, "loss": score(one, smoothed=False, n_classes=n_classes)}
            if not name.startswith("vowpal"):
                loss = score(one, smoothed=True, n_classes=n_classes)
                yield about | {"setting": f"{setting}, smoothed", "loss": loss}


def main() -> None:
    """Run one learner over the data sets."""
    name, shuffles, rows, *files = sys.argv[1:]
    for file in files:
        for line in passes(name, Path(file), int(shuffles), int(rows)):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
