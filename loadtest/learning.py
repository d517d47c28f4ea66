"""The figures of learning: how well a model learns in one pass, how fast, and how it follows a change.

    .venv/bin/python loadtest/learning.py [--json FILE] [1] [2] [3] [4]      (from the repository root)

Every loss is progressive: the loss of a row is taken with the state before that row has any effect. No constant is
chosen for a set: the rule is the default, or the one that a line names.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from artifacts import Rows, make_artifact
from datasets import SETS
from environments import BUILD, NotAvailableError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from vowpal_process import VowpalWabbit

from service.compiler import TARGET
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model

SHUFFLES = 5
TURNS = 9
DRIFT_ROWS, DRIFT_WINDOW, DRIFT_NOISE = 300_000, 500, 1.0
SPEED_ROWS = 20_000


class Figure(NamedTuple):
    """One row of the table."""

    name: str
    target: str
    measured: float
    reached: bool


def train_artifact(data: Rows, count: int, **fields: Any) -> Artifact:  # noqa: ANN401  # a manifest's JSON
    """Fit scikit-learn's LogisticRegression on the first rows; fold its standardization in as models/train.py does."""
    scaler = StandardScaler().fit(data.X[:count].astype(np.float64))
    model = LogisticRegression(max_iter=5000).fit(scaler.transform(data.X[:count].astype(np.float64)), data.y[:count])
    weight = model.coef_.T / scaler.scale_[:, None]
    training = {"rows": count, "mean": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}
    return make_artifact(data, weight, model.intercept_ - scaler.mean_ @ weight, training=training, **fields)


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def pass_loss(data: Rows, **fields: Any) -> float:  # noqa: ANN401  # a manifest's JSON
    """Return the mean loss of one pass from zero weights, over all shuffles."""
    orders = map(data.shuffled, range(SHUFFLES))
    passes = [LearnerState(make_artifact(data, **fields)).fold_rows(order.X, order.y).mean() for order in orders]
    return float(np.mean(passes))


def from_zero() -> Iterator[Figure]:
    """Measure figure 1: one pass from zero weights by the default rule, and by newton on the same orders."""
    own, newton = [], []
    for name, load in SETS.items():
        data = load()
        own.append(pass_loss(data))
        newton.append(pass_loss(data, learning={"rule": "newton"}))
        ratio = own[-1] / newton[-1]
        yield Figure(f"1 progressive log loss, {name}", "", own[-1], True)
        yield Figure(f"1 loss / newton, {name}", "<= 1.01", ratio, ratio <= 1.01)  # noqa: PLR2004
    mean = geometric_mean(own)
    yield Figure("1 progressive log loss, geometric mean", "<= 0.185", mean, mean <= 0.185)  # noqa: PLR2004
    yield Figure("1 progressive log loss by newton, geometric mean", "", geometric_mean(newton), True)


def from_trained() -> Iterator[Figure]:
    """Measure figure 2: continuing from an artifact, against leaving it unchanged."""
    for rule, part, most in (
        ("newton", 0.4, 0.99),
        ("newton", 0.1, 0.80),
        ("mixture", 0.4, 0.81),
        ("mixture", 0.1, 0.62),
    ):
        ratios, title = [], f"2 {rule}, learned / static after {part:.0%}"
        for name, load in SETS.items():
            data, learned, static = load(), 0.0, 0.0
            for order in map(data.shuffled, range(SHUFFLES)):
                count = int(part * len(order.y))
                artifact = train_artifact(order, count, learning={"rule": rule})
                X, y = order.X[count:].copy(), order.y[count:].copy()
                Y = np.eye(data.n_classes)[y] if data.n_classes > 2 else y[:, None].astype(np.float64)  # noqa: PLR2004
                learned += LearnerState(artifact).fold_rows(X, y).mean()
                static += build_model(artifact).losses(X, Y).mean()
            ratios.append(learned / static)
            yield Figure(f"{title}, {name}", "<= 1.02", ratios[-1], ratios[-1] <= 1.02)  # noqa: PLR2004
        mean = geometric_mean(ratios)
        yield Figure(f"{title}, geometric mean", f"<= {most}", mean, mean <= most)


def drift() -> Iterator[Figure]:
    """Measure figure 3: noisy digits whose labels are all rotated, and what being ready for that costs before."""
    data, rng = SETS["digits"](), np.random.default_rng(0)

    def draw(count: int) -> tuple[Any, Any]:
        at = rng.integers(0, len(data.y), count)
        return (data.X[at] + rng.normal(0, DRIFT_NOISE, (count, data.X.shape[1]))).astype(np.float32), data.y[at]

    X, y = draw(DRIFT_ROWS)
    X_after, y_after = draw(40_000)
    for rule, most in (("mixture", 1600), ("newton", 5000)):
        before = {}
        for forget in (0.0, 1e-6):
            state = LearnerState(make_artifact(data, learning={"rule": rule, "constants": {"forget": forget}}))
            before[forget] = float(state.fold_rows(X, y).mean())
        losses = state.fold_rows(X_after, (y_after + 1) % data.n_classes)
        trailing = np.convolve(losses, np.ones(DRIFT_WINDOW) / DRIFT_WINDOW, "valid")
        below = np.flatnonzero(trailing < 0.5)  # noqa: PLR2004
        count = int(below[0]) + DRIFT_WINDOW if below.size else len(losses)
        name = f"3 {rule}, rows until the mean loss of {DRIFT_WINDOW} is under 0.5"
        yield Figure(name, f"<= {most}", count, count <= most)
        yield Figure(f"3 {rule}, loss before the change", "", before[1e-6], True)
        cost = before[1e-6] - before[0.0]
        yield Figure(f"3 {rule}, loss before, more than without forgetting", "<= 0.002", cost, cost <= 0.002)  # noqa: PLR2004


def seconds(state: LearnerState, X: Any, y: Any) -> float:  # noqa: ANN401
    """Time one pass of a new state."""
    began = time.perf_counter()
    state.fold_rows(X, y)
    return time.perf_counter() - began


def speeds() -> Iterator[Figure]:
    """Measure figure 4: rows per second, one after another, on one core."""
    rng, digits = np.random.default_rng(0), SETS["digits"]()
    plain = Rows(rng.standard_normal((SPEED_ROWS, 32), np.float32), rng.integers(0, 10, SPEED_ROWS), 10)
    cases: list[tuple[str, str, Rows, float]] = [
        ("sgd", "32 x 10", plain, 1_500_000),
        ("ftrl", "32 x 10", plain, 700_000),
        ("newton", "digits", digits, 100_000),
        ("mixture", "digits", digits, 0),
    ]
    times: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for rule, shape, data, _ in cases:
            state = LearnerState(make_artifact(data, learning={"rule": rule}))
            times.setdefault(f"{rule} {shape}", []).append(seconds(state, data.X, data.y))
    for rule, shape, data, least in cases:
        rate = len(data.y) / median(times[f"{rule} {shape}"])
        yield Figure(f"4 {rule}, {shape}, rows/s", f">= {least:,.0f}" if least else "", round(rate), rate >= least)
    ratio = median(n / m for n, m in zip(times["newton digits"], times["mixture digits"], strict=True))
    yield Figure("4 mixture / newton, digits, rows/s", ">= 0.3", ratio, ratio >= 0.3)  # noqa: PLR2004
    try:
        yield beside_vowpal(digits)
    except NotAvailableError as reason:
        print(f"Vowpal Wabbit {reason}", file=sys.stderr)


def beside_vowpal(digits: Rows) -> Figure:
    """Measure FTRL on digits in turns with Vowpal Wabbit's."""
    file = BUILD / "digits.txt"
    cells = (" ".join(f"{j}:{x:g}" for j, x in enumerate(row) if x) for row in digits.X.tolist())
    file.write_text("".join(f"{label + 1} | {row}\n" for label, row in zip(digits.y, cells, strict=True)))
    own, peer = [], []
    with VowpalWabbit(file, f"--oaa {digits.n_classes} --ftrl") as vowpal:
        for _ in range(TURNS):
            own.append(seconds(LearnerState(make_artifact(digits, learning={"rule": "ftrl"})), digits.X, digits.y))
            peer.append(vowpal.run("learn"))
    ratio = median(peer) / median(own)
    return Figure("4 ftrl on digits, Vowpal Wabbit's time / ours", ">= 3", ratio, ratio >= 3)  # noqa: PLR2004


PARTS: dict[str, Callable[[], Iterator[Figure]]] = {"1": from_zero, "2": from_trained, "3": drift, "4": speeds}


def main() -> None:
    """Measure the named parts, or all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"parts to measure, of {', '.join(PARTS)}; default: all"
    )
    options = parser.parse_args()
    figures = []
    print(f"{'figure':56} {'target':>12} {'measured':>12}")
    for part in options.parts or PARTS:
        for figure in PARTS[part]():
            figures.append(figure._asdict() | {"measured": float(figure.measured), "reached": bool(figure.reached)})
            missed = "" if figure.reached else "  missed"
            print(f"{figure.name:56} {figure.target:>12} {figure.measured:>12.6g}{missed}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"target": TARGET, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
