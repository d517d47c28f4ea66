"""Why the shipped model of handwritten digits reads some digits as it does, asked over HTTP and drawn.

    make serve                                               # in another shell
    python docs/examples/digits_sensitivities.py --plot digits_sensitivities.png     # and one for dark pages

Needs the development environment: make test installs it. The rows are digits whose label the model is least sure of.
For each the picture shows the pixels; the probabilities; what each pixel contributes to the logit of the label less
what it contributes to that of the runner-up, which is what decides between the two; and how the label's probability
moves with each pixel, times the pixel's usual spread: a slope by itself says nothing of how far a pixel ever goes.
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
    """The colours of a page: its ground, what stands on it, what stands back, and those of more and of less."""

    ground: str
    ink: str
    quiet: str
    more: str
    less: str


THEMES: Final = {
    "": Theme("#ffffff", "#24292f", "#afb8c1", "#cf222e", "#0969da"),
    "-dark": Theme("#0d1117", "#e6edf3", "#484f58", "#ff7b72", "#58a6ff"),
}


class Doubtful(NamedTuple):
    """One row: its pixels (64,), each pixel's spread over all rows, what was written, and the answer explained."""

    pixels: NDArray[np.float64]
    spread: NDArray[np.float64]
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
    return [
        Doubtful(X[row], X.std(axis=0), str(y[row]), why, answer["classes"])
        for row, why in zip(rows, whys, strict=True)
    ]


def plot(rows: list[Doubtful], path: Path) -> None:
    """Draw a line of pictures for each row, for light pages and for dark ones."""
    for ending, theme in THEMES.items():
        inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        grounds = ("axes.facecolor", "savefig.facecolor")
        with mpl.rc_context(dict.fromkeys(inks, theme.ink) | dict.fromkeys(grounds, theme.ground)):
            figure = drawn(rows, theme)
            figure.savefig(path.with_stem(path.stem + ending), dpi=DPI, metadata={"Software": None})
            plt.close(figure)


def drawn(rows: list[Doubtful], theme: Theme) -> Figure:
    """The picture in the colours of a theme."""
    size = 11, 2.7 * len(rows) + 0.5
    figure, axes = plt.subplots(len(rows), COLUMNS, figsize=size, squeeze=False, layout="constrained")
    ink = LinearSegmentedColormap.from_list("ink", [theme.ground, theme.ink])
    for line, row in zip(axes, rows, strict=True):
        best, second = row.ranked()[:2]
        names = row.classes[best], row.classes[second]
        contributions, slopes = (np.array(row.why[name]) for name in ("contributions", "sensitivities"))
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


def chart(axis: Any, row: Doubtful, theme: Theme) -> None:  # noqa: ANN401  # matplotlib's own
    """The probabilities of a row: the label's, the runner-up's and the others'."""
    best, second = row.ranked()[:2]
    colors = [theme.more if k == best else theme.less if k == second else theme.quiet for k in range(len(row.classes))]
    axis.bar(row.classes, row.why["probabilities"], color=colors)
    axis.set(ylim=(0, 0.62), yticks=[0, 0.5], box_aspect=1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(f"{row.classes[best]} before {row.classes[second]}")


def show(axis: Any, values: NDArray[np.float64], pixels: NDArray[np.float64], theme: Theme) -> None:  # noqa: ANN401
    """One picture of signed numbers, with the outline of what was written."""
    limit = np.abs(values).max()
    both = LinearSegmentedColormap.from_list("both", [theme.less, theme.ground, theme.more])
    axis.imshow(values.reshape(SIDE, SIDE), cmap=both, vmin=-limit, vmax=limit)
    axis.contour(pixels.reshape(SIDE, SIDE), levels=[MOST_PIXEL / 2], colors=theme.ink, linewidths=1)
    axis.set(xticks=[], yticks=[])


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
