"""Draw the pictures of docs/mathematics/: `python docs/write_mathematics.py`, in the project's environment.

Every curve and matrix is computed by the functions that the pages name. Each picture is drawn for light and for dark
pages.
"""  # noqa: INP001

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.softmax.arrays import Doubles
from service.softmax.calibration import Calibration
from service.softmax.calibration_learner import CalibrationLearner
from service.softmax.derivatives import sigmoid_slope, softmax, softmax_jacobian
from service.softmax.linear_model import LinearModel
from service.softmax.reliability_diagram import reliability_diagram
from service.store.artifact.artifact import read_artifact
from service.store.artifact.model_factory import build_model

mpl.use("Agg")

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "mathematics"
ARTIFACT_BYTES_MAX = 1 << 20
CURVE_POINTS = 401
DPI = 144
# The smallest entry of the Jacobian that is printed; smaller ones would read 0.00.
PRINTED_MIN = 0.005
ROWS, CLASSES, OVERCONFIDENCE = 6000, 5, 4.0


class Theme(NamedTuple):
    """The colors of a page: background, text, grid and curves."""

    ground: str
    ink: str
    grid: str
    curves: tuple[str, str, str]


THEMES = {
    "": Theme("#ffffff", "#24292f", "#d8dee4", ("#0969da", "#cf222e", "#8250df")),
    "-dark": Theme("#0d1117", "#e6edf3", "#30363d", ("#58a6ff", "#ff7b72", "#d2a8ff")),
}


def functions(theme: Theme) -> Figure:
    """Draw the softmax of three scores, one of which changes, and the sigmoid and its slope."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2))
    z = np.linspace(-6, 6, CURVE_POINTS)
    P = softmax(np.column_stack([z, np.full_like(z, 1.0), np.full_like(z, -1.0)]))
    left.plot(z, P)
    left.set(title="softmax of the scores $(z,\\ 1,\\ -1)$", xlabel="$z$", ylim=(-0.03, 1.03))
    for k, place in enumerate(((3.4, 0.80), (-5.8, 0.78), (-5.8, 0.17))):
        left.text(*place, ("$p_0$", "$p_1$", "$p_2$")[k], color=theme.curves[k], fontsize=13)
    column = np.ascontiguousarray(z[:, None])
    right.plot(z, one_logit().predict(column)[:, 1])
    right.plot(z, sigmoid_slope(column)[:, 0])
    right.set(title="sigmoid and its slope", xlabel="$z$", ylim=(-0.03, 1.03))
    right.text(1.9, 0.72, r"$\sigma(z)$", color=theme.curves[0], fontsize=13)
    right.text(1.5, 0.22, r"$\sigma'(z)$", color=theme.curves[1], fontsize=13)
    return figure


def loss(theme: Theme) -> Figure:
    """Draw the loss of a logit for several targets, and its derivative."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2))
    z = np.linspace(-6, 6, CURVE_POINTS)
    column, model = np.ascontiguousarray(z[:, None]), one_logit()
    places = (((-4.9, 5.2), (2.4, -0.32)), ((-5.9, 2.45), (2.4, 0.33)), ((2.9, 4.75), (2.4, 0.76)))
    for (y, at), color in zip(zip((1.0, 0.7, 0.0), places, strict=True), theme.curves, strict=True):
        gradients = model.gradients(column, np.full((z.size, 1), y))
        left.plot(z, gradients.losses, color=color)
        right.plot(z, gradients.dX[:, 0], color=color)  # the weight is 1, so this is the derivative of the logit
        for axes, place in zip((left, right), at, strict=True):
            axes.text(*place, f"$y = {y:g}$", color=color, fontsize=12)
    left.set(title="cross-entropy of one logit", xlabel="$z$")
    right.set(title=r"its derivative, $\sigma(z) - y$", xlabel="$z$")
    right.axhline(0, color=theme.ink, linewidth=0.8)
    return figure


def jacobian(theme: Theme) -> Figure:
    """Draw the least certain digit, its probabilities, and their Jacobian."""
    row, image, P = least_certain()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.4, 3.9), width_ratios=[1, 1, 1.65])
    left.imshow(image, cmap=LinearSegmentedColormap.from_list("ink", [theme.ground, theme.ink]))
    left.set(title=f"row {row} of the digits", xticks=[], yticks=[])
    middle.barh(range(P.size), P)
    middle.set(title="$p$", ylabel="class", yticks=range(P.size))
    middle.invert_yaxis()
    middle.grid(visible=False, axis="y")
    J = softmax_jacobian(np.ascontiguousarray(P[None]))[0]
    most = np.abs(J).max()
    colormap = LinearSegmentedColormap.from_list("signed", [theme.curves[0], theme.ground, theme.curves[1]])
    matrix = right.imshow(J, cmap=colormap, vmin=-most, vmax=most)
    for i, j in np.argwhere(np.abs(J) >= PRINTED_MIN):
        ink = theme.ground if abs(J[i, j]) > most / 2 else theme.ink
        right.text(j, i, f"{J[i, j]:.2f}".replace("0.", "."), ha="center", va="center", fontsize=7.5, color=ink)
    right.set(title=r"$\partial p_i\,/\,\partial z_j$", xlabel="$j$", ylabel="$i$")
    right.set(xticks=range(P.size), yticks=range(P.size))
    figure.colorbar(matrix, ax=right).outline.set_visible(False)
    for axes in (left, right):
        axes.grid(visible=False)
        axes.spines[:].set(visible=True, color=theme.grid)
        axes.tick_params(length=0)
    return figure


def reliability(theme: Theme) -> Figure:
    """Draw confidence and accuracy of a model with too large scores, before and after, and the learned temperature."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5))
    Z, labels = overconfident_scores()
    learned = CalibrationLearner("softmax", Calibration("temperature", (1.0,)), learn=True)
    plain = CalibrationLearner("softmax", Calibration("temperature", (1.0,)), learn=False)
    temperatures = []
    for z, y in zip(Z, labels, strict=True):
        for learner in (plain, learned):
            learner.fold(z[None].copy(), np.zeros(1), np.array([y]), None, None, learning=True)
        temperatures.append(learned.calibration().numbers[0])
    left.plot([0, 1], [0, 1], color=theme.ink, linewidth=0.8, linestyle=(0, (4, 4)))
    for learner, color, name in ((plain, theme.curves[1], "uncalibrated"), (learned, theme.curves[0], "calibrated")):
        diagram = reliability_diagram(learner.window, ROWS)
        bins = [each for each in diagram["bins"] if each["rows"]]
        points = ([each[key] for each in bins] for key in ("confidence", "accuracy"))
        label = f"{name}: error {diagram['expected_error']:.3f}"
        left.plot(*points, color=color, marker="o", markersize=4.5, label=label)
    left.set(title="the last thousand rows", xlabel="confidence", ylabel="accuracy")
    left.set(xlim=(0, 1.02), ylim=(0, 1.02))
    left.legend(loc="upper left")
    right.axhline(OVERCONFIDENCE, color=theme.ink, linewidth=0.8, linestyle=(0, (4, 4)))
    right.plot(temperatures, color=theme.curves[0])
    right.set(title="the temperature, row by row", xlabel="rows", ylabel="$T$", xscale="log", xlim=(1, ROWS))
    return figure


def overconfident_scores() -> tuple[Doubles, NDArray[np.int64]]:
    """Return scores that are four times too large, and labels drawn by the softmax of a quarter of each."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((ROWS, CLASSES)) * 2 * OVERCONFIDENCE
    labels = (softmax(Z, OVERCONFIDENCE).cumsum(axis=1) < rng.random((ROWS, 1))).sum(axis=1)
    return Z, np.minimum(labels, CLASSES - 1)


def least_certain() -> tuple[int, Doubles, Doubles]:
    """Return the row, the image (8, 8) and the probabilities of the digit with the smallest largest probability."""
    digits = load_digits()
    P = build_model(read_artifact(ROOT / "models/digits/1", ARTIFACT_BYTES_MAX)).predict(digits.data.astype(np.float32))
    row = int(P.max(axis=1).argmin())
    return row, digits.images[row], P[row].astype(np.float64)


def one_logit() -> LinearModel:
    """Return a model whose single feature is its logit."""
    return LinearModel("sigmoid", np.ones((1, 1)), np.zeros(1))


def style(theme: Theme) -> dict[str, Any]:
    """Return the matplotlib settings of a theme."""
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    grounds = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    lines = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color", "legend.edgecolor")
    colormap = dict.fromkeys(inks, theme.ink) | dict.fromkeys(grounds, theme.ground) | dict.fromkeys(lines, theme.grid)
    shapes = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True}
    sizes = {"lines.linewidth": 2.2, "font.size": 10, "axes.titlesize": 11, "axes.titlepad": 9, "figure.dpi": DPI}
    return {**colormap, **shapes, **sizes, "axes.prop_cycle": cycler(color=theme.curves), "mathtext.fontset": "cm"}


PICTURES: dict[str, Callable[[Theme], Figure]] = {
    "functions": functions,
    "jacobian": jacobian,
    "loss": loss,
    "reliability": reliability,
}


def main(folder: Path = FOLDER) -> None:
    """Draw every picture into a folder, for each theme."""
    folder.mkdir(exist_ok=True)
    for ending, theme in THEMES.items():
        with mpl.rc_context(style(theme)):
            for name, draw in PICTURES.items():
                figure = draw(theme)
                figure.tight_layout(w_pad=2.5)
                figure.savefig(folder / f"{name}{ending}.png", metadata={"Software": None})
                plt.close(figure)


if __name__ == "__main__":
    main()
