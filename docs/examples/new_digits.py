"""A model that has never seen an 8 or a 9 learns them while it serves, survives a kill, and loses nothing.

    python docs/examples/new_digits.py                       # needs the development environment: make test installs it
    python docs/examples/new_digits.py --plot new_digits.png --rows 1200

A softmax regression is trained on the digits 0 to 7 and written as an artifact. `softstep serve` serves it, and two
classes are added. Rows of all ten digits are posted with their labels, one request each. Halfway the whole service is
killed with -9 and started again; a row whose answer was lost is sent again with its id. At the end every row is in the
log once, and the loss of each row before its step shows the progress of learning.
"""

import argparse
import json
import os
import signal
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from example_service import post, serving
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from softstep import Artifact, write_artifact

mpl.use("Agg")

KNOWN = 8
TRAINED_ROWS = 500
PLOT_WINDOW = 50


class RunResult(NamedTuple):
    """Each row's loss before its step, its digit, the number of rows sent again, and the model's metadata."""

    losses: list[float]
    digits: list[int]
    resent: int
    metadata: dict[str, Any]


def train(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a model of the digits 0 to 7; return the rows of all digits that it has not seen, and their labels."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    seen = np.flatnonzero(y < KNOWN)[:TRAINED_ROWS]
    scaler = StandardScaler().fit(X[seen])
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(X[seen]), y[seen])
    # The scaler is folded into the weights, so that the model takes raw pixels.
    weight = (fitted.coef_ / scaler.scale_).T
    bias = fitted.intercept_ - scaler.mean_ @ weight
    manifest = {
        "head": "softmax",
        "classes": [str(digit) for digit in range(KNOWN)],
        "features": [f"pixel {number}" for number in range(X.shape[1])],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {"rows": len(seen), "mean": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()},
    }
    tensors = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    write_artifact(folder / "digits" / "1", Artifact.from_fields(manifest, tensors))
    rest = np.setdiff1d(np.arange(len(y)), seen)
    rest = np.random.default_rng(1).permutation(rest)
    return X[rest], y[rest]


def run(rows: int, folder: Path) -> RunResult:
    """Run everything, with the service's files in a folder."""
    X, y = train(folder / "models")
    X, y = X[:rows], y[:rows].tolist()
    losses: dict[int, float] = {}
    resent = row = 0
    for part in ("before the kill", "after it"):
        with serving(folder) as (address, process):
            url = f"{address}/v1/models/digits"
            if part == "before the kill":
                post(f"{url}:classes?wait=true", {"add": ["8", "9"]})
            while row < len(y):
                body = {"id": f"row-{row}", "instances": [X[row].tolist()], "labels": [str(y[row])]}
                if part == "before the kill" and row == rows // 2:
                    os.kill(process.pid, signal.SIGKILL)
                answer = post(f"{url}:feedback?wait=true", body)
                if answer is None:
                    resent += 1
                    break
                losses[row] = (answer["losses"] or [float("nan")])[0]
                row += 1
            else:
                with urllib.request.urlopen(url) as answer:
                    metadata = json.load(answer)
    return RunResult([losses[number] for number in range(len(y))], y, resent, metadata)


def plot(result: RunResult, path: Path) -> None:
    """Draw the running mean of the loss before each row's step, for trained digits and for new ones."""
    figure, axes = plt.subplots(figsize=(8, 4))
    losses, digits = np.array(result.losses), np.array(result.digits)
    for name, chosen, color in (
        ("0 to 7, trained", digits < KNOWN, "#4a6fa5"),
        ("8 and 9, never seen", digits >= KNOWN, "#c0504d"),
    ):
        at = np.flatnonzero(chosen)
        window = min(PLOT_WINDOW, len(at))
        mean = np.convolve(losses[at], np.ones(window) / window, "valid")
        axes.plot(at[window - 1 :], mean, label=name, color=color)
    axes.axvline(len(digits) // 2, color="gray", linestyle=":", label="kill -9")
    axes.set(xlabel="rows of feedback", ylabel=f"loss before the step, mean of {PLOT_WINDOW}", yscale="log")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, print the result, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of feedback")
    parser.add_argument("--plot", type=Path, help="a PNG file to draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(arguments.rows, Path(folder))
    new = [loss for loss, digit in zip(result.losses, result.digits, strict=True) if digit >= KNOWN]
    fifth = max(1, len(new) // 5)
    progressive = result.metadata["progressive"]
    print(
        f"rows sent {len(result.digits)}, sent again after the kill {result.resent}, "
        f"events learned {progressive['events']}"
    )
    print(f"loss of 8 and 9: first fifth {np.mean(new[:fifth]):.2f}, last fifth {np.mean(new[-fifth:]):.2f}")
    print(f"recent accuracy over all ten digits: {progressive['recent_accuracy']:.3f}")
    if arguments.plot is not None:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
