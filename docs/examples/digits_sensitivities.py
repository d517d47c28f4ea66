"""Explain how the shipped model of handwritten digits reads some digits, over HTTP, and draw the explanations.

    make serve                                               # in another shell
    python docs/examples/digits_sensitivities.py --plot digits_sensitivities.png     # and one for dark pages

Needs the development environment: make test installs it. The rows are the digits with the least certain label. For each
of them the picture shows:

1. the pixels; 2. the probabilities; 3. each pixel's contribution to the logit of the label minus its contribution to
that of the runner-up: the difference
   decides between the two;
4. how the label's probability changes with each pixel, times the standard deviation of that pixel. A slope alone does
   not show how far a pixel usually varies.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits

mpl.use("Agg")

SIDE: Final = 8
MOST_PIXEL: Final = 16
SHOWN: Final = 3
COLUMNS: Final = 4
DPI: Final = 110
HEADS: Final = (
    "written",
    "answered",
    "what decided between the two\n(contributions, one less the other)",
    "what more ink would do\n(sensitivities times spread)",
)


class Theme(NamedTuple):
    """The colors of a page: background, foreground, muted, and those for more and for less."""

    ground: str
    ink: str
    quiet: str
    more: str
    less: str


THEMES: Final = {
    "": Theme("#ffffff", "#24292f", "#afb8c1", "#cf222e", "#0969da"),
    "-dark": Theme("#0d1117", "#e6edf3", "#484f58", "#ff7b72", "#58a6ff"),
}


class UncertainDigit(NamedTuple):
    """One row: pixels (64,), their standard deviations over all rows, the true digit, and the explained answer."""

    pixels: NDArray[np.float64]
    spread: NDArray[np.float64]
    written: str
    explanation: dict[str, Any]
    classes: list[str]

    def ranked(self) -> list[int]:
        """Return the classes, the most probable one first."""
        return np.argsort(-np.array(self.explanation["probabilities"]), kind="stable").tolist()


def send_request(url: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request about the model `digits` to a running service, and return the answer."""
    request = urllib.request.Request(f"{url}/v1/models/digits:{verb}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def find_uncertain(url: str, count: int) -> list[UncertainDigit]:
    """Return the digits of different classes whose two most probable classes are closest to each other, explained."""
    X, y = load_digits(return_X_y=True)
    P = np.sort(send_request(url, "predict", {"instances": X.tolist()})["predictions"], axis=1)
    order = np.argsort(P[:, -1] - P[:, -2], kind="stable")
    first = sorted(np.unique(y[order], return_index=True)[1])[:count]
    rows = order[first]
    answer = send_request(url, "explain", {"instances": X[rows].tolist(), "labels": y[rows].tolist()})
    explanations = answer["explanations"]
    return [
        UncertainDigit(X[row], X.std(axis=0), str(y[row]), explanation, answer["classes"])
        for row, explanation in zip(rows, explanations, strict=True)
    ]


def plot(rows: list[UncertainDigit], path: Path) -> None:
    """Draw one line of pictures for each row, for light pages and for dark ones."""
    for ending, theme in THEMES.items():
        inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        grounds = ("axes.facecolor", "savefig.facecolor")
        with mpl.rc_context(dict.fromkeys(inks, theme.ink) | dict.fromkeys(grounds, theme.ground)):
            figure = draw_figure(rows, theme)
            figure.savefig(path.with_stem(path.stem + ending), dpi=DPI, metadata={"Software": None})
            plt.close(figure)


def draw_figure(rows: list[UncertainDigit], theme: Theme) -> Figure:
    """Return the picture in the colors of a theme."""
    size = 11, 2.7 * len(rows) + 0.5
    figure, axes = plt.subplots(len(rows), COLUMNS, figsize=size, squeeze=False, layout="constrained")
    ink = LinearSegmentedColormap.from_list("ink", [theme.ground, theme.ink])
    for line, row in zip(axes, rows, strict=True):
        best, second = row.ranked()[:2]
        names = row.classes[best], row.classes[second]
        contributions, slopes = (np.array(row.explanation[name]) for name in ("contributions", "sensitivities"))
        line[0].imshow(row.pixels.reshape(SIDE, SIDE), cmap=ink, vmin=0, vmax=MOST_PIXEL)
        line[0].set(xticks=[], yticks=[], xlabel=f"a {row.written}")
        chart(line[1], row, theme)
        show(line[2], contributions[best] - contributions[second], row.pixels, theme)
        line[2].set_xlabel("red speaks for {}, blue for {}".format(*names))
        show(line[3], slopes[best] * row.spread, row.pixels, theme)
        line[3].set_xlabel(f"red raises p({names[0]}), blue lowers it")
    for axis, head in zip(axes[0], HEADS, strict=True):
        axis.set_title(head, fontsize=10)
    return figure


def chart(axis: Any, row: UncertainDigit, theme: Theme) -> None:  # noqa: ANN401  # matplotlib's own
    """Draw the probabilities of a row: the label's, the runner-up's and the others'."""
    best, second = row.ranked()[:2]
    colors = [theme.more if k == best else theme.less if k == second else theme.quiet for k in range(len(row.classes))]
    axis.bar(row.classes, row.explanation["probabilities"], color=colors)
    axis.set(ylim=(0, 0.62), yticks=[0, 0.5], box_aspect=1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(f"{row.classes[best]} before {row.classes[second]}")


def show(axis: Any, values: NDArray[np.float64], pixels: NDArray[np.float64], theme: Theme) -> None:  # noqa: ANN401
    """Draw signed numbers as a picture, with the outline of the digit."""
    limit = np.abs(values).max()
    both = LinearSegmentedColormap.from_list("both", [theme.less, theme.ground, theme.more])
    axis.imshow(values.reshape(SIDE, SIDE), cmap=both, vmin=-limit, vmax=limit)
    axis.contour(pixels.reshape(SIDE, SIDE), levels=[MOST_PIXEL / 2], colors=theme.ink, linewidths=1)
    axis.set(xticks=[], yticks=[])


def main() -> None:
    """Fetch explanations, print them, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000", help="a running service")
    parser.add_argument("--rows", type=int, default=SHOWN, help="digits to explain")
    parser.add_argument("--plot", type=Path, help="a PNG file to draw")
    arguments = parser.parse_args()
    rows = find_uncertain(arguments.url, arguments.rows)
    for row in rows:
        best, second = (row.classes[k] for k in row.ranked()[:2])
        parts = [f"{one['feature']} {one['contribution']:+.2f}" for one in row.explanation["top"][:3]]
        loss = row.explanation["loss"]
        print(f"written {row.written}, read as {best} before {second}, loss {loss:.2f}: {', '.join(parts)}")
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
