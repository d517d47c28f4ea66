"""Draw the pictures of a card as SVG, each for light and for dark pages.

A picture has no date and no random names, so equal models give equal bytes. Its background is that of the page.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from service.softmax.arrays import Integers
from service.train.heavy_columns import HeavyColumn

# A matrix of more classes has no room for its numbers.
NUMBERS_SHOWN_MAX: Final = 12
# Longer names are cut.
NAME_CHARACTERS_MAX: Final = 28
PLOTS_IN_A_ROW: Final = 3
# The share of a row of the confusion matrix from which its color is strong.
STRONG: Final = 0.5
# The ends of an axis from 0 to 1 on which the largest points have room at both ends.
WITH_MARGIN: Final = (-0.05, 1.05)
SALT: Final = "softstep"  # of the identifiers in an SVG


class Palette(NamedTuple):
    """The colors of a picture."""

    text: str
    line: str
    other: str
    faint: str
    strong: str  # of a number on a cell of the color `line`


PALETTES: Final = {
    "light": Palette("#1a1a1a", "#1f6f8b", "#d55e00", "#c8d2d8", "#ffffff"),
    "dark": Palette("#e6e6e6", "#56b4e9", "#e69f00", "#3a444c", "#000000"),
}
Draw = Callable[[Figure, Palette], None]


def draw_losses(strengths: Sequence[float], trained: Sequence[float], held_out: Sequence[float]) -> dict[str, bytes]:
    """Draw the mean loss by C, over the rows that are trained on and over those that are held out."""

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        axes.plot(strengths, held_out, "o-", color=palette.line, label="held out")
        axes.plot(strengths, trained, "o--", color=palette.other, label="trained on")
        axes.set(xscale="log", xlabel="C, the inverse strength of the penalty", ylabel="mean loss")
        axes.legend(frameon=False)

    return _draw("losses", (6.4, 3.2), draw)


def draw_confusion(classes: Sequence[str], counts: Integers) -> dict[str, bytes]:
    """Draw the confusion matrix (C, C): rows of each class, by the class that is predicted."""

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        K, names = len(classes), [shorten(name) for name in classes]
        for (i, j), share in np.ndenumerate(shares):
            if share:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=palette.line, alpha=float(share)))
            if K <= NUMBERS_SHOWN_MAX:
                color = palette.strong if share > STRONG else palette.text
                axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=color)
        axes.set_xticks(range(K), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(K), names)
        axes.set(xlabel="predicted", ylabel="class", xlim=(-0.5, K - 0.5), ylim=(K - 0.5, -0.5), aspect="equal")

    side = min(3.2 + 0.3 * len(classes), 12.0)
    return _draw("confusion", (side + 1, side), draw)


def draw_reliability(bins: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Draw how often predictions are right, by their confidence."""

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        used = [part for part in bins if part["rows"]]
        largest = max(part["rows"] for part in used)
        axes.plot([0, 1], [0, 1], color=palette.faint)
        sizes = [20 + 180 * part["rows"] / largest for part in used]
        points = ([part["confidence"] for part in used], [part["accuracy"] for part in used])
        axes.scatter(*points, s=sizes, color=palette.line)
        axes.set(xlabel="probability", ylabel="share that is right", xlim=WITH_MARGIN, ylim=WITH_MARGIN)

    return _draw("reliability", (4.8, 3.6), draw)


def draw_columns(columns: Mapping[str, Sequence[HeavyColumn]]) -> dict[str, bytes]:
    """Draw the heaviest columns of each class."""
    width = min(len(columns), PLOTS_IN_A_ROW)
    height = -(-len(columns) // width)

    def draw(figure: Figure, palette: Palette) -> None:
        for number, (name, heavy) in enumerate(columns.items(), 1):
            axes = figure.add_subplot(height, width, number)
            effects = [column.effect for column in heavy][::-1]
            colors = [palette.line if effect > 0 else palette.other for effect in effects]
            axes.barh(range(len(effects)), effects, color=colors)
            axes.set_yticks(range(len(effects)), [shorten(column.name) for column in heavy][::-1])
            axes.set_title(shorten(name))

    return _draw("columns", (4.2 * width, 0.6 + 2.4 * height), draw)


def shorten(name: str) -> str:
    """Return a name that has room in a picture, and no sign with which Matplotlib would begin a formula."""
    cut = name if len(name) <= NAME_CHARACTERS_MAX else f"{name[: NAME_CHARACTERS_MAX - 1]}…"
    return "".join(c if c.isprintable() else " " for c in cut).replace("$", r"\$")


def _draw(name: str, size: tuple[float, float], draw: Draw) -> dict[str, bytes]:
    """Return a picture for light and one for dark pages, by the names of their files.

    It is drawn once, because that takes most of a second; in the copy each color is exchanged.
    """
    light = _render(size, draw)
    dark = light
    for color, other in zip(PALETTES["light"], PALETTES["dark"], strict=True):
        dark = dark.replace(color.encode(), other.encode())
    return {f"card-{name}-light.svg": light, f"card-{name}-dark.svg": dark}


def _render(size: tuple[float, float], draw: Draw) -> bytes:
    """Return a picture for light pages; letters are those of the reader's fonts, so no glyph is missing."""
    palette = PALETTES["light"]
    colors: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), palette.text
    )
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": SALT, "font.size": 9.0}
    buffer = io.BytesIO()
    with mpl.rc_context(colors | style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, palette)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return buffer.getvalue()
