"""Draws the pictures of docs/mathematics.md: `python docs/write_mathematics.py`, in the project's environment.

Every curve and matrix is computed by the functions that the page names.
"""  # noqa: INP001

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from service.softmax.derivatives import sigmoid_slope, softmax, softmax_jacobian
from service.softmax.model import Model
from service.store.artifact import read_artifact
from service.store.served import model_of

mpl.use("Agg")

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "mathematics"
ARTIFACT_BYTES_MAX = 1 << 20
CURVE_POINTS = 401

Doubles = NDArray[np.float64]


def functions() -> Any:  # noqa: ANN401  # a figure
    """Softmax of three scores, one of which moves; the sigmoid and its slope."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    z = np.linspace(-6, 6, CURVE_POINTS)
    P = softmax(np.column_stack([z, np.full_like(z, 1.0), np.full_like(z, -1.0)]))
    for k, name in enumerate(("$p_0$, of the score that moves", "$p_1$, score 1", "$p_2$, score -1")):
        left.plot(z, P[:, k], label=name)
    left.set(title="softmax of $(z, 1, -1)$", xlabel="$z$", ylabel="probability")
    column = np.ascontiguousarray(z[:, None])
    right.plot(z, one_logit().predict(column)[:, 1], label=r"$\sigma(z)$")
    right.plot(z, sigmoid_slope(column)[:, 0], label=r"$\sigma'(z) = \sigma(z)\,\sigma(-z)$")
    right.set(title="sigmoid", xlabel="$z$")
    return finished(figure, left, right)


def loss() -> Any:  # noqa: ANN401  # a figure
    """The loss of a logit by its target, and its derivative."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    z = np.linspace(-6, 6, CURVE_POINTS)
    column, model = np.ascontiguousarray(z[:, None]), one_logit()
    for y in (1.0, 0.7, 0.0):
        found = model.gradients(column, np.full((z.size, 1), y))
        left.plot(z, found.losses, label=f"$y = {y:g}$")
        right.plot(z, found.dX[:, 0], label=f"$y = {y:g}$")  # the weight is 1, so this is the logit's derivative
    left.set(title="cross-entropy against the logit", xlabel="$z$", ylabel="loss")
    right.set(title=r"its derivative, $\sigma(z) - y$", xlabel="$z$")
    return finished(figure, left, right)


def jacobian() -> Any:  # noqa: ANN401  # a figure
    """The least certain digit, what is answered for it, and the Jacobian of that answer."""
    row, image, P = least_certain()
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.8), gridspec_kw={"width_ratios": [1, 1.1, 1.5]}, layout="constrained"
    )
    left.imshow(image, cmap="gray_r")
    left.set(title=f"row {row} of the digits", xticks=[], yticks=[])
    middle.bar(range(P.size), P, color="tab:blue")
    middle.set(title="$p$", xlabel="class", xticks=range(P.size))
    J = softmax_jacobian(np.ascontiguousarray(P[None]))[0]
    most = np.abs(J).max()
    shown = right.imshow(J, cmap="RdBu_r", vmin=-most, vmax=most)
    right.set(title=r"$\partial p_i / \partial z_j$", xlabel="$j$", ylabel="$i$")
    right.set(xticks=range(P.size), yticks=range(P.size))
    figure.colorbar(shown, ax=right)
    return figure


def least_certain() -> tuple[int, Doubles, Doubles]:
    """Of all digits that whose largest probability is the smallest: its row, its image (8, 8), its probabilities."""
    digits = load_digits()
    P = model_of(read_artifact(ROOT / "models/digits/1", ARTIFACT_BYTES_MAX)).predict(digits.data.astype(np.float32))
    row = int(P.max(axis=1).argmin())
    return row, digits.images[row], P[row].astype(np.float64)


def one_logit() -> Model:
    """A model whose one feature is its logit."""
    return Model("sigmoid", np.ones((1, 1)), np.zeros(1))


def finished(figure: Any, *axes: Any) -> Any:  # noqa: ANN401
    """Give axes their legends and grids."""
    for one in axes:
        one.legend()
        one.grid(alpha=0.3)
    figure.tight_layout()
    return figure


PICTURES: dict[str, Callable[[], Any]] = {"functions": functions, "jacobian": jacobian, "loss": loss}


def main(folder: Path = FOLDER) -> None:
    """Draw every picture into a folder."""
    folder.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
