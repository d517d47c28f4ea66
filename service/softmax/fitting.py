"""Fit linear models and networks to blocks of rows: the solver of `softstep train`.

`fit` minimizes the objective of linear_objective.py or network_objective.py by L-BFGS. `fit_path` does so for several
strengths of the penalty, each from the result before it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.classifier import Head
from service.softmax.kernels.network import Activation, LayerArrays
from service.softmax.lbfgs import Reason, Report, minimize
from service.softmax.linear_objective import LinearObjective
from service.softmax.network_objective import NetworkObjective
from service.softmax.row_blocks import RowBlocks

# The largest derivative of the objective, divided by the sum of weights, at the end.
TOLERANCE: Final = 1e-6
ITERATIONS_MAX: Final = 1000


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model.

    Attributes:
        head: The head.
        n_classes: The number of classes; 2 for sigmoid.
        weights: W (N, K) float64 of the head's layer; N is the last hidden layer's width, or the number of columns.
        bias: b (K,) float64.
        hidden: The hidden layers in float64, the first one first.
        C: The inverse strength of the penalty.
        objective: The sum over rows of weight times loss, plus the squared weights / (2 C).
        loss: The mean of the loss over the rows, by their weights.
        gradient: The largest absolute value of the gradient, of the objective divided by the sum of weights.
        iterations: The steps of L-BFGS.
        evaluations: The passes over the rows.
        reason: The cause of the end, see `Minimum`.
    """

    head: Head
    n_classes: int
    weights: Doubles
    bias: Doubles
    hidden: tuple[LayerArrays, ...]
    C: float
    objective: float
    loss: float
    gradient: float
    iterations: int
    evaluations: int
    reason: Reason


def fit(
    blocks: RowBlocks,
    head: Head,
    n_classes: int,
    C: float = 1.0,
    *,
    start: Fit | None = None,
    hidden: tuple[int, ...] = (),
    activation: Activation = "relu",
    seed: int = 0,
    tolerance: float = TOLERANCE,
    iterations_max: int = ITERATIONS_MAX,
    threads: int = 1,
    report: Report | None = None,
) -> Fit:
    """Fit a model. The result has the same bits for any number of threads, on every processor.

    Args:
        blocks: The rows, at least one; their values must be finite. Hidden layers need dense rows.
        head: "softmax", "sigmoid" or "multilabel".
        n_classes: The number of classes or labels; 2 for sigmoid.
        C: The inverse strength of the penalty; infinity for none.
        start: A fit to the same columns, classes and hidden layers, to start from; else weights and biases start at 0,
            and those of hidden layers at random.
        hidden: The widths of hidden layers, the first one first.
        activation: The activation of hidden layers.
        seed: The seed of the first weights of hidden layers.
        tolerance: The largest derivative of the mean at which the fit ends.
        iterations_max: The largest number of steps.
        threads: The number of threads that read and add blocks.
        report: Receives after each step its number, the objective divided by the sum of weights, and its largest
            derivative.

    Raises:
        ValueError: A label, a weight, C or a value of a row is not allowed; or the start has other shapes.
    """
    with _threads(threads) as pool:
        objective = _make_objective(blocks, head, n_classes, C, hidden=hidden, activation=activation, pool=pool)
        first = objective.draw(seed) if start is None else objective.pack(start.hidden, start.weights, start.bias)
        end = minimize(
            objective.evaluate, first, tolerance=tolerance, iterations_max=iterations_max,
            diagonal=objective.diagonal(), report=report,
        )  # fmt: skip
        if not np.isfinite(end.value):
            raise ValueError("the objective is not finite at the start; are all values of rows finite?")
        loss = objective.mean_loss(end.x)
    layers, weights, bias = objective.unpack(end.x)
    return Fit(
        head, n_classes, weights, bias, layers, C, end.value * objective.weight, loss, end.gradient, end.iterations,
        end.evaluations, end.reason,
    )  # fmt: skip


def fit_path(
    blocks: RowBlocks,
    held_out: RowBlocks,
    head: Head,
    n_classes: int,
    strengths: Sequence[float],
    *,
    hidden: tuple[int, ...] = (),
    activation: Activation = "relu",
    seed: int = 0,
    tolerance: float = TOLERANCE,
    iterations_max: int = ITERATIONS_MAX,
    threads: int = 1,
    report: Callable[[float], Report] | None = None,
) -> list[tuple[Fit, float]]:
    """Fit a model for each of several values of C, from a weak to a strong penalty.

    Args:
        blocks: As in `fit`.
        held_out: Other rows of the same columns.
        head: As in `fit`.
        n_classes: As in `fit`.
        strengths: The values of C, each once. The largest one is first; each fit starts from the one before.
        hidden: As in `fit`.
        activation: As in `fit`.
        seed: As in `fit`.
        tolerance: As in `fit`.
        iterations_max: As in `fit`.
        threads: As in `fit`.
        report: Returns the `report` of the fit for a value of C.

    Returns:
        The fits in the order of `strengths`, each with its mean loss over the held-out rows.
    """
    fits: dict[float, tuple[Fit, float]] = {}
    start = None
    for C in sorted(strengths, reverse=True):
        start = fit(
            blocks, head, n_classes, C, start=start, hidden=hidden, activation=activation, seed=seed,
            tolerance=tolerance, iterations_max=iterations_max, threads=threads, report=report and report(C),
        )  # fmt: skip
        fits[C] = start, mean_loss(start, held_out, threads=threads)
    return [fits[C] for C in strengths]


def mean_loss(fitted: Fit, blocks: RowBlocks, *, threads: int = 1) -> float:
    """Return the mean loss of a fit over rows, by their weights.

    Raises:
        ValueError: As in `fit`.
    """
    with _threads(threads) as pool:
        widths = tuple(layer.bias.size for layer in fitted.hidden)
        activation = fitted.hidden[0].activation if fitted.hidden else "relu"
        objective = _make_objective(
            blocks, fitted.head, fitted.n_classes, np.inf, hidden=widths, activation=activation, pool=pool
        )
        return objective.mean_loss(objective.pack(fitted.hidden, fitted.weights, fitted.bias))


def _make_objective(
    blocks: RowBlocks,
    head: Head,
    n_classes: int,
    C: float,
    *,
    hidden: tuple[int, ...],
    activation: Activation,
    pool: ThreadPoolExecutor | None,
) -> LinearObjective | NetworkObjective:
    if hidden:
        return NetworkObjective(blocks, head, n_classes, C, hidden=hidden, activation=activation, pool=pool)
    return LinearObjective(blocks, head, n_classes, C, pool)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    """Return threads, or None for the caller's."""
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count) as pool:
        yield pool
