"""Why the shipped model of handwritten digits reads some digits as it does, asked over HTTP and drawn.

    make serve                                               # in another shell
    python docs/examples/digits_sensitivities.py --plot digits_sensitivities.png

Needs the development environment: make test installs it. The rows are digits whose label the model is least sure of.
For each the picture shows the pixels, what each pixel contributes to the logit of the label and to that of the
runner-up, and how each pixel moves the label's probability: the same difference, weighed by how much is undecided.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from sklearn.datasets import load_digits

mpl.use("Agg")

SIDE: Final = 8
MOST_PIXEL: Final = 16
SHOWN: Final = 3
COLUMNS: Final = 4


class Doubtful(NamedTuple):
    """One row: its pixels (64,), what was written, and the explanation of the answer with the names of its classes."""

    pixels: NDArray[np.float64]
    written: str
    why: dict[str, Any]
    classes: list[str]

    def ranked(self) -> list[int]:
        """The classes, the most probable one first."""
        return np.argsort(-np.array(self.why["probabilities"]), kind="stable").tolist()


def ask(url: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of a running service about the model `digits`."""
    request = urllib.request.Request(f"{url}/v1/models/digits:{verb}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def doubtful(url: str, count: int) -> list[Doubtful]:
    """The digits of different classes whose two most probable classes are nearest to each other, explained."""
    X, y = load_digits(return_X_y=True)
    P = np.sort(ask(url, "predict", {"instances": X.tolist()})["predictions"], axis=1)
    order = np.argsort(P[:, -1] - P[:, -2], kind="stable")
    first = sorted(np.unique(y[order], return_index=True)[1])[:count]
    rows = order[first]
    answer = ask(url, "explain", {"instances": X[rows].tolist(), "labels": y[rows].tolist()})
    whys = answer["explanations"]
    return [Doubtful(X[row], str(y[row]), why, answer["classes"]) for row, why in zip(rows, whys, strict=True)]


def plot(rows: list[Doubtful], path: Path) -> None:
    """Draw a line of pictures for each row."""
    figure, axes = plt.subplots(len(rows), COLUMNS, figsize=(2.4 * COLUMNS, 2.6 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        best, second = row.ranked()[:2]
        named = {k: f"{row.classes[k]} ({row.why['probabilities'][k]:.2f})" for k in (best, second)}
        contributions, slopes = (np.array(row.why[name]) for name in ("contributions", "sensitivities"))
        line[0].imshow(row.pixels.reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=MOST_PIXEL)
        line[0].set_title(f"a {row.written} was written", fontsize=9)
        limit = np.abs(contributions[[best, second]]).max()
        for axis, k in zip(line[1:3], (best, second), strict=True):
            show(axis, contributions[k], limit, f"contributions to {named[k]}")
        show(line[3], slopes[best], np.abs(slopes[best]).max(), f"sensitivities of p({row.classes[best]})")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def show(axis: Any, values: NDArray[np.float64], limit: float, title: str) -> None:  # noqa: ANN401  # matplotlib's own
    """One picture of signed numbers: red is more, blue is less."""
    axis.imshow(values.reshape(SIDE, SIDE), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set_title(title, fontsize=9)


def main() -> None:
    """Ask, tell, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000", help="a running service")
    parser.add_argument("--rows", type=int, default=SHOWN, help="digits to explain")
    parser.add_argument("--plot", type=Path, help="a PNG file to draw")
    arguments = parser.parse_args()
    rows = doubtful(arguments.url, arguments.rows)
    for row in rows:
        best, second = (row.classes[k] for k in row.ranked()[:2])
        told = [f"{one['feature']} {one['contribution']:+.2f}" for one in row.why["top"][:3]]
        print(f"written {row.written}, read as {best} before {second}, loss {row.why['loss']:.2f}: {', '.join(told)}")
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
