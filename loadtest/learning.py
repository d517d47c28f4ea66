"""The figures of learning: how well a model learns in one pass, how fast, and what it does when the world changes.

    .venv/bin/python loadtest/learning.py [--json FILE] [1] [2] [3] [4]      (from the repository root)

Every loss is progressive: a row's loss is taken with the state before it, and nothing of the row moves anything first.
No constant is chosen for a set: the rule is the default, or the one that a line names.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from environments import BUILD, HERE, Environment, NotAvailableError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(HERE.parent))

from datasets import SETS, Rows

from service.compiler import TARGET
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model

SHUFFLES = 5
TURNS = 9
VOWPAL = Environment("vowpalwabbit", (HERE / "peers" / "vowpalwabbit.txt",))
DRIFT_ROWS, DRIFT_WINDOW, DRIFT_NOISE = 300_000, 500, 1.0
SPEED_ROWS = 20_000


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    target: str
    measured: float
    reached: bool


def made(data: Rows, weight: Any = None, bias: Any = None, **fields: Any) -> Artifact:  # noqa: ANN401
    """An artifact for a data set; of zero weights where none are given."""
    N, K = data.X.shape[1], 1 if data.n_classes == 2 else data.n_classes  # noqa: PLR2004
    weight = np.zeros((N, K)) if weight is None else weight
    bias = np.zeros(K) if bias is None else bias
    manifest = {
        "head": "sigmoid" if K == 1 else "softmax",
        "classes": [f"class {k}" for k in range(data.n_classes)],
        "features": [f"feature {j}" for j in range(N)],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        **fields,
    }
    return Artifact.from_fields(manifest, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})


def trained(data: Rows, count: int) -> Artifact:
    """scikit-learn's LogisticRegression on the first rows, its standardisation folded in as models/train.py does."""
    scaler = StandardScaler().fit(data.X[:count].astype(np.float64))
    model = LogisticRegression(max_iter=5000).fit(scaler.transform(data.X[:count].astype(np.float64)), data.y[:count])
    weight = model.coef_.T / scaler.scale_[:, None]
    training = {"rows": count, "mean": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}
    return made(data, weight, model.intercept_ - scaler.mean_ @ weight, training=training)


def geometric_mean(values: list[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def from_zero() -> Iterator[Figure]:
    """Figure 1: one pass from zero weights by the default rule."""
    losses = []
    for name, load in SETS.items():
        data = load()
        passes = [
            LearnerState(made(data)).fold_rows(order.X, order.y).mean() for order in map(data.shuffled, range(SHUFFLES))
        ]
        losses.append(float(np.mean(passes)))
        yield Figure(f"1 progressive log loss, {name}", "", losses[-1], True)
    mean = geometric_mean(losses)
    yield Figure("1 progressive log loss, geometric mean", "<= 0.238", mean, mean <= 0.238)  # noqa: PLR2004


def from_trained() -> Iterator[Figure]:
    """Figure 2: learning on from an artifact, against leaving it as it is."""
    for part, most in ((0.4, 0.99), (0.1, 0.80)):
        ratios = []
        for name, load in SETS.items():
            data, learned, static = load(), 0.0, 0.0
            for order in map(data.shuffled, range(SHUFFLES)):
                count = int(part * len(order.y))
                artifact = trained(order, count)
                X, y = order.X[count:].copy(), order.y[count:].copy()
                Y = np.eye(data.n_classes)[y] if data.n_classes > 2 else y[:, None].astype(np.float64)  # noqa: PLR2004
                learned += LearnerState(artifact).fold_rows(X, y).mean()
                static += build_model(artifact).losses(X, Y).mean()
            ratios.append(learned / static)
            yield Figure(f"2 learned / static after {part:.0%}, {name}", "<= 1.02", ratios[-1], ratios[-1] <= 1.02)  # noqa: PLR2004
        mean = geometric_mean(ratios)
        yield Figure(f"2 learned / static after {part:.0%}, geometric mean", f"<= {most}", mean, mean <= most)


def drift() -> Iterator[Figure]:
    """Figure 3: noisy digits whose labels are all rotated, and what following them costs before."""
    data, rng = SETS["digits"](), np.random.default_rng(0)

    def draw(count: int) -> tuple[Any, Any]:
        at = rng.integers(0, len(data.y), count)
        return (data.X[at] + rng.normal(0, DRIFT_NOISE, (count, data.X.shape[1]))).astype(np.float32), data.y[at]

    X, y = draw(DRIFT_ROWS)
    X_after, y_after = draw(40_000)
    before = {}
    for forget in (0.0, 1e-6):
        state = LearnerState(made(data, learning={"rule": "newton", "constants": {"forget": forget}}))
        before[forget] = float(state.fold_rows(X, y).mean())
    losses = state.fold_rows(X_after, (y_after + 1) % data.n_classes)
    trailing = np.convolve(losses, np.ones(DRIFT_WINDOW) / DRIFT_WINDOW, "valid")
    below = np.flatnonzero(trailing < 0.5)  # noqa: PLR2004
    count = int(below[0]) + DRIFT_WINDOW if below.size else len(losses)
    yield Figure(f"3 rows until the mean loss of {DRIFT_WINDOW} is under 0.5", "<= 5000", count, count <= 5000)  # noqa: PLR2004
    cost = before[1e-6] - before[0.0]
    yield Figure("3 loss before, more than without forgetting", "<= 0.002", cost, cost <= 0.002)  # noqa: PLR2004


def seconds(state: LearnerState, X: Any, y: Any) -> float:  # noqa: ANN401
    """Time one pass of a fresh state."""
    began = time.perf_counter()
    state.fold_rows(X, y)
    return time.perf_counter() - began


def speeds() -> Iterator[Figure]:
    """Figure 4: rows a second, one after the other, on one core."""
    rng, digits = np.random.default_rng(0), SETS["digits"]()
    plain = Rows(rng.standard_normal((SPEED_ROWS, 32), np.float32), rng.integers(0, 10, SPEED_ROWS), 10)
    cases: list[tuple[str, str, Rows, float]] = [
        ("sgd", "32 x 10", plain, 1_500_000),
        ("ftrl", "32 x 10", plain, 700_000),
        ("newton", "digits", digits, 100_000),
    ]
    times: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for rule, shape, data, _ in cases:
            state = LearnerState(made(data, learning={"rule": rule}))
            times.setdefault(f"{rule} {shape}", []).append(seconds(state, data.X, data.y))
    for rule, shape, data, least in cases:
        rate = len(data.y) / median(times[f"{rule} {shape}"])
        yield Figure(f"4 {rule}, {shape}, rows/s", f">= {least:,.0f}", round(rate), rate >= least)
    try:
        yield beside_vowpal(digits)
    except NotAvailableError as reason:
        print(f"Vowpal Wabbit {reason}", file=sys.stderr)


def beside_vowpal(digits: Rows) -> Figure:
    """FTRL on digits beside Vowpal Wabbit's, in turns."""
    python, file = VOWPAL.ensure(), BUILD / "digits.txt"
    cells = (" ".join(f"{j}:{x:g}" for j, x in enumerate(row) if x) for row in digits.X.tolist())
    file.write_text("".join(f"{label + 1} | {row}\n" for label, row in zip(digits.y, cells, strict=True)))
    own, peer = [], []
    with subprocess.Popen(
        [str(python), str(HERE / "vowpal.py"), str(digits.n_classes), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None  # noqa: S101  # both are pipes
        assert child.stdout is not None  # noqa: S101
        for _ in range(TURNS):
            own.append(seconds(LearnerState(made(digits, learning={"rule": "ftrl"})), digits.X, digits.y))
            child.stdin.write("once\n")
            child.stdin.flush()
            peer.append(float(child.stdout.readline()))
        child.stdin.close()
    ratio = median(peer) / median(own)
    return Figure("4 ftrl on digits, Vowpal Wabbit's time / ours", ">= 3", ratio, ratio >= 3)  # noqa: PLR2004


PARTS: dict[str, Callable[[], Iterator[Figure]]] = {"1": from_zero, "2": from_trained, "3": drift, "4": speeds}


def main() -> None:
    """Measure the parts that are named, or all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; none: all")
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
